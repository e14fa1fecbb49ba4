"""Leases: who does a run, how many at a time, and what becomes of it when its worker is lost."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from ordinaut.domain.errors import Unavailable
from ordinaut.domain.events import NewEvent
from ordinaut.domain.run import Run
from ordinaut.log.append import Append, Appender, Outcome
from ordinaut.work.lease import lease_due_work
from ordinaut.work.record import LeaseLost, record
from projections.projector import step
from projections.registry import all_projections
from tests.support.eventually import eventually
from tests.support.probes import Probe
from tests.support.world import World, open_world


@pytest.fixture
async def world(database_url: str, redis_url: str) -> AsyncIterator[World]:
    """A world that is folded only when a test says so."""
    settings: dict[str, Any] = {"poll_seconds": 0.05, "drain_seconds": 0.0, "pool_max": 16}
    async with open_world(database_url, redis_url, projections=(), **settings) as opened:
        yield opened


@pytest.fixture
async def live(database_url: str, redis_url: str) -> AsyncIterator[World]:
    """A world whose due_work follows the log."""
    settings: dict[str, Any] = {"poll_seconds": 0.05, "drain_seconds": 0.0, "pool_max": 16}
    async with open_world(database_url, redis_url, **settings) as opened:
        yield opened


async def lease(world: World, limit: int = 100, worker: str = "w", seconds: float = 30.0) -> list[Run]:
    return (await lease_due_work(world.system, worker, limit, seconds)).runs


async def finish(world: World, run: Run, worker: str = "w") -> None:
    event = NewEvent("RunSucceeded", {"task": run.task_id, "output": None})
    await record(world.system, worker, run, [event])


def step_done(id: str = "say") -> NewEvent:
    data = {"step": id, "attempt": 1, "input": None, "output": None, "started_at": "", "finished_at": ""}
    return NewEvent("StepSucceeded", data)


async def leased_rows(world: World) -> set[str]:
    return {run_id for run_id, row in (await world.due_work()).items() if row["leased_by"]}


def keyed(key: str, limit: int, **policy: Any) -> dict[str, Any]:
    return {"policy": {"concurrency": {"key": key, "limit": limit}, **policy}}


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


# Concurrency limits


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


# Draining

TWO_STEPS = [{"id": "first", "uses": "test.probe"}, {"id": "second", "uses": "test.probe"}]


async def test_a_step_that_is_under_way_finishes_and_the_run_is_handed_back_behind_it(live: World) -> None:
    probe = Probe(holding=True)
    leaving = live.start_worker(probe.tool, drain_seconds=20.0)
    await live.define("job", TWO_STEPS, policy={"max_attempts": 1})
    run_id = await live.request("job")
    await eventually(lambda: probe.calls)
    leaving.stop()
    probe.let_go()
    await leaving.ended()
    run = await live.run(run_id)
    assert (run.state, list(run.steps), run.crashes) == ("waiting", ["first"], 0)
    row = (await live.due_work())[run_id]
    assert (row["leased_by"], row["lease_until"]) == (None, None)
    live.start_worker(probe.tool)
    run = await live.finished(run_id)
    assert (run.state, run.attempt) == ("succeeded", 2)
    assert [context.step_id for context in probe.calls] == ["first", "second"]


async def test_a_step_that_does_not_finish_in_time_is_handed_back_undone(live: World) -> None:
    probe = Probe(holding=True)
    leaving = live.start_worker(probe.tool, drain_seconds=0.05)
    await live.define("job", TWO_STEPS, policy={"max_attempts": 1})
    runs = await live.request_many("job", [1, 2, 3])
    await eventually(lambda: len(probe.calls) == 3)
    leaving.stop()
    await leaving.ended()
    assert sorted(probe.canceled) == sorted(runs)
    for run_id in runs:
        assert await live.types(run_id) == ["RunRequested", "RunStarted", "RunRetryScheduled"]
    probe.let_go()
    live.start_worker(probe.tool)
    for run_id in runs:
        assert (await live.finished(run_id)).state == "succeeded"


async def test_a_worker_that_stops_leases_nothing_more(live: World) -> None:
    probe = Probe(holding=True)
    leaving = live.start_worker(probe.tool, drain_seconds=20.0)
    await live.define("job", [{"id": "only", "uses": "test.probe"}])
    first = await live.request("job")
    await eventually(lambda: probe.calls)
    leaving.stop()
    second = await live.request("job")
    await eventually(live.due_work)
    probe.let_go()
    await leaving.ended()
    assert (await live.run(first)).state == "succeeded"
    assert await live.types(second) == ["RunRequested"]


class Counting(Appender):
    """Counts what it is given."""

    submitted = 0

    async def attempt_all(self, items: Sequence[Append]) -> list[Outcome | Exception]:
        self.submitted += len(items)
        return await super().attempt_all(items)


async def test_a_step_that_is_being_recorded_while_its_worker_stops_is_not_done_again(live: World) -> None:
    probe = Probe()
    await live.define("job", TWO_STEPS, policy={"max_attempts": 1})
    probe.hold()
    appender = Counting(live.system.pool)
    leaving = live.start_worker(probe.tool, appender=appender, drain_seconds=0.0)
    run_id = await live.request("job")
    await eventually(lambda: probe.calls)
    async with live.system.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM log_head FOR UPDATE")
        probe.let_go()
        await eventually(lambda: waiting_appends(live))
        leaving.stop()
        await eventually(lambda: appender.submitted == 2)
    await leaving.ended()
    assert await live.types(run_id) == ["RunRequested", "RunStarted", "StepSucceeded", "RunRetryScheduled"]
    live.start_worker(probe.tool)
    assert (await live.finished(run_id)).state == "succeeded"
    assert [context.step_id for context in probe.calls] == ["first", "second"]


# Outages while recording


async def waiting_appends(world: World) -> list[int]:
    """The server processes of appends that wait for the head of the log."""
    rows = await world.system.pool.fetch(
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%append_events%'"
        " AND datname = current_database() AND pid <> pg_backend_pid()"
    )
    return [row["pid"] for row in rows]


async def test_a_step_whose_append_was_cut_off_is_recorded_once(live: World) -> None:
    probe = Probe(holding=True)
    live.start_worker(probe.tool)
    await live.define("job", TWO_STEPS)
    run_id = await live.request("job")
    await eventually(lambda: probe.calls)
    async with live.system.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM log_head FOR UPDATE")
        probe.let_go()
        (pid,) = await eventually(lambda: waiting_appends(live))
        await connection.execute("SELECT pg_terminate_backend($1)", pid)

        async def tried_again() -> bool:
            return bool(set(await waiting_appends(live)) - {pid})

        await eventually(tried_again)
    run = await live.finished(run_id)
    assert run.state == "succeeded"
    assert [context.step_id for context in probe.calls] == ["first", "second"]
    assert await live.types(run_id) == [
        "RunRequested", "RunStarted", "StepSucceeded", "StepSucceeded", "RunSucceeded",
    ]  # fmt: skip


class Forgetful(Appender):
    """Every append stands, and the answer to every other one that is not of a start is lost on the way."""

    lost = 0
    told = False

    async def attempt_all(self, items: Sequence[Append]) -> list[Outcome | Exception]:
        outcomes = await super().attempt_all(items)
        if not items or items[0].events[0].type == "RunStarted":
            return outcomes
        self.told = not self.told
        if not self.told:
            return outcomes
        self.lost += 1
        return [Unavailable("the connection was lost") for _ in outcomes]


async def test_a_step_whose_answer_was_lost_is_neither_lost_nor_doubled(live: World) -> None:
    probe = Probe()
    probe.failures = [RuntimeError("once")]
    forgetful = Forgetful(live.system.pool)
    live.start_worker(probe.tool, appender=forgetful)
    retry = {"max_attempts": 2, "base": "10ms"}
    await live.define(
        "job", [{**one, "retry": retry} for one in [*TWO_STEPS, {**TWO_STEPS[0], "id": "third"}]]
    )
    run_id = await live.request("job")
    run = await live.finished(run_id)
    assert (run.state, run.attempt) == ("succeeded", 2)
    assert [context.step_id for context in probe.calls] == ["first", "first", "second", "third"]
    kinds = await live.types(run_id)
    assert kinds.count("StepSucceeded") == 3
    assert kinds.count("RunSucceeded") == 1
    assert forgetful.lost >= 2
    assert await live.due_work() == {}
