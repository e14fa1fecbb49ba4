"""POST /v1/triggers/test: what a new or changed trigger would have done, without doing it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from ordinaut.domain import task
from ordinaut.domain.ids import entry_run_id, task_id
from ordinaut.intake.intake import Intake
from ordinaut.runtime import rehearsal
from ordinaut.runtime.keys import issue_key
from tests.support.api import PIPELINE, Served, pointers, problem, running_api
from tests.support.eventually import eventually
from tests.support.listening import events, happen, listen
from tests.support.running import running

BIG = "data.amount > `100`"


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url, poll_seconds=0.1) as served:
        yield served


@pytest.fixture
def redis(api: Served) -> Redis:
    return api.system.redis


async def add(redis: Redis, *amounts: int) -> list[str]:
    """An entry for each amount; their ids."""
    return [(await redis.xadd("orders", {"data": f'{{"amount": {n}}}'})).decode() for n in amounts]


def definition(name: str = "ship", stream: str = "orders", **on: Any) -> dict[str, Any]:
    return {"name": name, "on": {"stream": stream, **on}, "pipeline": PIPELINE}


async def tried(api: Served, wanted: dict[str, Any], **more: Any) -> Any:
    body = {"definition": wanted, "stream": "orders", **more}
    answer = await api.http.post("/v1/triggers/test", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_new_trigger_shows_what_it_would_have_started_and_changes_nothing(
    api: Served, redis: Redis
) -> None:
    added = await add(redis, 50, 150)
    await redis.xadd("orders", {"data": "no JSON"})
    await redis.xadd("orders", {"data": '{"amount": 300, "n": "x"}'})
    wanted = definition(where=BIG, input={"n": "${abs(data.n || `1`)}"})
    (before,) = await api.system.pool.fetch("SELECT position FROM log_head")
    found = await tried(api, wanted)
    assert found["counts"] == {"entries": 4, "match": 1, "none": 1, "error": 2, "runs": 1}
    assert (
        found["compared_with"] is None
        and found["collects"] is None
        and (found["task"], found["left_off"]) == ("ship", 0)
    )
    match, unreadable, failed = found["items"]
    run = entry_run_id("default", "orders", added[1], task_id("default", "ship"))
    assert match == {
        "source": "orders", "id": added[1], "outcome": "match", "reason": None, "input": {"n": 1}, "run": run,
        "now": None, "change": None,
    }  # fmt: skip
    assert (unreadable["outcome"], unreadable["run"]) == ("error", None)
    assert "not JSON" in unreadable["reason"] and "cannot be evaluated" in failed["reason"]
    assert (found["from"], found["to"]) == (added[0], failed["id"])
    everything = await tried(api, wanted, all=True)
    assert [one["outcome"] for one in everything["items"]] == ["none", "match", "error", "error"]
    (after,) = await api.system.pool.fetch("SELECT position FROM log_head")
    assert before == after and await redis.xinfo_groups("orders") == []


async def test_a_changed_trigger_shows_what_it_would_do_otherwise_than_now(api: Served, redis: Redis) -> None:
    state = await listen(api.system, "ship", where=BIG)
    # How the task is doing is not what is tried.
    await happen(api.system, state, task.pause(state, "stocktaking"))
    await add(redis, 50, 150, 250)
    found = await tried(api, definition(where="data.amount < `200`"))
    assert found["compared_with"] == 1
    assert found["counts"] == {
        "entries": 3, "match": 2, "none": 1, "error": 0, "newly": 1, "no_longer": 1, "input": 0, "runs": 2,
        "runs_now": 2,
    }  # fmt: skip
    told = [(one["outcome"], one["now"], one["change"]) for one in found["items"]]
    assert told == [("match", "none", "newly"), ("match", "match", None), ("none", "match", "no_longer")]
    other = await tried(api, definition(where=BIG, input={"n": "${data.amount}"}))
    assert [one["change"] for one in other["items"]] == ["input", "input"]
    same = await tried(api, definition(where=BIG))
    assert not any(same["counts"][name] for name in ("newly", "no_longer", "input"))


async def test_a_task_that_listens_to_something_else_matches_nothing_now(api: Served, redis: Redis) -> None:
    await listen(api.system, "ship", "elsewhere")
    await api.http.post("/v1/tasks", json={"name": "tick", "schedule": {"every": "1d"}, "pipeline": PIPELINE})
    await add(redis, 1, 2)
    for name in ("ship", "tick"):
        found = await tried(api, definition(name, "ord*"))
        assert (found["counts"]["newly"], found["compared_with"]) == (2, 1)
    await listen(api.system, "gone")
    await api.http.delete("/v1/tasks/gone")
    assert (await tried(api, definition("gone")))["compared_with"] is None


async def test_entries_that_a_trigger_collects_have_no_runs_of_their_own(api: Served, redis: Redis) -> None:
    await add(redis, 1, 200)
    found = await tried(api, definition(where=BIG, batch={"size": 10, "time": "1m"}))
    assert (found["collects"], found["counts"]["match"]) == ("batch", 1)
    assert [(one["outcome"], one["run"]) for one in found["items"]] == [("match", None)]


async def test_it_says_what_intake_then_does(api: Served, redis: Redis) -> None:
    """The same entries, the same verdicts, the same inputs and run ids."""
    await listen(api.system, "ship", where="contains(data.tags, 'x')", input={"t": "${data.tags[0]}"})
    for data in ('{"tags": ["x", "y"]}', '{"tags": ["y"]}', '{"tags": 7}', "[", '{"tags": ["a", "x"]}'):
        await redis.xadd("orders", {"data": data})
    await redis.xadd("orders", {"tags": "x"})
    wanted = definition(where="contains(data.tags, 'x')", input={"t": "${data.tags[0]}"})
    found = await tried(api, wanted, all=True)
    async with running(Intake(api.system)):
        await eventually(lambda: _decided(api, found["counts"]))
    runs = await events(api.system, "RunRequested")
    assert {(run.stream, str(run.data["input"])) for run in runs} == {
        (f"run-{one['run']}", str(one["input"])) for one in found["items"] if one["outcome"] == "match"
    }
    rejected = await events(api.system, "EventRejected")
    assert {(one.data["id"], one.data["reason"]) for one in rejected} == {
        (one["id"], one["reason"]) for one in found["items"] if one["outcome"] == "error"
    }


async def _decided(api: Served, counts: dict[str, int]) -> bool:
    found = await events(api.system, "RunRequested", "EventRejected")
    return len(found) == counts["match"] + counts["error"]


async def test_the_newest_or_a_range_or_the_log_is_looked_at(api: Served, redis: Redis) -> None:
    added = await add(redis, *range(250))
    found = await tried(api, definition(), last=120, limit=500)
    assert [one["id"] for one in found["items"]] == added[-120:]
    found = await tried(api, definition(), **{"from": added[3], "to": added[5]})
    assert [one["id"] for one in found["items"]] == added[3:6]
    assert (await tried(api, definition(), **{"from": added[200]}))["counts"]["entries"] == 50
    sent = []
    for n in range(5):
        answer = await api.http.post("/v1/events", json={"stream": "orders", "data": {"amount": n * 60}})
        sent.append(answer.json()["id"])
    found = await tried(api, definition(where=BIG), log=True, last=4)
    assert found["counts"] == {"entries": 4, "match": 3, "none": 1, "error": 0, "runs": 3}
    assert [one["id"] for one in found["items"]] == sent[2:]
    assert found["sources"] == [{"kind": "log", "stream": "orders"}]


async def test_counts_are_exact_beyond_what_is_listed(
    api: Served, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await add(redis, *range(230))
    found = await tried(api, definition())
    assert (len(found["items"]), found["left_off"], found["counts"]["match"]) == (100, 130, 230)
    found = await tried(api, definition(), limit=7)
    assert [one["id"] for one in found["items"]] == added[:7] and found["left_off"] == 223
    monkeypatch.setattr(rehearsal, "MOST_LISTED_BYTES", 100)
    found = await tried(api, definition())
    assert 0 < len(found["items"]) < 10 and len(found["items"]) + found["left_off"] == 230
    monkeypatch.setattr(rehearsal, "MOST_ENTRIES", 200)
    body = {"definition": definition(), "stream": "orders", "from": "0"}
    refused = await api.http.post("/v1/triggers/test", json=body)
    assert pointers(refused) == ["/to"] and "more than 200 entries" in refused.text


@pytest.mark.parametrize(
    ("more", "wanted", "pointer"),
    [
        ({"definition": 7}, [], ["/definition"]),
        ({"definition": {"name": "x"}}, [], ["/definition/pipeline"]),
        ({}, ["data.amount >"], ["/definition/on/where"]),
        ({"stream": "other"}, [], ["/stream"]),
        ({"stream": "ordinaut:dead"}, [], ["/stream"]),
        ({"last": 0}, [], ["/last"]),
        ({"last": 10_001}, [], ["/last"]),
        ({"last": True}, [], ["/last"]),
        ({"last": 5, "to": "1-0"}, [], ["/last"]),
        ({"limit": 501}, [], ["/limit"]),
        ({"from": "abc"}, [], ["/from"]),
        ({"from": "9-9", "to": "9-1"}, [], ["/from"]),
        ({"against": "orders"}, [], ["/against"]),
        ({"definition": {"name": "x", "pipeline": PIPELINE}}, [], ["/stream"]),
    ],
)
async def test_what_cannot_be_tried_is_refused_with_its_place(
    api: Served, redis: Redis, more: dict[str, Any], wanted: list[str], pointer: list[str]
) -> None:
    await add(redis, 1)
    body = {"definition": definition(**({"where": wanted[0]} if wanted else {})), "stream": "orders", **more}
    answer = await api.http.post("/v1/triggers/test", json=body)
    problem(answer, 422)
    assert pointers(answer) == pointer, answer.text


async def test_a_reader_may_try_triggers_on_streams_that_a_task_of_his_space_hears(
    api: Served, redis: Redis
) -> None:
    """A Redis stream has no space, so not any stream at all."""
    await add(redis, 1)
    _, reader = await issue_key(api.system, space="default", agent="rita", role="reader")
    _, other = await issue_key(api.system, space="other", agent="otto", role="reader")
    body = {"definition": definition("new"), "stream": "orders"}
    async with api.client(reader) as mine, api.client(other) as theirs:
        problem(await mine.post("/v1/triggers/test", json=body), 403)
        await listen(api.system, "ship", "ord*")
        assert (await mine.post("/v1/triggers/test", json=body)).json()["counts"]["match"] == 1
        problem(await theirs.post("/v1/triggers/test", json=body), 403)
        await api.http.post("/v1/events", json={"stream": "orders", "data": 1})
        logged = await theirs.post("/v1/triggers/test", json=body | {"log": True})
        assert pointers(logged) == ["/stream"]
