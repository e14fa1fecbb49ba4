"""Dead letters put to work again: what was rejected is found, decided anew, and recorded under its old id.

An entry is decided by the triggers as they are now, for the one task that rejected it or, where the entry as
such was rejected, for all of the space. Its runs have the ids they would have had at first, so a run that is
there already is not started a second time (I7).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import orjson

from ordinaut.domain import deadletter
from ordinaut.domain.deadletter import DeadLetter, is_letter, letter_stream
from ordinaut.domain.errors import NotFound, NotPossible, VersionConflict
from ordinaut.domain.events import Event, reference
from ordinaut.log.append import Append, append
from ordinaut.log.read import read_after, read_first, read_stream
from ordinaut.runtime.dead_content import find_entry
from ordinaut.runtime.entries import decide
from ordinaut.runtime.listening import Listener, Listening
from ordinaut.runtime.lives import with_what_others_took
from ordinaut.runtime.log_triggers import decide_event
from ordinaut.runtime.publication import Incoming, Origin, Publication, event_stream
from ordinaut.runtime.system import System
from ordinaut.runtime.trial import try_alone
from ordinaut.runtime.triggers import TriggerIndex

TRIES = 20

_REFUSED = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, orjson.JSONEncodeError)


@dataclass(frozen=True, slots=True)
class Requeued:
    """The letter afterwards, and the position of the last event that was appended (None: nothing was)."""

    letter: DeadLetter
    position: int | None


class _Changed(Exception):
    """Somebody was first; nothing was appended."""


async def load_letter(system: System, space: str, letter_id: str) -> DeadLetter:
    """A dead letter of the space as the log has it now. Raises NotFound."""
    async with system.pool.acquire() as connection:
        events = await read_stream(connection, letter_stream(letter_id))
    if not events or events[0].space != space or not is_letter(events[0]):
        raise NotFound(f"there is no dead letter with the id {letter_id[:100]!r}")
    return deadletter.fold(letter_id, events)


async def requeue(
    system: System, index: TriggerIndex, space: str, letter_id: str, reason: str, by: Append
) -> Requeued:
    """Decide a dead letter anew. `by` is an append in the name of who asks, from which actor, correlation and
    causation are taken.

    Raises NotFound; NotPossible when it is not dead, when its task does not listen any more, when (it has
    killed before) it kills a process that tries it, or when what it held is nowhere to be found whole;
    Unavailable when Redis, which may have it, is away.
    """
    for _ in range(TRIES):
        letter = await load_letter(system, space, letter_id)
        if letter.state == "requeued" and (letter.decided_by, letter.decided_in) == (
            by.actor,
            by.correlation,
        ):
            return Requeued(letter, None)  # this request was here before, and got so far
        deadletter.requeue(letter, reason, "", (), None)  # before anything is looked for: is it dead?
        await index.refresh()
        found_in, decided = await _decided(system, index, letter, by)
        try:
            return await _record(system, letter, reason, by, found_in, decided)
        except _Changed:
            continue
    raise NotPossible("the tasks that listen keep changing; try again")


async def _decided(
    system: System, index: TriggerIndex, letter: DeadLetter, by: Append
) -> tuple[str, list[Append]]:
    """Where its content was found, and the verdicts on it."""
    now = system.time.now()
    if letter.kind == "stream":
        listening = _concerned(letter, index.listening(letter.stream, letter.space))
        entry, found_in = await find_entry(system.redis, letter)
        if letter.history is not None:
            await try_alone(entry, listening)
        while True:
            decided = [one for one, _ in decide(entry, listening, now=now, space=letter.space)]
            others = await with_what_others_took(system.pool, [(entry, one.stream) for one in decided])
            if not others:
                return found_in, decided
            entry = others[entry.stream, entry.id]
    if letter.kind == "system":
        event, first = await _event(system, letter)
        listening = _concerned(letter, index.listening_to_event(event.type, letter.space))
        return "log", list(decide_event(event, first, listening, now=now))
    _concerned(letter, index.listening(letter.stream, letter.space))
    async with system.pool.acquire() as connection:
        received = await read_stream(connection, event_stream(letter.entry_id))
    if not received or letter.task_id is None:
        raise NotPossible("the log no longer holds the event")
    data = received[0].data
    origin = Origin(letter.space, by.actor, letter.correlation, None, data["depth"])
    publication = Publication(system, Incoming(letter.stream, data["data"], letter.entry_id), origin)
    return "log", [publication.of_task(await publication.late_verdict(letter.task_id), {})]


def _concerned(letter: DeadLetter, listening: Listening) -> Listening:
    """Those whom the rejection concerned, as they are now."""
    if letter.task_id is None:
        if not listening:
            raise NotPossible(
                f"no task listens to {letter.stream!r} any more: define one first, or drop the letter"
            )
        return listening
    found: Sequence[Listener] = [one for one in listening if one.task.id == letter.task_id]
    if not found:
        raise NotPossible(f"the task {letter.task!r} does not listen to {letter.stream!r} any more; drop it")
    return Listening(found)


async def _event(system: System, letter: DeadLetter) -> tuple[Event, Event]:
    """The event of the log that was rejected, and the first one of its stream."""
    async with system.pool.acquire() as connection:
        events = await read_after(connection, int(letter.entry_id) - 1, 1)
        if not events or str(events[0].position) != letter.entry_id:
            raise NotPossible("the log does not hold the event")
        first = await read_first(connection, [events[0].stream])
    return events[0], first[events[0].stream]


async def _record(
    system: System, letter: DeadLetter, reason: str, by: Append, found_in: str, decided: Sequence[Append]
) -> Requeued:
    """Append EventRequeued and the verdicts that are not there yet, all or nothing. Raises _Changed."""
    own = letter_stream(letter.id)
    again = next((one.events[0].data for one in decided if one.stream == own), None)
    others = [one for one in decided if one.stream != own]
    async with system.pool.acquire() as connection:
        there = await read_first(connection, [one.stream for one in others])
    runs = [
        one.stream.removeprefix("run-")
        for one in others
        if (there[one.stream].type if one.stream in there else one.events[0].type) == "RunRequested"
    ]
    cause = reference(own, letter.stream_version + 1)
    verdicts = [replace(one, actor=by.actor, causation=cause) for one in others if one.stream not in there]
    try:
        return await _append(
            system, letter, by, deadletter.requeue(letter, reason, found_in, runs, again), verdicts
        )
    except _REFUSED as error:
        rejected = again or {"stream": letter.stream, "id": letter.entry_id} | _of_task(letter)
        why = dict(rejected) | {"reason": f"it cannot be stored: {error}"[:1000]}
        events = deadletter.requeue(letter, reason, found_in, (), why)
        return await _append(system, letter, by, events, ())


def _of_task(letter: DeadLetter) -> dict[str, Any]:
    return {"task": letter.task_id, "name": letter.task} if letter.task_id else {}


async def _append(
    system: System, letter: DeadLetter, by: Append, events: Sequence[Any], verdicts: Sequence[Append]
) -> Requeued:
    # Not by group commit: all of it stands, or none.
    item = replace(by, stream=letter_stream(letter.id), expected=letter.stream_version, events=events)
    async with system.pool.acquire() as connection, connection.transaction():
        outcomes = await append(connection, [item, *verdicts])
        if any(isinstance(one, VersionConflict) for one in outcomes):
            raise _Changed
    position = max(one.position for one in outcomes if not isinstance(one, VersionConflict))
    return Requeued(await load_letter(system, letter.space, letter.id), position)
