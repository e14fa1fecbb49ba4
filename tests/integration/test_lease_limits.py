"""Concurrency limits: how many runs of a key go on at a time."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from ordinaut.domain.events import NewEvent
from ordinaut.work.record import LeaseLost, record
from tests.support.eventually import eventually
from tests.support.leasing import (
    SETTINGS,
    finish,
    keyed,
    lease,
    leased_rows,
    step_done,
)
from tests.support.probes import Probe
from tests.support.world import World, open_world


@pytest.fixture
async def world(database_url: str, redis_url: str) -> AsyncIterator[World]:
    """A world that is folded only when a test says so."""
    async with open_world(database_url, redis_url, projections=(), **SETTINGS) as opened:
        yield opened


async def intervals(world: World, runs: list[str]) -> list[tuple[str, str]]:
    """(run, its event's type) of the starts and ends of these runs, in the order of the log."""
    rows = await world.system.pool.fetch(
        "SELECT substr(stream, 5) AS run, type FROM events WHERE stream = ANY ($1) AND type IN"
        " ('RunStarted', 'RunRetryScheduled', 'RunSucceeded', 'RunFailed', 'RunParked') ORDER BY position",
        [f"run-{run}" for run in runs],
    )
    return [(row["run"], row["type"]) for row in rows]


def most_at_once(moves: list[tuple[str, str]]) -> int:
    active: set[str] = set()
    most = 0
    for run, kind in moves:
        active.add(run) if kind == "RunStarted" else active.discard(run)
        most = max(most, len(active))
    return most


async def test_no_more_runs_of_a_key_at_once_than_its_limit_however_many_workers_race(
    live: World, seed: int
) -> None:
    chance = random.Random(seed)
    probe = Probe(seconds=lambda: chance.random() / 100)
    steps = [{"id": "a", "uses": "test.probe"}, {"id": "b", "uses": "test.probe"}]
    await live.define("one", steps, **keyed("shared", 3))
    await live.define("other", steps, **keyed("shared", 3, priority=8))
    for _ in range(4):
        live.start_worker(probe.tool, worker_concurrency=chance.randint(1, 10))
    runs: list[str] = []
    for _ in range(6):
        runs += await live.request_many(chance.choice(["one", "other"]), [None] * chance.randint(1, 10))
        await asyncio.sleep(chance.random() / 20)
    for run_id in runs:
        assert (await live.finished(run_id, 40)).state == "succeeded"
    assert most_at_once(await intervals(live, runs)) <= 3
    assert probe.most <= 3


async def test_a_limit_holds_while_workers_are_lost(live: World, seed: int) -> None:
    chance = random.Random(seed)
    probe = Probe(seconds=lambda: chance.random() / 20)
    await live.define("job", [{"id": "a", "uses": "test.probe"}], **keyed("k", 2, max_attempts=100))
    runs = await live.request_many("job", [None] * 20)
    doomed = [live.start_worker(probe.tool) for _ in range(3)]
    for worker in doomed:
        await eventually(lambda: leased_rows(live))
        await asyncio.sleep(chance.random() / 20)
        await worker.kill()
        live.start_worker(probe.tool)
        await live.expire_leases()
    for run_id in runs:
        assert (await live.finished(run_id, 40)).state == "succeeded"
    assert most_at_once(await intervals(live, runs)) <= 2


async def test_two_tasks_may_share_a_key_and_other_keys_are_their_own(world: World) -> None:
    await world.define("one", **keyed("shared", 1))
    await world.define("two", **keyed("shared", 1))
    await world.define("apart", **keyed("apart", 1))
    for name in ("one", "two", "apart"):
        await world.request_many(name, [1, 2])
    await world.project()
    first = await lease(world)
    assert sorted(run.task for run in first) in (["apart", "one"], ["apart", "two"])
    assert await lease(world) == []
    for run in first:
        await finish(world, run)
    assert len(await lease(world)) == 2


async def test_a_place_is_free_again_when_a_run_ends_is_put_off_or_canceled(world: World) -> None:
    await world.define("job", **keyed("k", 1))
    runs = await world.request_many("job", [1, 2, 3, 4])
    await world.project()
    (ended,) = await lease(world)
    await finish(world, ended)
    (later,) = await lease(world)
    at = world.system.time.now() + timedelta(hours=1)
    event = NewEvent("RunRetryScheduled", {"task": later.task_id, "run_at": at.isoformat(), "reason": ""})
    await record(world.system, "w", later, [event])
    (canceled,) = await lease(world)
    await world.cancel(canceled.id)
    (last,) = await lease(world)
    assert {ended.id, later.id, canceled.id, last.id} == set(runs)


async def test_a_run_whose_lease_ran_out_keeps_its_place_until_it_is_taken_over(world: World) -> None:
    await world.define("job", **keyed("k", 1, priority=1))
    lost = await world.request("job")
    await world.project()
    (zombie,) = await lease(world, worker="a")
    await world.expire_leases()
    await world.define("urgent", **keyed("k", 1, priority=9))
    await world.request("urgent")
    await world.project()
    # The urgent one would run beside worker a, which may be alive: first comes who fences it off.
    (run,) = await lease(world, worker="b")
    assert (run.id, run.attempt) == (lost, 2)
    with pytest.raises(LeaseLost):
        await record(world.system, "a", zombie, [step_done()])
