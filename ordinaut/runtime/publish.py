"""Accepting events that come over HTTP (POST /v1/events, a webhook) or from a step: the same as a stream
entry, durable.

An event goes into the log (EventReceived) with the list of the tasks it concerns, and each of those
gets its verdict (RunRequested or OccurrenceSkipped). All of it is handed to the appender at once, which
is one commit unless the batch is cut where it is full. It is acknowledged when all of it is on disk; if
it was cut and the rest failed, whoever sent it hears `Unavailable`, and sending it again with the same
event id completes what is missing and repeats nothing.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ordinaut.domain.definition_model import MAX_STREAM
from ordinaut.domain.errors import Fault, Invalid
from ordinaut.domain.events import Event
from ordinaut.domain.jsonvalues import faults_in, text_fault
from ordinaut.log.append import Append, Appended
from ordinaut.log.appender import MAX_PART
from ordinaut.log.read import read_streams
from ordinaut.runtime.listening import is_pattern
from ordinaut.runtime.publication import Incoming, Origin, Publication
from ordinaut.runtime.streams import RESERVED
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex


@dataclass(frozen=True, slots=True)
class Accepted:
    """An event that is on disk, with the runs it requested; `position` is that of the last event in the log
    that was appended for it."""

    id: str
    runs: list[str]
    position: int


def stream_fault(stream: str) -> str | None:
    """What keeps events from being published on a stream of this name; None when nothing does."""
    if not stream or len(stream) > MAX_STREAM:
        return f"a stream's name has 1 to {MAX_STREAM} characters"
    if fault := text_fault(stream):
        return fault
    if stream.startswith(RESERVED):
        return f"streams named {RESERVED}… are the system's own; name another one"
    if is_pattern(stream):
        return "`*` stands for any characters where tasks listen; to publish, name one stream"
    return None


async def publish_event(
    system: System,
    index: TriggerIndex,
    *,
    space: str,
    stream: str,
    data: Any,
    event_id: str,
    actor: str,
    correlation: str,
    causation: str | None,
    depth: int,
) -> dict[str, Any]:
    """Accept an event: `{"id": event id, "runs": [ids of the runs it requested], "position": N}`, where N
    is the position of the last event that was appended for it.

    Called again with the same `event_id` it gives the same answer, whatever else has changed. Raises
    `Invalid` with every fault of `stream` and `data`, and as `publish_events` does.
    """
    faults = [fault.under("/data") for fault in faults_in(data)]
    if fault := stream_fault(stream):
        faults.append(Fault("/stream", fault))
    if faults:
        raise Invalid.all_of(faults)
    origin = Origin(space, actor, correlation, causation, depth)
    (found,) = await publish_events(system, index, [Incoming(stream, data, event_id)], origin)
    return {"id": found.id, "runs": found.runs, "position": found.position}


async def publish_events(
    system: System, index: TriggerIndex, incoming: Sequence[Incoming], origin: Origin
) -> list[Accepted]:
    """Accept up to `MAX_PART` events, all of them or, if the database fails before it has recorded them,
    none; the answers are in their order. One that is among them twice is one event.

    What they hold was checked: `stream_fault` and `faults_in` find nothing. Raises `AlreadyExists` when an
    id belongs to an event of another space, `Unavailable` when it is not known whether they were recorded.
    """
    await index.refresh()
    publications: dict[str, Publication] = {}
    for one in incoming:
        if one.id not in publications:
            publications[one.id] = Publication(system, one, origin)
            publications[one.id].decide(index)
            await asyncio.sleep(0)  # thousands of matches are not to hold up everybody else
    accepted = await _append(system, list(publications.values()))
    missing = [publications[event_id] for event_id in publications if event_id not in accepted]
    if missing:
        accepted |= await _complete(system, missing)
    return [accepted[one.id] for one in incoming]


async def _append(system: System, publications: Sequence[Publication]) -> dict[str, Accepted]:
    """Append the events and their verdicts; those that were not all new are missing in the answer."""
    received = [one.received() for one in publications]
    if len(received) + sum(len(one.verdicts) for one in publications) <= MAX_PART:
        # In one commit. With the event's stream required not to be there yet, a repetition adds nothing by
        # itself.
        items = list(received)
        for one in publications:
            items += one.of_tasks({one.stream: 0})
        outcomes = await system.appender.append_all(items)
    else:
        # First all events, in one commit; then the verdicts on those that were new.
        outcomes = await system.appender.append_all(received)
        new = {
            item.stream
            for item, outcome in zip(received, outcomes, strict=True)
            if isinstance(outcome, Appended)
        }
        publications = [one for one in publications if one.stream in new]
        items = list(received)
        decided = [item for one in publications for item in one.of_tasks({})]
        outcomes += await system.appender.append_all(decided)
        items += decided
    by_stream = {item.stream: outcome for item, outcome in zip(items, outcomes, strict=True)}
    accepted: dict[str, Accepted] = {}
    for one in publications:
        own = [by_stream[stream] for stream in (one.stream, *one.verdict_streams())]
        positions = [outcome.position for outcome in own if isinstance(outcome, Appended)]
        if len(positions) == len(own):
            accepted[one.id] = Accepted(one.id, one.requested(), max(positions))
    return accepted


async def _complete(system: System, publications: Sequence[Publication]) -> dict[str, Accepted]:
    """The answers from what the log holds, after giving the tasks that lack a verdict theirs."""
    accepted: dict[str, Accepted] = {}
    while True:
        late: list[Append] = []
        left: list[Publication] = []
        for one, (received, decided) in zip(
            publications, await _read_back(system, publications), strict=True
        ):
            missing = [task for task in received.data["tasks"] if task not in decided]
            if missing:
                left.append(one)
                late += [one.of_task(await one.late_verdict(task), {}) for task in missing]
                continue
            runs = [
                event.stream.removeprefix("run-")
                for event in decided.values()
                if event.type == "RunRequested"
            ]
            position = max([received.position, *(event.position for event in decided.values())])
            accepted[one.id] = Accepted(one.id, runs, position)
        if not left:
            return accepted
        publications = left
        await system.appender.append_all(late)


async def _read_back(
    system: System, publications: Sequence[Publication]
) -> list[tuple[Event, dict[str, Event]]]:
    """Of each event EventReceived, and by task the first event of what it led to."""
    async with system.pool.acquire() as connection:
        streams = await read_streams(connection, [one.stream for one in publications])
        found = [one.own(streams) for one in publications]
        names = [
            one.streams_of(received.data["tasks"]) for one, received in zip(publications, found, strict=True)
        ]
        decided = await read_streams(connection, [name for each in names for name in each])
    answers = []
    for received, named in zip(found, names, strict=True):
        by_task = {task: decided[name][0] for name, task in named.items() if name in decided}
        answers.append(
            (received, {task: by_task[task] for task in received.data["tasks"] if task in by_task})
        )
    return answers
