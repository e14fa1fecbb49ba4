"""Leases: who gets a run, and what becomes of it when its worker is lost."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from ordinaut.domain.events import SCHEMA_VERSION, NewEvent
from ordinaut.domain.run import Run
from ordinaut.domain.run import start as decide_start
from ordinaut.work.lease import lease_due_work
from ordinaut.work.record import LeaseLost, record
from projections.projector import step
from projections.registry import all_projections
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


# Who gets a run


@pytest.mark.parametrize("kind", ["with a limit", "without"])
async def test_two_workers_never_lease_one_run(world: World, seed: int, kind: str) -> None:
    chance = random.Random(seed)
    await world.define("race", **(keyed("${input}", 1) if kind == "with a limit" else {}))
    runs = await world.request_many("race", list(range(80)))
    await world.project()
    got: list[str] = []

    async def racer(name: str) -> None:
        while len(got) < len(runs):
            limit = chance.randint(1, 9)
            got.extend([run.id for run in await lease(world, limit, name)])
            await asyncio.sleep(chance.random() / 200)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(racer(f"w{number}"))
    assert sorted(got) == sorted(runs)
    for run_id in runs:
        assert (await world.types(run_id)) == ["RunRequested", "RunStarted"]


async def test_the_most_urgent_come_first_then_the_oldest(world: World, seed: int) -> None:
    now, wanted = world.system.time.now(), []
    for priority in (0, 5, 9):
        await world.define(f"p{priority}", policy={"priority": priority})
        for age in random.Random(seed).sample(range(1, 60), 4):
            run_id = await world.request(f"p{priority}", run_at=now - timedelta(minutes=age))
            wanted.append((-priority, -age, run_id))
    await world.project()
    got = [(await lease(world, 1))[0].id for _ in wanted]
    assert got == [run_id for _, _, run_id in sorted(wanted)]


async def test_the_start_that_comes_with_the_lease_is_the_one_the_domain_decides_on(world: World) -> None:
    await world.define("job")
    run_id = await world.request("job")
    requested = await world.run(run_id)
    (leased,) = await lease(world, worker="w")
    assert leased == await world.run(run_id)
    _, started = await world.events(run_id)
    expected = decide_start(requested, "w")
    assert (started.type, started.data) == (expected.type, expected.data)
    assert (started.version, started.actor, started.causation) == (2, "worker:w", f"run-{run_id}/1")
    assert (started.space, started.correlation) == (requested.space, requested.correlation)
    written = await world.system.pool.fetchval("SELECT schema FROM events WHERE type = 'RunStarted'")
    assert written == SCHEMA_VERSION


async def test_what_is_not_due_yet_is_not_leased(world: World) -> None:
    await world.define("later")
    await world.request("later", run_at=world.system.time.now() + timedelta(hours=1))
    await world.project()
    assert await lease(world) == []


@pytest.mark.parametrize("limit", [1, 7, 39])
async def test_exactly_as_many_are_leased_as_were_asked_for(world: World, limit: int) -> None:
    await world.define("plain")
    await world.define("limited", **keyed("${input}", 1))
    await world.request_many("plain", list(range(30)))
    await world.request_many("limited", list(range(30)))
    await world.project()
    # With and without statistics: the planner must not be free to lease more either way.
    for leased in (limit, 2 * limit):
        runs = await lease(world, limit)
        assert len(runs) == min(limit, 60 - leased + limit)
        assert len(await leased_rows(world)) == min(leased, 60)
        await world.system.pool.execute("ANALYZE due_work")


async def test_neither_kind_of_run_keeps_the_other_waiting(world: World) -> None:
    await world.define("plain")
    await world.define("limited", **keyed("${input}", 1, priority=9))
    plain = set(await world.request_many("plain", list(range(60))))
    await world.request_many("limited", list(range(60)))
    await world.project()
    one_by_one = [run.id for _ in range(40) for run in await lease(world, 1)]
    assert len(one_by_one) == 40
    assert 0 < len(plain.intersection(one_by_one)) < 40
    together = [run.id for run in await lease(world, 20)]
    assert len(plain.intersection(together)) == 10


async def test_a_worker_with_room_takes_all_of_one_kind_when_there_is_no_other(world: World) -> None:
    await world.define("limited", **keyed("${input}", 1))
    await world.request_many("limited", list(range(30)))
    await world.project()
    assert len(await lease(world, 20)) == 20


# Losing a lease


async def test_an_expired_lease_is_taken_over_and_counted(world: World) -> None:
    await world.define("job")
    run_id = await world.request("job")
    await world.project()
    (first,) = await lease(world, worker="a")
    assert await lease(world, worker="b") == [], "a lease that holds is not taken over"
    await world.expire_leases()
    (second,) = await lease(world, worker="b")
    assert (first.id, first.attempt, second.id, second.attempt) == (run_id, 1, run_id, 2)
    assert (await world.due_work())[run_id]["leased_by"] == "b"


async def test_a_worker_whose_run_was_taken_over_records_nothing(world: World) -> None:
    await world.define("job")
    run_id = await world.request("job")
    await world.project()
    (zombie,) = await lease(world, worker="a")
    await world.expire_leases()
    (mine,) = await lease(world, worker="b")
    before, rows = await world.events(run_id), await world.due_work()
    with pytest.raises(LeaseLost, match="is at version 3, not at 2"):
        await record(world.system, "a", zombie, [step_done()])
    end = NewEvent("RunSucceeded", {"task": zombie.task_id, "output": None})
    with pytest.raises(LeaseLost):
        await record(world.system, "a", zombie, [step_done(), end])
    with pytest.raises(LeaseLost):
        await record(world.system, "a", zombie, [step_done()])
    assert await world.events(run_id) == before
    assert await world.due_work() == rows
    await finish(world, mine, "b")
    assert await world.due_work() == {}


async def test_a_late_worker_whose_run_nobody_took_may_go_on(world: World) -> None:
    await world.define("job")
    run_id = await world.request("job")
    await world.project()
    (run,) = await lease(world, worker="a")
    await world.expire_leases()
    await record(world.system, "a", run, [step_done()])
    (next_one,) = await lease(world, worker="b")
    assert list(next_one.steps) == ["say"]
    assert await world.types(run_id) == ["RunRequested", "RunStarted", "StepSucceeded", "RunStarted"]


async def test_a_run_is_parked_when_every_lease_was_lost(world: World) -> None:
    await world.define("job", policy={"max_attempts": 3})
    run_id = await world.request("job")
    await world.project()
    for attempt in (1, 2, 3):
        (run,) = await lease(world)
        assert run.attempt == attempt
        await world.expire_leases()
    parked = await lease_due_work(world.system, "w", 100, 30)
    assert (parked.runs, parked.others) == ([], 1)
    assert (await world.run(run_id)).state == "parked"
    assert await world.due_work() == {}
    await world.project()
    assert await world.due_work() == {}
    await world.retry(run_id)
    await world.project()
    # Due at an instant that this process took for now, which may be a moment ahead of the server's.
    (run,) = await eventually(lambda: lease(world))
    assert (run.attempt, run.crashes) == (4, 1)


async def test_a_heartbeat_keeps_the_lease_of_a_long_step(live: World) -> None:
    probe = Probe(holding=True)
    workers = [live.start_worker(probe.tool, lease_seconds=1.0) for _ in range(2)]
    await live.define("job", [{"id": "long", "uses": "test.probe"}])
    run_id = await live.request("job")
    await eventually(lambda: probe.calls)
    first = (await live.due_work())[run_id]["lease_until"]

    async def outlived() -> bool:
        return bool((await live.due_work())[run_id]["lease_until"] > first + timedelta(seconds=1))

    await eventually(outlived)
    probe.let_go()
    run = await live.finished(run_id)
    assert (run.state, run.attempt, len(probe.calls)) == ("succeeded", 1, 1)
    assert len(workers) == 2


async def test_a_worker_lets_go_of_a_run_that_another_took_over(live: World) -> None:
    probe = Probe(holding=True)
    live.start_worker(probe.tool, lease_seconds=1.0, poll_seconds=30.0)
    await live.define("job", [{"id": "long", "uses": "test.probe"}])
    run_id = await live.request("job")
    await eventually(lambda: probe.calls)

    async def taken_over() -> list[Run]:
        await live.expire_leases()
        return await lease(live, worker="b")

    (run,) = await eventually(taken_over)
    await eventually(lambda: run_id in probe.canceled)
    await finish(live, run, "b")
    assert probe.finished == []


async def test_a_worker_that_gets_its_own_lost_run_back_does_it_once(live: World) -> None:
    probe = Probe(holding=True)
    live.start_worker(probe.tool, worker_concurrency=4)
    await live.define("job", [{"id": "long", "uses": "test.probe"}])
    run_id = await live.request("job")
    await eventually(lambda: probe.calls)
    await live.expire_leases()
    await eventually(lambda: len(probe.calls) == 2)
    await eventually(lambda: probe.canceled == [run_id])
    probe.let_go()
    run = await live.finished(run_id)
    assert (run.state, run.attempt, probe.finished) == ("succeeded", 2, [run_id])
    # It has all its hands free again.
    rest = await live.request_many("job", list(range(8)))
    assert {(await live.finished(one)).state for one in rest} == {"succeeded"}


# The log has the last word


@asynccontextmanager
async def passed_over(world: World) -> AsyncIterator[None]:
    """While somebody holds the checkpoint of `due_work`, appends do not wait to fold themselves into it."""
    async with world.system.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await connection.execute("SELECT 1 FROM projection_checkpoints WHERE name = 'due_work' FOR UPDATE")
        yield


async def test_a_run_that_was_canceled_before_its_row_came_is_never_started(world: World) -> None:
    await world.define("job")
    async with passed_over(world):
        run_id = await world.request("job")
        await world.cancel(run_id)
    assert await world.due_work() == {}
    async with world.system.pool.acquire() as connection:
        while not await world.due_work():
            assert (await step(connection, all_projections()["due_work"], limit=1)).folded
    assert await lease(world) == []
    assert await world.due_work() == {}
    assert await world.types(run_id) == ["RunRequested", "RunCanceled"]
    await world.project()
    assert await world.due_work() == {}


async def test_a_table_that_lags_hands_out_no_finished_run_again(world: World) -> None:
    await world.define("job")
    run_id = await world.request("job")
    (run,) = await lease(world)
    async with passed_over(world):
        await finish(world, run)
        before = await world.types(run_id)
        await world.expire_leases()
        assert set(await world.due_work()) == {run_id}
        assert await lease(world) == []
    await world.project()
    assert await world.due_work() == {}
    assert await world.types(run_id) == before


async def test_a_table_that_lags_does_not_bring_a_retry_forward(world: World) -> None:
    await world.define("job")
    run_id = await world.request("job")
    (run,) = await lease(world)
    at = world.system.time.now() + timedelta(hours=1)
    event = NewEvent("RunRetryScheduled", {"task": run.task_id, "run_at": at.isoformat(), "reason": ""})
    async with passed_over(world):
        await record(world.system, "w", run, [event])
        await world.expire_leases()
        assert await lease(world) == []
        assert (await world.due_work())[run_id]["run_at"] == at
    await world.project()
    assert (await world.due_work())[run_id]["run_at"] == at


async def test_an_append_folds_what_those_before_it_were_passed_over_with(world: World) -> None:
    await world.define("job")
    async with passed_over(world):
        first = await world.request("job")
    second = await world.request("job")
    assert set(await world.due_work()) == {first, second}
