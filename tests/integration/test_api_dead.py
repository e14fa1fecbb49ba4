"""Dead letters are put to work again under their old ids, or out of the way, and the log says who and why."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ordinaut.domain.ids import entry_run_id, task_id
from ordinaut.intake.intake import Intake
from ordinaut.log.read import LogFilter, read_log
from ordinaut.runtime.entries import Entry, History, reject
from ordinaut.runtime.keys import issue_key
from ordinaut.runtime.streams import DEAD
from tests.support.api import Served, problem, running_api, task
from tests.support.eventually import eventually
from tests.support.running import running

PICKY = {"stream": "orders", "where": "length(data.items) > `1`"}
WHY = {"reason": "the trigger is mended"}


@asynccontextmanager
async def served(database_url: str, redis_url: str) -> AsyncIterator[tuple[Served, Intake]]:
    """An API and an intake."""
    async with running_api(database_url, redis_url, poll_seconds=0.1, lease_seconds=1) as api:
        intake = Intake(api.system)
        async with running(intake):
            yield api, intake


async def define(api: Served, name: str, on: dict[str, Any]) -> None:
    answer = await api.http.put(f"/v1/tasks/{name}", json=task(name, on=on))
    assert answer.is_success, answer.text


async def letters(api: Served, count: int, **query: Any) -> list[dict[str, Any]]:
    async def there() -> tuple[list[dict[str, Any]]]:
        answer = await api.http.get("/v1/dead-letters", params=query)
        items: list[dict[str, Any]] = answer.json()["items"]
        assert len(items) == count, answer.text
        return (items,)

    return (await eventually(there))[0]


async def happened(api: Served, *types: str) -> list[Any]:
    async with api.system.pool.acquire() as connection:
        return await read_log(connection, LogFilter("default", types=types), after=0, limit=1000)


async def test_what_one_task_rejected_is_decided_anew_for_it_alone(database_url: str, redis_url: str) -> None:
    async with served(database_url, redis_url) as (api, intake):
        await define(api, "picky", PICKY)
        await define(api, "easy", {"stream": "orders"})
        entry = (await api.system.redis.xadd("orders", {"data": '{"items": 7}'})).decode()
        await eventually(lambda: (intake.matched, intake.rejected) == (1, 1))
        (letter,) = await letters(api, 1)
        assert letter["cause"] == {"kind": "stream", "stream": "orders", "id": entry}
        assert (letter["task"], letter["state"], letter["rejections"]) == ("picky", "dead", 1)
        assert "length()" in letter["reason"]
        shown = (await api.http.get(f"/v1/dead-letters/{letter['id']}")).json()
        assert (shown["entry"], shown["shortened"], shown["runs"]) == ({"data": '{"items": 7}'}, False, [])

        await define(api, "picky", {"stream": "orders", "where": "data.items > `1`"})
        answer = await api.http.post(f"/v1/dead-letters/{letter['id']}/requeue", json=WHY)
        assert answer.status_code == 200, answer.text
        run = entry_run_id("default", "orders", entry, task_id("default", "picky"))
        done = answer.json()
        assert (done["state"], done["runs"]) == ("requeued", [run])
        assert (done["decided_by"], done["decision_reason"]) == ("key:admin", WHY["reason"])
        ran = (await api.http.get(f"/v1/runs/{run}")).json()
        assert ran["cause"] == letter["cause"]
        assert len(await happened(api, "RunRequested")) == 2
        (requeued,) = await happened(api, "EventRequeued")
        assert requeued.data == {"reason": WHY["reason"], "found_in": "stream", "runs": [run]}
        requested = (await happened(api, "RunRequested"))[-1]
        assert requested.causation == requeued.reference
        assert await api.system.redis.xlen(DEAD) == 0
        again = await api.http.post(f"/v1/dead-letters/{letter['id']}/requeue", json=WHY)
        assert "was requeued by key:admin: the trigger is mended" in str(problem(again, 409)["detail"])
        assert await letters(api, 0) == []
        assert [one["id"] for one in await letters(api, 1, state="requeued", task="picky")] == [letter["id"]]


async def test_what_is_rejected_again_stays_dead_with_the_new_reason(
    database_url: str, redis_url: str
) -> None:
    async with served(database_url, redis_url) as (api, intake):
        await define(api, "picky", PICKY)
        await api.system.redis.xadd("orders", {"data": '{"items": 7}'})
        await api.system.redis.xadd("orders", {"data": "{not json"})
        await eventually(lambda: intake.rejected == 2)
        bad, picky = await letters(api, 2)
        await define(api, "picky", {"stream": "orders", "where": "starts_with(data.items, 'a')"})
        for letter, said in ((picky, "starts_with()"), (bad, "not JSON")):
            answer = await api.http.post(f"/v1/dead-letters/{letter['id']}/requeue", json=WHY)
            done = answer.json()
            assert (done["state"], done["rejections"], done["runs"]) == ("dead", 2, [])
            assert said in done["reason"]
        assert len(await letters(api, 2)) == 2
        types = [event.type for event in await happened(api, "EventRejected", "EventRequeued")]
        assert types == ["EventRejected"] * 2 + ["EventRequeued", "EventRejected"] * 2
        assert await api.system.redis.xlen(DEAD) == 2


@pytest.mark.parametrize("where", ["stream", "dead", "log", "nowhere"])
async def test_the_entry_is_found_wherever_it_still_is(database_url: str, redis_url: str, where: str) -> None:
    async with served(database_url, redis_url) as (api, intake):
        await define(api, "picky", PICKY)
        size = 20_000 if where == "nowhere" else 12_000
        data = json.dumps({"items": 7, "text": "x" * size})
        # Not in the order that jsonb would give them.
        fields: dict[Any, Any] = {"original:id": "5", "reason": "late", "data": data}
        entry = (await api.system.redis.xadd("orders", fields)).decode()
        await api.system.redis.xadd("orders", {"data": '{"items": 8}'})
        await eventually(lambda: (intake.matched, intake.rejected) == (0, 2))
        wanted = [one for one in await letters(api, 2) if one["cause"]["id"] == entry]
        shown = (await api.http.get(f"/v1/dead-letters/{wanted[0]['id']}")).json()
        assert shown["shortened"] == (where == "nowhere")
        assert list(shown["entry"]) == list(fields)
        await define(api, "picky", {"stream": "orders", "input": {"of": "${data.reason}"}})
        if where == "dead":
            await api.system.redis.xdel("orders", entry)
        elif where in ("log", "nowhere"):
            await api.system.redis.flushdb()
        answer = await api.http.post(f"/v1/dead-letters/{wanted[0]['id']}/requeue", json=WHY)
        if where == "nowhere":
            assert "does not hold it whole" in str(problem(answer, 409)["detail"])
            return
        assert answer.status_code == 200, answer.text
        (run,) = answer.json()["runs"]
        assert (await api.http.get(f"/v1/runs/{run}")).json()["input"] == {"of": "late"}
        (event,) = await happened(api, "EventRequeued")
        assert event.data["found_in"] == where


async def test_another_entry_with_the_id_is_not_taken_for_the_dead_one(
    database_url: str, redis_url: str
) -> None:
    async with served(database_url, redis_url) as (api, intake):
        await define(api, "picky", PICKY)
        await eventually(lambda: "orders" in intake.lags)
        await api.system.redis.xadd("orders", {"data": '{"items": 7}'}, id="5-1")
        await eventually(lambda: intake.rejected == 1)
        await api.system.redis.delete("orders")
        await api.system.redis.xadd("orders", {"data": '{"items": 8}'}, id="5-1")
        await eventually(lambda: intake.rejected == 2)
        await define(api, "picky", {"stream": "orders"})
        inputs = []
        for letter in await letters(api, 2):
            answer = await api.http.post(f"/v1/dead-letters/{letter['id']}/requeue", json=WHY)
            (run,) = answer.json()["runs"]
            inputs.append((await api.http.get(f"/v1/runs/{run}")).json()["input"])
        assert inputs == [{"items": 8}, {"items": 7}]


async def test_an_entry_that_killed_is_tried_apart_and_is_then_for_every_task_of_the_space(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(database_url, redis_url) as (api, intake):
        for name in ("ship", "pack"):
            await define(api, name, {"stream": "orders"})
        entry = (await api.system.redis.xadd("orders", {"data": "1"})).decode()
        await eventually(lambda: intake.matched == 2)
        await define(api, "bill", {"stream": "orders"})
        refusal, _ = reject(
            Entry("orders", entry, {b"data": b"1"}),
            "it kills",
            space="default",
            history=History(5, "gone", 30.0),
        )
        await api.system.appender.append(refusal)
        (letter,) = await letters(api, 1)
        assert letter["history"] == {"deliveries": 5, "last_consumer": "gone", "idle_seconds": 30.0}
        path = f"/v1/dead-letters/{letter['id']}"
        with monkeypatch.context() as patch:
            patch.setattr("ordinaut.runtime.trial.PROGRAM", (sys.executable, "-c", "import os; os._exit(9)"))
            still = await api.http.post(f"{path}/requeue", json=WHY)
            assert "tried to decide it ended with 9" in str(problem(still, 409)["detail"])
            assert (await api.http.get(path)).json()["state"] == "dead"
        answer = await api.http.post(f"{path}/requeue", json=WHY)
        assert len(answer.json()["runs"]) == 3
        assert len(await happened(api, "RunRequested")) == 3


async def test_a_published_event_and_one_of_the_log_can_be_requeued(
    database_url: str, redis_url: str
) -> None:
    async with served(database_url, redis_url) as (api, _):
        await define(api, "picky", PICKY)
        on = {"event": "TaskCreated", "where": "length(data.nothing) > `1`"}
        await define(api, "watch", on)
        answer = await api.http.post("/v1/events", json={"stream": "orders", "data": {"items": 7}})
        assert answer.json()["runs"] == []
        await define(api, "other", {"stream": "elsewhere"})
        found = {one["task"]: one for one in await letters(api, 2)}
        assert found["picky"]["cause"] == {"kind": "event", "stream": "orders", "id": answer.json()["id"]}
        assert found["watch"]["cause"]["kind"] == "system"
        await define(api, "picky", {"stream": "orders"})
        await define(api, "watch", {"event": "TaskCreated"})
        for name in ("picky", "watch"):
            done = await api.http.post(f"/v1/dead-letters/{found[name]['id']}/requeue", json=WHY)
            assert done.status_code == 200, done.text
            (run,) = done.json()["runs"]
            shown = (await api.http.get(f"/v1/runs/{run}")).json()
            assert shown["cause"]["kind"] == found[name]["cause"]["kind"]
            assert shown["cause"].get("id") == found[name]["cause"]["id"] or name == "watch"


async def test_dropping_takes_a_letter_out_of_the_list_and_keeps_it_in_the_log(
    database_url: str, redis_url: str
) -> None:
    async with served(database_url, redis_url) as (api, intake):
        await define(api, "ship", {"stream": "orders"})
        await api.system.redis.xadd("orders", {"data": "{"})
        await eventually(lambda: intake.rejected == 1)
        (letter,) = await letters(api, 1)
        path = f"/v1/dead-letters/{letter['id']}"
        await eventually(lambda: api.system.redis.xlen(DEAD))
        for _ in range(2):
            answer = await api.http.delete(path, params={"reason": "a test of ours"})
            assert answer.json()["state"] == "dropped"
        (event,) = await happened(api, "EventDropped")
        assert (event.actor, event.data) == ("key:admin", {"reason": "a test of ours"})
        assert await api.system.redis.xlen(DEAD) == 0
        await letters(api, 0)
        problem(await api.http.post(f"{path}/requeue", json=WHY), 409)


async def test_who_and_why_are_asked_and_other_spaces_see_nothing(database_url: str, redis_url: str) -> None:
    async with served(database_url, redis_url) as (api, intake):
        await define(api, "ship", {"stream": "orders"})
        await api.system.redis.xadd("orders", {"data": "{"})
        await eventually(lambda: intake.rejected == 1)
        (letter,) = await letters(api, 1)
        path = f"/v1/dead-letters/{letter['id']}"
        for body in ({}, {"reason": None}, {"reason": "  "}):
            problem(await api.http.post(f"{path}/requeue", json=body), 422)
        problem(await api.http.delete(path), 400)
        problem(await api.http.get("/v1/dead-letters", params={"state": "odd"}), 400)
        for wrong in ("nothing", "01a1fb3e-6ecd-85d5-b989-09dee4726a33"):
            problem(await api.http.get(f"/v1/dead-letters/{wrong}"), 404)
        _, stranger = await issue_key(api.system, space="other", agent="stranger", role="admin")
        _, reader = await issue_key(api.system, space="default", agent="reader", role="reader")
        async with api.client(stranger) as http:
            assert (await http.get("/v1/dead-letters")).json()["items"] == []
            problem(await http.get(path), 404)
            problem(await http.post(f"{path}/requeue", json=WHY), 404)
            problem(await http.delete(path, params=WHY), 404)
        async with api.client(reader) as http:
            assert len((await http.get("/v1/dead-letters")).json()["items"]) == 1
            problem(await http.post(f"{path}/requeue", json=WHY), 403)


async def test_a_requeue_that_is_sent_again_after_its_first_attempt_died_half_way_is_the_same(
    database_url: str, redis_url: str
) -> None:
    async with served(database_url, redis_url) as (api, intake):
        await define(api, "picky", PICKY)
        await api.system.redis.xadd("orders", {"data": '{"items": 7}'})
        await eventually(lambda: intake.rejected == 1)
        (letter,) = await letters(api, 1)
        await define(api, "picky", {"stream": "orders"})
        path, key = f"/v1/dead-letters/{letter['id']}/requeue", {"Idempotency-Key": "again"}
        first = await api.http.post(path, json=WHY, headers=key)
        # The answer was not kept: the process ended before.
        await api.system.pool.execute("UPDATE idempotency_keys SET status = NULL, body = NULL")
        second = await api.http.post(path, json=WHY, headers=key)
        assert (second.status_code, second.json()) == (200, first.json())
        assert len(await happened(api, "EventRequeued")) == 1


async def test_a_task_that_no_longer_listens_gets_nothing(database_url: str, redis_url: str) -> None:
    async with served(database_url, redis_url) as (api, intake):
        await define(api, "picky", PICKY)
        await api.system.redis.xadd("orders", {"data": '{"items": 7}'})
        await eventually(lambda: intake.rejected == 1)
        (letter,) = await letters(api, 1)
        await api.http.delete("/v1/tasks/picky")
        answer = await api.http.post(f"/v1/dead-letters/{letter['id']}/requeue", json=WHY)
        assert "does not listen to 'orders' any more" in str(problem(answer, 409)["detail"])
