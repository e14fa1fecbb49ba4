"""Other sources than one stream: patterns of streams, and the log's own events."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from ordinaut.domain import task
from ordinaut.domain.definition import parse_definition
from ordinaut.domain.errors import Invalid
from ordinaut.domain.events import Event, NewEvent
from ordinaut.domain.request import MAX_DEPTH
from ordinaut.domain.task import Task
from ordinaut.intake.log_events import LogEvents
from ordinaut.log.append import Append
from ordinaut.runtime.streams import streams_of
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex
from ordinaut.work.tools.registry import BUILT_IN, Registry
from ordinaut.work.worker import Worker
from tests.support.eventually import eventually
from tests.support.listening import a_system, an_intake, events, happen, listen, roomy
from tests.support.running import running

READ = "SELECT position FROM log_readers WHERE name = 'events'"
"""How far the log has been read for the tasks that listen to it."""


async def requested(system: System, number: int, **more: Any) -> list[Event]:
    """The runs asked for, when there are so many."""

    async def found() -> list[Event]:
        runs = await events(system, "RunRequested", **more)
        assert len(runs) >= number
        return runs

    return await eventually(found, timeout=20)


# --- patterns -------------------------------------------------------------------------------------


async def test_a_pattern_takes_entries_of_streams_that_are_there_and_of_those_that_appear(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ordinaut.intake.intake.DISCOVER_SECONDS", 0.1)
    async with a_system(database_url, redis_url) as system:
        await system.redis.xadd("orders.old", {"data": '"before the task"'})
        await asyncio.sleep(0.01)
        ship = await listen(system, "ship", "orders.*")
        await system.redis.xadd("orders.eu", {"data": "1"})
        async with an_intake(system):
            await requested(system, 1)
            first = await system.redis.xadd("orders.us", {"data": "2"})
            await system.redis.xadd("order", {"data": "3"})
            await system.redis.xadd("ordinaut:orders.x", {"data": "4"})
            await system.redis.xadd("orders.old", {"data": "5"})
            runs = await requested(system, 3)
        causes = {(run.data["cause"]["stream"], run.data["input"]) for run in runs}
        assert causes == {("orders.eu", 1), ("orders.us", 2), ("orders.old", 5)}
        assert {run.data["task"] for run in runs} == {ship.id}
        (us,) = [run for run in runs if run.data["cause"]["stream"] == "orders.us"]
        assert us.data["cause"]["id"] == first.decode()


async def test_a_task_that_is_meant_by_name_and_others_by_pattern_each_get_one_run(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        tasks = [
            await listen(system, name, source) for name, source in (("a", "x.1"), ("b", "x.*"), ("c", "*"))
        ]
        await system.redis.xadd("x.1", {"data": "1"})
        async with an_intake(system), an_intake(system):
            runs = await requested(system, 3)
        assert sorted(run.data["task"] for run in runs) == sorted(one.id for one in tasks)
        assert len(await events(system, "RunRequested")) == 3


async def test_a_stream_that_only_a_pattern_stood_for_is_not_made_again_when_it_is_gone(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ordinaut.intake.intake.DISCOVER_SECONDS", 0.1)
    async with a_system(database_url, redis_url) as system:
        await listen(system, "ship", "orders.*")
        await system.redis.xadd("orders.eu", {"data": "1"})
        async with an_intake(system):
            await requested(system, 1)
            await system.redis.delete("orders.eu")
            await system.redis.xadd("orders.us", {"data": "2"})
            await requested(system, 2)
            assert await system.redis.exists("orders.eu") == 0
            await system.redis.xadd("orders.eu", {"data": "3"})
            await requested(system, 3)


async def test_what_redis_takes_for_a_pattern_of_its_own_means_itself(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        for name in ("a[b]?.1", "ab?.1", "a[b]x.1", "a\\.1", "aa.1"):
            await system.redis.xadd(name, {"data": "1"})
        await system.redis.set("a[b]?.2", "no stream")
        await system.redis.xadd(b"a[b]?.\xff", {"data": "1"})
        assert await streams_of(system.redis, ["a[b]?.*"]) == {"a[b]?.1"}
        assert await streams_of(system.redis, ["a\\*"]) == {"a\\.1"}
        assert await streams_of(system.redis, []) == frozenset()


# --- the log's own events -------------------------------------------------------------------------


def a_reader(system: System, index: TriggerIndex | None = None) -> LogEvents:
    """What reads the log for tasks, with room in the queue for all that it finds."""
    return LogEvents(system, index or TriggerIndex(system.pool), roomy(system))


async def react(system: System, name: str, event: str, space: str = "default", **on: Any) -> Task:
    """Create a task that listens to a type of event of the log."""
    return await listen(system, name, space=space, event=event, **on)


async def test_a_task_reacts_to_the_failure_of_another_and_knows_of_what(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        bad = [{"id": "call", "uses": "http.get", "with": {"url": "http://127.0.0.1:1/"}}]
        await listen(system, "backup", "nights", pipeline=bad)
        await listen(system, "other", "nights", pipeline=bad)
        given = {"failed": "${data.task}", "run": "${data.run}", "why": "${data.error.message}"}
        alarm = await react(system, "alarm", "RunFailed", where="data.task == 'backup'", input=given)
        await react(system, "elsewhere", "RunFailed", space="other")
        async with an_intake(system), running(Worker(system, Registry(BUILT_IN))):
            await system.redis.xadd("nights", {"data": "1"})
            runs = await requested(system, 3)
        (told,) = [run for run in runs if run.data["task"] == alarm.id]
        (failed,) = [run for run in runs if run.data["name"] == "backup"]
        assert told.data["input"]["failed"] == "backup"
        assert told.data["input"]["run"] == failed.stream.removeprefix("run-")
        cause = told.data["cause"]
        (event,) = [one for one in await events(system, "RunFailed") if one.stream == failed.stream]
        assert cause == {
            "kind": "system", "event": "RunFailed", "position": event.position, "stream": event.stream
        }  # fmt: skip
        assert (told.causation, told.correlation, told.data["depth"]) == (
            event.reference, event.correlation, 1,
        )  # fmt: skip
        assert await events(system, "RunRequested", space="other") == []


async def test_a_chain_that_leads_back_to_itself_is_cut_and_the_cut_is_on_record(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        await react(system, "echo", "RunSucceeded")
        await react(system, "watch", "OccurrenceSkipped")
        await listen(system, "first", "orders")
        async with an_intake(system), running(Worker(system, Registry(BUILT_IN))):
            await system.redis.xadd("orders", {"data": "1"})

            async def cut() -> list[Event]:
                found = await events(system, "OccurrenceSkipped")
                assert found
                return found

            (skipped, *_) = await eventually(cut, timeout=60)
            await settled(system)
        assert skipped.data["reason"] == "causation_depth"
        runs = await events(system, "RunRequested")
        assert [run.data["depth"] for run in runs if run.data["name"] == "echo"] == [*range(1, MAX_DEPTH + 1)]
        # The cut itself is an event, and nobody reacts to it without end.
        assert len(await events(system, "OccurrenceSkipped")) <= 2


async def settled(system: System) -> None:
    """Wait until nothing more happens: what reads the log is at its end, and the log stays where it is."""

    async def quiet() -> bool:
        before = await system.pool.fetchval("SELECT position FROM log_head")
        await asyncio.sleep(0.3)
        after = await system.pool.fetchval("SELECT position FROM log_head")
        return bool(after == before == await system.pool.fetchval(READ))

    await eventually(quiet, timeout=30)


async def test_an_intake_that_is_cut_off_anywhere_gives_each_event_one_run(
    database_url: str, redis_url: str, seed: int
) -> None:
    async with a_system(database_url, redis_url) as system:
        await react(system, "seen", "TaskPaused")
        state = await listen(system, "often")
        for _ in range(40):
            state = await happen(system, state, task.pause(state, None))
            state = await happen(system, state, task.resume(state))
        index = TriggerIndex(system.pool)
        for _ in range(12):
            cut = asyncio.create_task(a_reader(system, index).step())
            await asyncio.sleep(0.001 * (seed % 7))
            cut.cancel()
            await asyncio.gather(cut, return_exceptions=True)
        await asyncio.gather(*(a_reader(system).step() for _ in range(3)))
        while await a_reader(system, index).step():
            pass
        runs = await events(system, "RunRequested")
        paused = await events(system, "TaskPaused")
        assert sorted(run.data["cause"]["position"] for run in runs) == [one.position for one in paused]


async def test_what_was_before_the_task_starts_nothing_however_far_the_reader_is_behind(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        state = await listen(system, "often")
        state = await happen(system, state, task.pause(state, None))
        await react(system, "new", "TaskCreated")
        await react(system, "later", "TaskPaused")
        await happen(system, state, task.resume(state))
        log = a_reader(system)
        while await log.step():
            pass
        runs = await events(system, "RunRequested")
        assert [run.data["input"]["task"] for run in runs] == ["later"], (
            "nor does a task react to its own beginning"
        )


async def test_a_condition_that_fails_on_an_event_is_a_rejection_and_no_loop(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        await react(system, "bad", "TaskPaused", where="length(data.version) > `1`")
        await react(system, "worse", "EventRejected", where="length(data.depth) > `1`")
        state = await listen(system, "often")
        await happen(system, state, task.pause(state, None))
        log = a_reader(system)
        for _ in range(MAX_DEPTH + 5):
            await log.step()
        rejected = await events(system, "EventRejected")
        assert rejected[0].data["name"] == "bad" and "length()" in rejected[0].data["reason"]
        assert len(rejected) == MAX_DEPTH + 1
        assert await events(system, "RunRequested") == []


async def test_without_listeners_the_reader_follows_in_strides(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        for number in range(3):
            noise = [NewEvent("AgentRegistered", {"n": n}) for n in range(4000)]
            await system.appender.append(Append(f"agent-{number}", 0, noise, "default", "test", "c", None))
        log = a_reader(system)
        await log.step()
        assert await system.pool.fetchval(READ) == 12_000


@pytest.mark.parametrize(
    ("on", "pointer", "told"),
    [
        ({"event": "RunFaild"}, "/on/event", "did you mean 'RunFailed'?"),
        ({"event": ["RunFailed"]}, "/on/event", "not a type of event"),
        ({"event": "RunFailed", "stream": "orders"}, "/on/event", "does not go with `stream`"),
        ({"event": "RunFailed", "were": "x"}, "/on/were", "did you mean 'where'?"),
        ({"event": "RunFailed", "where": "task == 'x'"}, "/on/where", "names nothing"),
    ],
)
def test_a_wrong_source_is_told_with_its_place(on: dict[str, Any], pointer: str, told: str) -> None:
    document = {"name": "t", "on": on, "pipeline": [{"id": "say", "uses": "debug.echo"}]}
    with pytest.raises(Invalid) as caught:
        parse_definition(document, created_at=datetime.now(UTC), known_tools=None)
    (fault,) = caught.value.faults
    assert fault.pointer == pointer
    assert told in f"{fault.message} {fault.hint}"
