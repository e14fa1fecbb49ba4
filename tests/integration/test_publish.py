"""Events that come by POST /v1/events or from a step: recorded once, with a verdict for each listener."""

import asyncio
from typing import Any

import pytest

from ordinaut.domain import ids, task
from ordinaut.domain.errors import AlreadyExists, Invalid
from ordinaut.domain.events import NewEvent
from ordinaut.domain.request import MAX_DEPTH
from ordinaut.domain.run import run_stream
from ordinaut.log.append import Append
from ordinaut.runtime.publication import Incoming, Origin, event_run_id, event_stream
from ordinaut.runtime.publish import publish_event, publish_events
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex
from tests.support.listening import a_system, events, happen, listen


async def publish(system: System, data: Any, event_id: str | None = None, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "space": "default", "stream": "orders", "data": data, "event_id": event_id or ids.new_id(),
        "actor": "key:me", "correlation": "story", "causation": "request:1", "depth": 0, **more,
    }  # fmt: skip
    return await publish_event(system, TriggerIndex(system.pool), **given)


async def test_an_event_is_recorded_and_starts_the_tasks_of_its_space(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        big = await listen(system, "big", where="data.amount > `100`", input="${data.amount}")
        await listen(system, "small", where="data.amount < `100`")
        await listen(system, "stranger", space="elsewhere")
        answer = await publish(system, {"amount": 120}, depth=2)
        (received,) = await events(system, "EventReceived")
        (run,) = await events(system, "RunRequested")
        assert answer == {
            "id": answer["id"],
            "runs": [run.stream.removeprefix("run-")],
            "position": run.position,
        }
        assert received.stream == event_stream(answer["id"])
        assert received.data == {"stream": "orders", "data": {"amount": 120}, "depth": 2, "tasks": [big.id]}
        assert (received.actor, received.correlation, received.causation) == ("key:me", "story", "request:1")
        assert run.data["cause"] == {"kind": "event", "stream": "orders", "id": answer["id"]}
        assert (run.data["input"], run.data["depth"], run.correlation) == (120, 2, "story")
        assert run.causation == received.reference
        assert await events(system, "RunRequested", space="elsewhere") == []


async def test_an_event_nobody_listens_to_is_recorded(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        answer = await publish(system, None)
        assert answer == {"id": answer["id"], "runs": [], "position": 1}


async def test_published_again_with_its_id_it_gives_the_same_answer(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        await listen(system, "ship")
        lazy = await listen(system, "lazy")
        await happen(system, lazy, task.pause(lazy, None))
        event_id = ids.new_id()
        first = await publish(system, 1, event_id)
        assert len(first["runs"]) == 1
        await listen(system, "late")
        assert await publish(system, 1, event_id) == first
        assert len(await events(system, "EventReceived", "RunRequested", "OccurrenceSkipped")) == 3


async def test_many_who_publish_one_event_at_once_agree(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as one, a_system(database_url, redis_url) as other:
        for number in range(5):
            await listen(one, f"task-{number}")
        event_id = ids.new_id()
        answers = await asyncio.gather(*[publish(system, 1, event_id) for system in (one, other) * 5])
        assert len(answers[0]["runs"]) == 5
        assert answers == [answers[0]] * 10
        assert len(await events(one, "EventReceived", "RunRequested")) == 6


async def test_what_a_crash_left_undone_is_done_when_it_is_published_again(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        tasks = [await listen(system, name) for name in ("kept", "paused", "retired", "changed", "broken")]
        kept, paused, retired, changed, broken = tasks
        event_id = ids.new_id()
        data = {"stream": "orders", "data": 1, "depth": 0, "tasks": [each.id for each in tasks]}
        received = NewEvent("EventReceived", data)
        await system.appender.append(
            Append(event_stream(event_id), 0, [received], "default", "key:me", "story", None)
        )
        await happen(system, paused, task.pause(paused, None))
        await happen(system, retired, task.retire(retired, None))
        for each, where in ((changed, "data > `5`"), (broken, "length(data)")):
            trigger = {"on": {"stream": "orders", "where": where, "input": None}}
            change = task.change(each, {**each.definition, "schedule": trigger}, [], "")
            await happen(system, each, change)
        answer = await publish(system, 1, event_id)
        assert answer["runs"] == [event_run_id(event_id, kept.id)]
        skips = {
            event.data["name"]: event.data["reason"] for event in await events(system, "OccurrenceSkipped")
        }
        assert skips == {"paused": "paused", "retired": "retired", "changed": "changed"}
        assert [event.data["name"] for event in await events(system, "EventRejected")] == ["broken"]
        assert await publish(system, 1, event_id) == answer


async def test_a_batch_that_a_crash_cut_short_is_completed_when_it_is_published_again(
    database_url: str, redis_url: str
) -> None:
    """However much of it had been recorded: nothing of an event, the event alone, or some of its verdicts."""
    async with a_system(database_url, redis_url) as system:
        tasks = [await listen(system, name) for name in ("one", "two")]
        batch = [Incoming("orders", number, ids.new_id()) for number in range(4)]
        origin = Origin("default", "key:me", "story", "request:1")
        whole = await publish_events(system, TriggerIndex(system.pool), batch[:1], origin)
        for count, one in enumerate(batch[1:3]):
            data = {"stream": "orders", "data": one.data, "depth": 0, "tasks": [each.id for each in tasks]}
            received = NewEvent("EventReceived", data)
            await system.appender.append(Append(event_stream(one.id), 0, [received], "default", "x", "c"))
            for each in tasks[:count]:
                skipped = NewEvent("OccurrenceSkipped", {"task": each.id, "reason": "paused"})
                run = run_stream(event_run_id(one.id, each.id))
                await system.appender.append(Append(run, 0, [skipped], "default", "x", "c"))
        found = await publish_events(system, TriggerIndex(system.pool), [*batch, batch[0]], origin)
        runs = [[event_run_id(one.id, each.id) for each in tasks] for one in batch]
        runs[2] = runs[2][1:]
        assert [one.id for one in found] == [one.id for one in (*batch, batch[0])]
        assert [one.runs for one in found] == [*runs, runs[0]]
        assert found[0] == found[4] == whole[0]
        assert await publish_events(system, TriggerIndex(system.pool), batch, origin) == found[:4]
        assert len(await events(system, "EventReceived", "RunRequested")) == 4 + 7


async def test_a_batch_meets_a_pause_that_comes_between_matching_and_appending(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        lazy = await listen(system, "lazy")
        index = TriggerIndex(system.pool)
        await index.refresh()

        class Late(TriggerIndex):
            async def refresh(self) -> None:
                """Nothing new is heard."""

        late = Late(system.pool)
        late.__dict__.update(index.__dict__)
        await happen(system, lazy, task.pause(lazy, None))
        batch = [Incoming("orders", number, ids.new_id()) for number in range(3)]
        found = await publish_events(system, late, batch, Origin("default", "key:me", "story", None))
        assert [one.runs for one in found] == [[], [], []]
        skips = await events(system, "OccurrenceSkipped")
        assert [event.data["reason"] for event in skips] == ["paused"] * 3


async def test_a_chain_of_events_that_is_too_long_is_cut(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        await listen(system, "echo")
        assert len((await publish(system, 1, depth=MAX_DEPTH))["runs"]) == 1
        assert (await publish(system, 1, depth=MAX_DEPTH + 1))["runs"] == []
        (skip,) = await events(system, "OccurrenceSkipped")
        assert skip.data["reason"] == "causation_depth"


async def test_a_trigger_that_fails_is_a_rejection_for_its_task_alone(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        picky = await listen(system, "picky", where="length(data) > `1`")
        await listen(system, "easy")
        answer = await publish(system, 5)
        assert len(answer["runs"]) == 1
        (rejected,) = await events(system, "EventRejected")
        assert rejected.data["task"] == picky.id


@pytest.mark.parametrize(
    ("stream", "data", "pointer"),
    [
        ("ordinaut:log", 1, "/stream"),
        ("orders.*", 1, "/stream"),
        ("", 1, "/stream"),
        ("x" * 513, 1, "/stream"),
        ("a\x00b", 1, "/stream"),
        ("orders", {"a": ["\x00"]}, "/data/a/0"),
        ("orders", 2**64, "/data"),
    ],
)
async def test_what_cannot_be_accepted_is_refused_by_place(
    database_url: str, redis_url: str, stream: str, data: Any, pointer: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        with pytest.raises(Invalid) as refused:
            await publish(system, data, stream=stream)
        assert [fault.pointer for fault in refused.value.faults] == [pointer]
        assert await events(system, "EventReceived") == []


async def test_the_id_of_another_space_s_event_tells_nothing(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        event_id = ids.new_id()
        await publish(system, "secret", event_id)
        with pytest.raises(AlreadyExists):
            await publish(system, 1, event_id, space="elsewhere")
