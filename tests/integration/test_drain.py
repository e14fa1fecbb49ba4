"""A worker that stops, or cannot record: nothing is lost and nothing is done twice."""

from collections.abc import Sequence

from ordinaut.domain.errors import Unavailable
from ordinaut.log.append import Append, Outcome
from ordinaut.log.appender import Appender
from tests.support.eventually import eventually
from tests.support.leasing import TWO_STEPS, waiting_appends
from tests.support.probes import Probe
from tests.support.world import World

# Draining


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
