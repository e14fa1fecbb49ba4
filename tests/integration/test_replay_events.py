"""Tasks on the log's own events (`on: {event: …}`): replayed over those there are, and tried against them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ordinaut.domain import task
from ordinaut.domain.events import Event
from ordinaut.domain.ids import replayed_run_id, system_run_id, task_id
from ordinaut.intake.log_events import LogEvents
from ordinaut.runtime.triggers import TriggerIndex
from tests.support.api import PIPELINE, Served, pointers, running_api
from tests.support.eventually import eventually
from tests.support.listening import events, happen, listen, roomy
from tests.support.replaying import at_work, ended, runs

ALARM = task_id("default", "alarm")
ON = {"event": "RunFailed", "where": "data.task == 'backup'", "input": {"n": "${data.cause.kind}"}}
BAD = [{"id": "call", "uses": "http.get", "with": {"url": "http://127.0.0.1:1/"}}]


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url, poll_seconds=0.1) as served:
        yield served


async def failures(api: Served, *names: str) -> list[Event]:
    """A failed run of each of these tasks; the events that say so."""
    before = len(await events(api.system, "RunFailed"))
    async with at_work(api):
        for number, name in enumerate(names, start=before + 1):
            put = await api.http.put(f"/v1/tasks/{name}", json={"pipeline": BAD})
            assert put.status_code in (200, 201), put.text
            assert (await api.http.post(f"/v1/tasks/{name}/run", json={})).status_code == 202

            async def failed(number: int = number) -> bool:
                return len(await events(api.system, "RunFailed")) == number

            await eventually(failed, timeout=20)
    return (await events(api.system, "RunFailed"))[before:]


async def replayed(api: Served, status: int = 202, **body: Any) -> Any:
    answer = await api.http.post("/v1/tasks/alarm/replay", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def react(api: Served) -> None:
    """Let the reader of the log read on to its end."""
    reader = LogEvents(api.system, TriggerIndex(api.system.pool), roomy(api.system))
    while await reader.step():
        pass


async def alarms(api: Served) -> list[Any]:
    return [run for run in await runs(api) if run.data["name"] == "alarm"]


def run_of(event: Event) -> str:
    return system_run_id(int(event.at.timestamp() * 1000), event.position, ALARM)


async def test_events_from_before_the_task_run_with_the_ids_their_reader_gives(api: Served) -> None:
    first, _, third = await failures(api, "backup", "other", "backup")
    await listen(api.system, "alarm", **ON)
    await react(api)
    assert await alarms(api) == [], "they are older than the task"
    plan = await replayed(api, 200, dry_run=True)
    assert plan["source"] == {"kind": "event", "event": "RunFailed"}
    assert plan["counts"] == {"entries": 3, "run": 2, "has_run": 0, "unmatched": 1, "rejected": 0}
    assert (plan["from"], plan["to"]) == (str(first.position), str(third.position))
    assert plan["items"][0]["input"] == {"n": "manual"}
    async with at_work(api):
        done = await ended(api, (await replayed(api, reason="it was forgotten"))["backfill"])
    assert (done["state"], done["succeeded"], done["source"]) == ("finished", 2, plan["source"])
    found = await alarms(api)
    assert [run.stream for run in found] == [f"run-{run_of(event)}" for event in (first, third)]
    assert found[0].data["cause"] == {
        "kind": "replay", "backfill": done["id"], "source": "event", "event": "RunFailed",
        "id": str(first.position), "verdict": "none", "reason": None,
    }  # fmt: skip
    assert found[0].data["depth"] == 1
    again = await replayed(api, 200, dry_run=True)
    assert (again["counts"]["run"], again["counts"]["has_run"]) == (0, 2)


async def test_what_the_reader_reacted_to_is_not_run_again_and_the_reader_finds_what_was_replayed(
    api: Served,
) -> None:
    state = await listen(api.system, "alarm", **ON)
    (first,) = await failures(api, "backup")
    await react(api)
    assert [run.stream for run in await alarms(api)] == [f"run-{run_of(first)}"]
    state = await happen(api.system, state, task.pause(state, "stocktaking"))
    (second,) = await failures(api, "backup")
    await react(api)
    await happen(api.system, state, task.resume(state))
    (third,) = await failures(api, "backup")
    plan = await replayed(api, 200, dry_run=True)
    assert [(one["verdict"], one["reason"]) for one in plan["items"]] == [
        ("fired", None), ("skipped", "paused"), ("none", None),
    ]  # fmt: skip
    async with at_work(api):
        await ended(api, (await replayed(api))["backfill"])
    await react(api)
    wanted = [run_of(first), replayed_run_id(run_of(second)), run_of(third)]
    assert [run.stream for run in await alarms(api)] == [f"run-{run}" for run in wanted]
    async with at_work(api):
        await ended(api, (await replayed(api, rerun=True, **{"from": str(third.position)}))["backfill"])
    assert len(await alarms(api)) == 4


async def test_positions_bound_it_and_the_newest_are_counted_by_type(api: Served) -> None:
    found = await failures(api, "backup", "backup", "backup")
    await listen(api.system, "alarm", **ON)
    bounds = {"from": str(found[0].position + 1), "to": str(found[1].position)}
    assert [one["id"] for one in (await replayed(api, 200, dry_run=True, **bounds))["items"]] == [
        str(found[1].position)
    ]
    wanted = {"definition": {"name": "alarm", "on": ON, "pipeline": PIPELINE}, "last": 2}
    tried = (await api.http.post("/v1/triggers/test", json=wanted)).json()
    assert [one["id"] for one in tried["items"]] == [str(event.position) for event in found[1:]]
    assert tried["sources"] == [{"kind": "event", "event": "RunFailed"}]


async def test_a_changed_trigger_on_events_is_held_beside_the_one_in_force(api: Served) -> None:
    found = await failures(api, "backup", "other")
    await listen(api.system, "alarm", **ON)
    definition = {"name": "alarm", "on": ON | {"where": "data.task != 'backup'"}, "pipeline": PIPELINE}
    before = await api.system.pool.fetchval("SELECT position FROM log_head")
    tried = (await api.http.post("/v1/triggers/test", json={"definition": definition})).json()
    assert [(one["id"], one["outcome"], one["change"]) for one in tried["items"]] == [
        (str(found[0].position), "none", "no_longer"), (str(found[1].position), "match", "newly"),
    ]  # fmt: skip
    assert tried["items"][1]["run"] == run_of(found[1])
    assert await api.system.pool.fetchval("SELECT position FROM log_head") == before
    definition["on"] = {"event": "TaskPaused"}
    other = (await api.http.post("/v1/triggers/test", json={"definition": definition})).json()
    assert other["counts"]["entries"] == 0


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"stream": "orders"}, "/stream"),
        ({"from": "x"}, "/from"),
        ({"from": "5-1"}, "/from"),
        ({"to": str(2**63)}, "/to"),
        ({"from": "7", "to": "5"}, "/from"),
    ],
)
async def test_what_no_log_could_answer_to_is_refused_with_its_place(
    api: Served, body: dict[str, Any], pointer: str
) -> None:
    await listen(api.system, "alarm", **ON)
    answer = await api.http.post("/v1/tasks/alarm/replay", json=body)
    assert answer.status_code == 422 and pointers(answer) == [pointer]


async def test_events_of_another_space_are_nobodys_here(api: Served) -> None:
    await failures(api, "backup")
    await listen(api.system, "alarm", space="other", **ON)
    await listen(api.system, "alarm", event="TaskCreated")
    async with api.system.pool.acquire() as connection:
        created = await connection.fetchval("SELECT count(*) FROM events WHERE type = 'TaskCreated'")
    plan = await replayed(api, 200, dry_run=True)
    assert plan["counts"]["entries"] == created - 1
    assert plan["items"][-1]["verdict"] == "unmatched", "its own beginning is not its to react to"
