"""What a trigger makes of a past entry: the very decision that intake (or POST /v1/events, or the reader of
the log) takes, without its effects."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from ordinaut.domain import ids
from ordinaut.domain.events import Event, NewEvent
from ordinaut.domain.task import Task
from ordinaut.runtime.entries import Entry, decide, digest
from ordinaut.runtime.listening import Listening
from ordinaut.runtime.log_triggers import decide_event
from ordinaut.runtime.past_entries import PastEntry, source_of
from ordinaut.runtime.past_events import LogEvent
from ordinaut.runtime.publication import Incoming, Origin, Publication, event_run_id
from ordinaut.runtime.reach import Hearing
from ordinaut.runtime.system import System


@dataclass(frozen=True, slots=True)
class Judged:
    """What a trigger makes of an entry: it starts a run with this `input` (or is collected for one), or
    (`none`) its `where` is not true, or (`error`) it starts nothing for this `reason`.

    `run` is the id of the run it would get. Of a Redis entry `digest` stands for its fields, and `next_run`
    is that id where another entry had its id before. `collected` is what EventCollected says of one that is
    collected.
    """

    id: str
    run: str
    outcome: Literal["match", "none", "error"]
    reason: str | None = None
    input: Any = None
    depth: int = 0
    digest: str | None = None
    next_run: str | None = None
    collected: Mapping[str, Any] | None = None


def judge(system: System, found: PastEntry, hearing: Hearing) -> Judged:
    """What a task makes of an entry."""
    task, now = hearing.task, system.time.now()
    listening = hearing.of(source_of(found))
    match found:
        case Entry():
            return _entry(found, task, listening, now)
        case LogEvent(event, first):
            decided = next(decide_event(event, first, listening, now=now), None)
            run = ids.system_run_id(int(event.at.timestamp() * 1000), event.position, task.id)
            return _judged(str(event.position), run, decided.events[0] if decided else None)
        case Event():
            return _published(system, found, task, listening)


def _entry(found: Entry, task: Task, listening: Listening, now: datetime) -> Judged:
    about, fields = (task.space, found.stream, found.id, task.id), digest(found.fields)
    decided = decide(found, listening, now=now, space=task.space)
    judged = _judged(found.id, ids.entry_run_id(*about), decided[0][0].events[0] if decided else None)
    return replace(judged, digest=fields, next_run=ids.entry_run_id(*about, fields))


def _published(system: System, found: Event, task: Task, listening: Listening) -> Judged:
    event_id, data = found.stream.removeprefix("event-"), found.data
    run = event_run_id(event_id, task.id)
    origin = Origin(task.space, found.actor, found.correlation, found.causation, data["depth"])
    incoming = Incoming(data["stream"], data["data"], event_id)
    verdict = next(iter(Publication(system, incoming, origin).decided(listening)), None)
    if verdict is not None and verdict.event is None:
        return Judged(event_id, run, "error", verdict.error)
    return _judged(event_id, run, verdict.event if verdict else None)


def _judged(entry_id: str, run: str, event: NewEvent | None) -> Judged:
    if event is None:
        return Judged(entry_id, run, "none")
    if event.type in ("RunRequested", "EventCollected"):
        collected = event.data if event.type == "EventCollected" else None
        given, depth = event.data["input"], event.data["depth"]
        return Judged(entry_id, run, "match", None, given, depth, collected=collected)
    return Judged(entry_id, run, "error", event.data["reason"])
