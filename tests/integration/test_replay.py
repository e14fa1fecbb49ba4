"""Replays over real streams and a real log: what they show first, what they run, and that an entry has one
run whoever else comes to it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from ordinaut.clock.backfill import Backfills
from ordinaut.clock.clock import Clock
from ordinaut.domain import task
from ordinaut.domain.ids import entry_run_id, replayed_run_id, task_id
from ordinaut.intake.intake import Intake
from ordinaut.runtime.publication import event_run_id
from ordinaut.work.tools.registry import BUILT_IN, Registry
from ordinaut.work.worker import Worker
from tests.support.api import PIPELINE, Served, running_api
from tests.support.clock import killed_after
from tests.support.eventually import eventually
from tests.support.listening import events, happen, listen
from tests.support.replaying import add, at_work, ended, has, replayed, runs
from tests.support.running import running

BIG = "data.amount > `100`"
SHIP = task_id("default", "ship")


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url, poll_seconds=0.1) as served:
        yield served


@pytest.fixture
def redis(api: Served) -> Redis:
    return api.system.redis


async def test_entries_from_before_the_task_run_in_order_with_the_ids_intake_gives(
    api: Served, redis: Redis
) -> None:
    added = await add(redis, 50, 150, 250)
    await redis.xadd("orders", {"data": "no JSON"})
    await asyncio.sleep(0.01)
    await listen(api.system, "ship", where=BIG, input={"n": "${data.amount}"})
    plan = await replayed(api, 200, dry_run=True)
    assert plan["counts"] == {"entries": 4, "run": 2, "has_run": 0, "unmatched": 1, "rejected": 1}
    assert [one["verdict"] for one in plan["items"]] == ["unmatched", "none", "none", "rejected"]
    assert [one["id"] for one in plan["items"][:3]] == added
    assert "not JSON" in plan["items"][3]["reason"] and plan["items"][1]["input"] == {"n": 150}
    assert (plan["from"], plan["to"]) == (added[0], plan["items"][3]["id"])
    assert plan["source"] == {"kind": "stream", "stream": "orders"}
    assert await runs(api) == []

    async with at_work(api):
        asked = await replayed(api, max_parallel=2, reason="it was forgotten")
        done = await ended(api, asked["backfill"])
    assert (done["state"], done["planned"], done["succeeded"]) == ("finished", 2, 2)
    assert done["source"] == {"kind": "stream", "stream": "orders"}
    assert (done["requested_by"], done["reason"]) == ("key:admin", "it was forgotten")
    found = await runs(api)
    assert [run.stream for run in found] == [
        f"run-{entry_run_id('default', 'orders', entry, SHIP)}" for entry in added[1:]
    ]
    cause = {
        "kind": "replay", "backfill": asked["backfill"], "source": "stream", "stream": "orders",
        "id": added[1], "verdict": "none", "reason": None,
    }  # fmt: skip
    assert found[0].data["cause"] == cause and found[0].data["priority"] == 0
    assert found[0].causation == f"backfill-{asked['backfill']}/1"

    again = await replayed(api, 200, dry_run=True)
    assert again["counts"] == {"entries": 4, "run": 0, "has_run": 2, "unmatched": 1, "rejected": 1}
    assert [one["verdict"] for one in again["items"]] == ["unmatched", "fired", "fired", "rejected"]
    assert (await replayed(api))["state"] == "finished"
    # Whoever reads the entries now finds their runs.
    await redis.xgroup_create("orders", "ordinaut", id="0")
    async with running(Intake(api.system)):
        last = await add(redis, 999)
        await eventually(lambda: has(api, 3), timeout=20)
    assert (await runs(api))[2].data["cause"] == {"kind": "stream", "stream": "orders", "id": last[0]}


async def test_what_has_a_run_is_run_again_only_when_asked(api: Served, redis: Redis) -> None:
    await listen(api.system, "ship")
    async with running(Intake(api.system)), at_work(api):
        await add(redis, 1, 2)
        await eventually(lambda: has(api, 2), timeout=20)
        assert (await replayed(api, 200, dry_run=True))["counts"]["has_run"] == 2
        done = await ended(api, (await replayed(api, rerun=True, order="newest"))["backfill"])
        assert done["succeeded"] == 2
    found = await runs(api)
    assert [run.data["input"]["amount"] for run in found] == [1, 2, 2, 1]
    assert found[2].data["cause"]["verdict"] == "fired"
    assert len({run.stream for run in found}) == 4


async def test_what_a_pause_skipped_keeps_its_verdict_and_has_one_run_however_often_it_is_replayed(
    api: Served, redis: Redis
) -> None:
    state = await listen(api.system, "ship")
    await happen(api.system, state, task.pause(state, "stocktaking"))
    (entry,) = await add(redis, 1)
    async with running(Intake(api.system)):
        await eventually(lambda: events(api.system, "OccurrenceSkipped"), timeout=20)
    plan = await replayed(api, 200, dry_run=True)
    assert (plan["items"][0]["verdict"], plan["items"][0]["reason"]) == ("skipped", "paused")
    async with at_work(api):
        asked = await asyncio.gather(*(replayed(api) for _ in range(3)))
        for one in asked:
            await ended(api, one["backfill"])
    (run,) = await runs(api)
    assert run.stream == f"run-{replayed_run_id(entry_run_id('default', 'orders', entry, SHIP))}"
    assert run.data["cause"]["verdict"] == "skipped" and run.data["cause"]["reason"] == "paused"
    assert len(await events(api.system, "OccurrenceSkipped")) == 1


async def test_published_events_are_replayed_from_the_log(api: Served) -> None:
    sent = []
    for n in range(3):
        answer = await api.http.post("/v1/events", json={"stream": "orders", "data": {"amount": n * 100}})
        sent.append(answer.json()["id"])
    await listen(api.system, "ship", "ord*", where=BIG)
    plan = await replayed(api, 200, dry_run=True, log=True)
    assert [one["id"] for one in plan["items"]] == sent
    assert plan["counts"]["run"] == 1 and plan["source"] == {"kind": "log", "stream": "orders"}
    part = await replayed(api, 200, dry_run=True, log=True, **{"from": sent[1], "to": sent[1].upper()})
    assert [one["id"] for one in part["items"]] == [sent[1]]
    async with at_work(api):
        await ended(api, (await replayed(api, log=True))["backfill"])
    (run,) = await runs(api)
    assert run.stream == f"run-{event_run_id(sent[2], SHIP)}"
    assert (run.data["cause"]["source"], run.data["cause"]["id"]) == ("log", sent[2])


async def test_a_replay_is_cut_off_anywhere_and_goes_on_without_hole_or_duplicate(
    api: Served, redis: Redis
) -> None:
    await listen(api.system, "ship")
    await add(redis, *range(60))
    asked = await replayed(api, max_parallel=3)
    # What was shown is what runs, whatever becomes of the stream.
    await redis.delete("orders")
    async with running(Worker(api.system, Registry(BUILT_IN))):
        for number in (1, 10, 25, 40):
            await killed_after(Clock(api.system), lambda number=number: eventually(lambda: has(api, number)))
        async with running(Clock(api.system), Clock(api.system)):
            done = await ended(api, asked["backfill"])
    assert (done["requested"], done["succeeded"]) == (60, 60)
    assert [run.data["input"]["amount"] for run in await runs(api)] == list(range(60))


async def test_intake_and_a_replay_that_come_to_the_same_entries_give_each_one_run(
    api: Served, redis: Redis
) -> None:
    await listen(api.system, "ship")
    await add(redis, *range(50))
    async with at_work(api):
        asked = await replayed(api, max_parallel=5)
        async with running(Intake(api.system)):
            done = await ended(api, asked["backfill"])
    assert done["planned"] == 50
    found = await runs(api)
    assert sorted(run.data["input"]["amount"] for run in found) == list(range(50))


async def test_a_stop_ends_it_and_a_repeated_request_is_the_same_replay(api: Served, redis: Redis) -> None:
    await listen(api.system, "ship")
    await add(redis, 1, 2, 3)
    key = {"Idempotency-Key": "once"}
    body = {"stream": "orders"}
    answers = [await api.http.post("/v1/tasks/ship/replay", json=body, headers=key) for _ in range(2)]
    first, second = (answer.json() for answer in answers)
    assert first == second
    path = f"/v1/backfills/{first['backfill']}"
    stopped = await api.http.post(f"{path}/stop", json={"reason": "enough"})
    assert (stopped.json()["state"], stopped.json()["stop_reason"]) == ("stopped", "enough")
    await Backfills(api.system).advance()
    assert await runs(api) == []
    listed = await api.fresh("/v1/backfills", stopped, task="ship")
    assert [one["id"] for one in listed["items"]] == [first["backfill"]]


async def test_an_entry_of_a_stream_that_began_anew_is_not_taken_for_the_one_that_had_its_id(
    api: Served, redis: Redis
) -> None:
    await listen(api.system, "ship")
    await redis.xadd("orders", {"data": "1"}, id="5-0")
    async with at_work(api):
        await ended(api, (await replayed(api))["backfill"])
        assert (await replayed(api, 200, dry_run=True))["items"][0]["verdict"] == "fired"
        await redis.delete("orders")
        await redis.xadd("orders", {"data": "2"}, id="5-0")
        plan = await replayed(api, 200, dry_run=True)
        assert [(one["verdict"], one["run"]) for one in plan["items"]] == [("none", None)]
        await ended(api, (await replayed(api))["backfill"])
        assert (await replayed(api, 200, dry_run=True))["counts"]["has_run"] == 1
    async with running(Intake(api.system)):
        await eventually(lambda: _acknowledged(redis))
    found = await runs(api)
    assert [run.data["input"] for run in found] == [1, 2]
    assert len({run.data["digest"] for run in found}) == 2


async def _acknowledged(redis: Redis) -> bool:
    groups = await redis.xinfo_groups("orders")
    return bool(groups) and groups[0]["pending"] == 0 and groups[0]["last-delivered-id"] == b"5-0"


async def test_what_was_collected_counts_as_run(api: Served, redis: Redis) -> None:
    wanted = {"on": {"stream": "orders", "batch": {"size": 2, "time": "1h"}}, "pipeline": PIPELINE}
    assert (await api.http.put("/v1/tasks/ship", json=wanted)).status_code == 201
    await add(redis, 1)
    async with running(Intake(api.system)):
        await eventually(lambda: events(api.system, "EventCollected"), timeout=20)
    changed = await api.http.put("/v1/tasks/ship", json={**wanted, "on": {"stream": "orders"}})
    assert changed.status_code == 200
    plan = await replayed(api, 200, dry_run=True)
    assert [(one["verdict"], one["will_run"]) for one in plan["items"]] == [("collected", False)]
    assert (plan["counts"]["run"], plan["counts"]["has_run"]) == (0, 1)
    async with at_work(api):
        done = await ended(api, (await replayed(api, rerun=True))["backfill"])
    assert done["succeeded"] == 1


async def test_the_end_of_a_chain_is_not_lengthened_by_a_replay(api: Served, redis: Redis) -> None:
    await listen(api.system, "ship")
    await redis.xadd("orders", {"data": "1", "ordinaut-depth": "15"})
    await redis.xadd("orders", {"data": "2", "ordinaut-depth": "16"})
    plan = await replayed(api, 200, dry_run=True)
    assert [(one["verdict"], one["reason"]) for one in plan["items"]] == [
        ("none", None), ("rejected", "causation_depth"),
    ]  # fmt: skip
    async with at_work(api):
        await ended(api, (await replayed(api))["backfill"])
    (run,) = await runs(api)
    assert run.data["depth"] == 16


async def test_instants_of_a_replay_are_the_entries_own(api: Served, redis: Redis) -> None:
    """`time` in the envelope is the entry's, not the replay's."""
    await listen(api.system, "ship", input={"time": "${time}", "id": "${id}"})
    at = datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)
    entry = f"{int(at.timestamp() * 1000)}-7"
    await redis.xadd("orders", {"data": "1"}, id=entry)
    (item,) = (await replayed(api, 200, dry_run=True))["items"]
    assert item["input"] == {"time": "2020-02-03T04:05:06.000+00:00", "id": entry}
