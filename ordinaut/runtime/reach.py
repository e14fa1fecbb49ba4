"""Which past events a trigger is held against: where they are, and from which to which."""

import re
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ordinaut.domain.definition import Definition
from ordinaut.domain.errors import Invalid
from ordinaut.domain.planned import Source
from ordinaut.domain.schedules.spec import trigger_of
from ordinaut.domain.task import Task
from ordinaut.domain.trigger import LOG, sources_of
from ordinaut.runtime.listening import Listening, is_pattern, listeners_of
from ordinaut.runtime.streams import RESERVED, parse_id

MAX_NUMBER = 2**64 - 1
"""Of either part of an entry's id."""

MAX_POSITION = 2**63 - 1

_NUMBER = "(0|[1-9][0-9]{0,19})"
_ENTRY_ID = re.compile(f"{_NUMBER}(-{_NUMBER})?")


@dataclass(frozen=True, slots=True)
class Reach:
    """Which entries of `source`: from the id `since` to the id `until`, both included and None where it is
    open; or the newest `last`.

    Of a Redis stream ids are `<milliseconds>-<sequence>`, of the events that the log holds of a stream their
    UUIDs, of the log's own events positions in it.
    """

    source: Source
    since: str | None = None
    until: str | None = None
    last: int | None = None


def choose_source(task: str, definition: Definition, stream: str | None, *, log: bool) -> Source:
    """Where the entries are that the trigger of the task (of that name) is held against: `stream`, in Redis
    or (`log`) as the log has it; None: what the task listens to. Raises Invalid (at `/stream`)."""
    on = trigger_of(definition.schedule)
    if on is None:
        raise Invalid.at("/stream", f"the task {task!r} listens to no stream", "see `on`, its trigger")
    heard = sorted(set(sources_of(on).values()))
    if stream is not None:
        events = [one.removeprefix(LOG) for one in heard if one.startswith(LOG)]
        if len(events) == len(heard):
            what = f"the task {task!r} listens to no stream, but to the log's own {' and '.join(events)}"
            raise Invalid.at("/stream", what, "leave it out for these events")
        return Source("log" if log else "stream", stream)
    (first, *others) = heard
    if others or is_pattern(first):
        shown = " and ".join(repr(one.removeprefix(LOG)) for one in heard)
        what = f"the task {task!r} listens to many streams, {shown}"
        raise Invalid.at("/stream", what, "name one of them")
    if first.startswith(LOG):
        return Source("event", event=first.removeprefix(LOG))
    return Source("log" if log else "stream", first)


def check_reach(reach: Reach) -> None:
    """Raise Invalid naming what no stream, or no log, could answer to."""
    source = reach.source
    if source.stream is not None and source.stream.startswith(RESERVED):
        hint = "name a stream of your own"
        raise Invalid.at("/stream", f"streams named {RESERVED}… are the system's own", hint)
    for name, given in (("from", reach.since), ("to", reach.until)):
        if given is not None and not _is_id(given, source):
            raise Invalid.at(f"/{name}", f"{given[:60]!r} is not the id of an entry", _IDS[source.kind])
    if reach.since is None or reach.until is None:
        return
    if source.kind == "stream":
        until = reach.until if "-" in reach.until else f"{reach.until}-{MAX_NUMBER}"
        backwards = parse_id(reach.since) > parse_id(until)
    else:
        backwards = source.kind == "event" and int(reach.since) > int(reach.until)
    if backwards:
        raise Invalid.at("/from", "comes behind `to`", "the id of the first entry, then of the last")


_IDS = {
    "stream": "such as 1700000000000-0",
    "log": "the id of an event, as POST /v1/events answers it",
    "event": "a position in the log, such as 4711",
}


def _is_id(text: str, source: Source) -> bool:
    if source.kind == "log":
        try:
            return str(uuid.UUID(text)) == text.lower()
        except ValueError:
            return False
    if not _ENTRY_ID.fullmatch(text):
        return False
    if source.kind == "event":
        return "-" not in text and int(text) <= MAX_POSITION
    return max(parse_id(text)) <= MAX_NUMBER


def listening_as_if_active(task: Task, definition: Definition, source: Source) -> Listening:
    """The task alone, with this definition, neither paused nor snoozed, and as if it had always been there.
    Raises Invalid (at `/stream`) when it does not listen to `source`."""
    active = replace(
        task, status="active", paused_until=None, snoozed_until=None,
        created_at=datetime.min.replace(tzinfo=UTC),
    )  # fmt: skip
    listeners = listeners_of(active, definition)
    if not listeners:
        raise Invalid.at("/stream", f"the task {task.name!r} listens to no stream", "see `on`, its trigger")
    name = source.stream or f"{LOG}{source.event}"
    hearing = [one for one in listeners if one.hears(name)]
    if not hearing:
        known = sorted({repr(one.source.removeprefix(LOG)) for one in listeners})
        what = f"the task {task.name!r} does not listen to {name.removeprefix(LOG)!r}"
        raise Invalid.at("/stream", what, f"it listens to {' and '.join(known)}")
    return Listening(hearing)
