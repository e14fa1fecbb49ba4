"""A run that is requested in a process whose worker has hands free is leased along with the request."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from ordinaut.domain.run import Run
from ordinaut.log.wake import PROJECTED
from ordinaut.work.eager import EagerLease, Rows
from ordinaut.work.lease import folded, settle
from tests.support.eventually import eventually
from tests.support.leasing import TWO_STEPS, keyed, lease, leased_rows, waiting_appends, waiting_leases
from tests.support.probes import Probe
from tests.support.world import RunningWorker, World

ONE_STEP = TWO_STEPS[:1]


async def beside(live: World, probe: Probe, **settings: Any) -> RunningWorker:
    """A worker in the process that requests the runs."""
    worker = live.start_worker(probe.tool, appender=live.system.appender, **settings)
    await eventually(lambda: live.system.appender.companion)
    return worker


async def released(live: World, run_id: str) -> bool:
    """Whether nobody holds the run."""
    row = (await live.due_work()).get(run_id)
    return row is None or row["leased_by"] is None


async def put_off(live: World, runs: Sequence[str]) -> None:
    """Nobody sees these runs as due, until `make_due`."""
    await live.system.pool.execute(
        "UPDATE due_work SET run_at = now() + interval '1 hour' WHERE run_id = ANY($1::uuid[])", runs
    )


async def make_due(live: World, runs: Sequence[str]) -> None:
    """The runs that were put off are due, and nobody is told."""
    await live.system.pool.execute("UPDATE due_work SET run_at = now() WHERE run_id = ANY($1::uuid[])", runs)


async def transactions(live: World, run_id: str) -> int:
    """In how many transactions the run was requested and begun."""
    return int(
        await live.system.pool.fetchval(
            "SELECT count(DISTINCT xmin::text) FROM events WHERE stream = $1 AND version <= 2",
            f"run-{run_id}",
        )
    )


async def test_a_run_is_requested_and_begun_by_one_transaction(live: World) -> None:
    probe = Probe(holding=True)
    worker = await beside(live, probe)
    await live.define("job", ONE_STEP)
    run_id = await live.request("job")
    await eventually(lambda: probe.calls)
    assert await transactions(live, run_id) == 1
    assert (await live.due_work())[run_id]["leased_by"] == worker.name
    probe.let_go()
    run = await live.finished(run_id)
    assert (run.state, run.attempt) == ("succeeded", 1)
    assert await live.types(run_id) == ["RunRequested", "RunStarted", "StepSucceeded", "RunSucceeded"]


async def test_a_worker_of_another_process_is_woken_and_leases_by_itself(live: World) -> None:
    probe = Probe()
    live.start_worker(probe.tool)
    await live.define("job", ONE_STEP)
    run = await live.finished(run_id := await live.request("job"))
    assert (run.state, run.attempt) == ("succeeded", 1)
    assert await transactions(live, run_id) == 2


async def test_no_more_runs_begin_than_there_are_hands(live: World) -> None:
    probe = Probe(holding=True)
    await beside(live, probe, worker_concurrency=2)
    await live.define("job", ONE_STEP)
    runs = await live.request_many("job", range(5))
    await eventually(lambda: len(probe.calls) == 2)
    assert len(await leased_rows(live)) == 2
    runs.append(await live.request("job"))
    assert len(await leased_rows(live)) == 2
    probe.let_go()
    for run_id in runs:
        run = await live.finished(run_id)
        assert (run.state, run.attempt) == ("succeeded", 1)
    assert probe.most == 2


async def test_a_round_and_an_append_at_one_time_lease_no_more_than_there_are_hands(live: World) -> None:
    probe = Probe(holding=True)
    await live.define("job", ONE_STEP)
    await put_off(live, runs := await live.request_many("job", range(4)))
    await beside(live, probe, worker_concurrency=2)
    async with live.system.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM log_head FOR UPDATE")
        await make_due(live, runs)
        await live.system.pool.execute("SELECT pg_notify($1, 'due_work')", PROJECTED)
        await eventually(lambda: waiting_leases(live))
        requesting = asyncio.create_task(live.request("job"))
        await eventually(lambda: waiting_appends(live))
    runs.append(await requesting)
    await eventually(lambda: probe.calls)
    assert len(await leased_rows(live)) == 2
    probe.let_go()
    for run_id in runs:
        assert (await live.finished(run_id)).attempt == 1
    assert probe.most == 2


async def test_runs_that_are_being_taken_over_have_their_hands(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()

    async def settle_later(*given: Any) -> list[Run]:
        await go_on.wait()
        return await settle(*given)

    monkeypatch.setattr("ordinaut.work.worker.settle", settle_later)
    probe = Probe()
    await live.define("job", ONE_STEP)
    runs = await live.request_many("job", range(2))
    await lease(live)
    await live.expire_leases()
    await put_off(live, runs)
    # Nor does a poll find them before the append does.
    await beside(live, probe, worker_concurrency=2, poll_seconds=5.0)
    await make_due(live, runs)
    runs.append(await live.request("job"))
    assert await leased_rows(live) == set(runs[:2])
    runs.append(await live.request("job"))
    assert await leased_rows(live) == set(runs[:2])
    go_on.set()
    assert [(await live.finished(run_id)).attempt for run_id in runs] == [2, 2, 1, 1]
    assert probe.most <= 2


async def test_a_concurrency_limit_holds(live: World) -> None:
    probe = Probe(seconds=lambda: 0.01)
    await beside(live, probe)
    await live.define("job", ONE_STEP, **keyed("one", 1))
    runs = [await live.request("job", number) for number in range(8)]
    for run_id in runs:
        assert (await live.finished(run_id)).state == "succeeded"
    assert probe.most == 1


async def test_what_was_requested_stands_though_the_lease_fails(live: World) -> None:
    probe = Probe()
    await beside(live, probe)
    await live.define("job", ONE_STEP)
    await live.system.pool.execute("ALTER FUNCTION lease_due_work RENAME TO lease_nothing")
    run_id = await live.request("job")
    assert await live.types(run_id) == ["RunRequested"]
    await live.system.pool.execute("ALTER FUNCTION lease_nothing RENAME TO lease_due_work")
    assert (await live.finished(run_id)).attempt == 1


async def test_what_was_requested_stands_though_what_is_leased_cannot_be_read(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live.define("job", ONE_STEP)
    with monkeypatch.context() as newer:
        newer.setattr("ordinaut.log.append.SCHEMA_VERSION", 2)
        runs = await live.request_many("job", range(1))
    eager = EagerLease("w", 30.0, lambda: 2)

    def take(rows: Rows) -> None:
        folded(rows, "w")

    eager.begin(live.system.appender, take)
    runs.append(await live.request("job"))
    assert await leased_rows(live) == set(runs)
    # As where a round reads it: the worker does not go on as if nothing were.
    with pytest.raises(ValueError, match="newer Ordinaut"):
        await eager.give_way()
    assert eager.reserved == 0


async def test_a_run_whose_lease_ran_out_is_taken_over_along_with_another(live: World) -> None:
    probe = Probe(holding=True)
    await beside(live, probe, worker_concurrency=2)
    await live.define("job", ONE_STEP)
    lost = await live.request("job")
    await eventually(lambda: probe.calls)
    await live.expire_leases()
    probe.let_go()
    other = await live.request("job")
    runs = [await live.finished(lost), await live.finished(other)]
    assert [run.state for run in runs] == ["succeeded", "succeeded"]
    # Whoever was first: the run that went on under its lost lease ended, or was fenced off and began anew.
    started = (await live.types(lost)).count("RunStarted")
    assert started == runs[0].attempt
    assert (await live.types(lost)).count("RunSucceeded") == 1


async def test_a_worker_that_stops_hands_back_what_is_leased_to_it_at_that_moment(live: World) -> None:
    probe = Probe()
    worker = await beside(live, probe, drain_seconds=10.0)
    await live.define("job", ONE_STEP)
    async with live.system.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM log_head FOR UPDATE")
        requesting = asyncio.create_task(live.request("job"))
        await eventually(lambda: waiting_appends(live))
        worker.stop()
    run_id = await requesting
    await worker.ended()
    assert (await live.due_work())[run_id]["leased_by"] is None
    assert await live.types(run_id) == ["RunRequested", "RunStarted", "RunRetryScheduled"]
    live.start_worker(probe.tool)
    assert (await live.finished(run_id)).state == "succeeded"


async def test_a_worker_that_was_cut_off_begins_nothing_more(live: World) -> None:
    probe = Probe()
    worker = await beside(live, probe)
    await live.define("job", ONE_STEP)
    async with live.system.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM log_head FOR UPDATE")
        requesting = asyncio.create_task(live.request("job"))
        await eventually(lambda: waiting_appends(live))
        await worker.kill()
    run_id = await requesting
    await eventually(lambda: released(live, run_id))
    assert await live.types(run_id) == ["RunRequested", "RunStarted", "RunRetryScheduled"]
    assert not probe.calls


async def test_whenever_runs_are_requested_each_begins_once(live: World, seed: int) -> None:
    chance = random.Random(seed)
    probe = Probe(seconds=lambda: chance.choice([0.0, 0.002, 0.02]))
    await beside(live, probe, worker_concurrency=7)
    live.start_worker(probe.tool, worker_concurrency=3)
    await live.define("job", ONE_STEP)

    async def some() -> list[str]:
        runs: list[str] = []
        for _ in range(20):
            runs += await live.request_many("job", range(chance.choice([1, 1, 1, 2, 9])))
            await asyncio.sleep(chance.choice([0.0, 0.0, 0.003]))
        return runs

    for run_id in [run_id for runs in await asyncio.gather(some(), some(), some()) for run_id in runs]:
        await live.finished(run_id)
        assert await live.types(run_id) == ["RunRequested", "RunStarted", "StepSucceeded", "RunSucceeded"]
    assert probe.most <= 10
