"""Which past events a task is held against: what it hears, where that is, and from which to which."""

import re
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ordinaut.domain.definition import Definition
from ordinaut.domain.errors import Invalid
from ordinaut.domain.patterns import Pattern
from ordinaut.domain.planned import Source
from ordinaut.domain.task import Task
from ordinaut.domain.trigger import LOG
from ordinaut.runtime.listening import Listening, is_pattern, listeners_of
from ordinaut.runtime.streams import RESERVED, parse_id

MAX_NUMBER = 2**64 - 1
"""Of either part of an entry's id."""

MAX_POSITION = 2**63 - 1

_NUMBER = "(0|[1-9][0-9]{0,19})"
_ENTRY_ID = re.compile(f"{_NUMBER}(-{_NUMBER})?")


@dataclass(frozen=True, slots=True)
class Reach:
    """Which entries of `sources`: from the id `since` to the id `until`, both included and None where it is
    open; or of each the newest `last`.

    Of a Redis stream ids are `<milliseconds>-<sequence>`, of the events that the log holds of a stream their
    UUIDs, of the log's own events positions in it. Those of several sources have no ids in common.
    """

    sources: tuple[Source, ...]
    since: str | None = None
    until: str | None = None
    last: int | None = None


class Hearing:
    """What a task with this definition hears, neither paused nor snoozed, as if it had always been there."""

    def __init__(self, task: Task, definition: Definition) -> None:
        self.task = replace(
            task, status="active", paused_until=None, snoozed_until=None,
            created_at=datetime.min.replace(tzinfo=UTC),
        )  # fmt: skip
        self.definition = definition
        self._listeners = listeners_of(self.task, definition)
        self._of: dict[str, Listening] = {}

    def of(self, source: str) -> Listening:
        """The task's listeners to a stream, or to `LOG` and a type of event."""
        if source not in self._of:
            self._of[source] = Listening([one for one in self._listeners if one.hears(source)])
        return self._of[source]

    @property
    def pattern(self) -> Pattern | None:
        """How the task collects events; None: each starts a run of its own."""
        on = self.definition.on
        return on.pattern if on is not None else None

    def sources(self, stream: str | None, *, log: bool) -> tuple[Source, ...]:
        """Where the entries are that it is held against: in `stream`, in Redis or (`log`) as the log has it;
        None: in all that it listens to. Raises Invalid (at `/stream`)."""
        names = list(dict.fromkeys(one.source for one in self._listeners))
        task = self.task.name
        if not names:
            raise Invalid.at("/stream", f"the task {task!r} listens to no stream", "see `on`, its trigger")
        if stream is not None and stream.startswith(RESERVED):
            hint = "name a stream of your own"
            raise Invalid.at("/stream", f"streams named {RESERVED}… are the system's own", hint)
        if stream is None:
            return tuple(_source(name, log=log) for name in names)
        if not self.of(stream):
            heard = " and ".join(repr(name.removeprefix(LOG)) for name in names)
            what = f"the task {task!r} does not listen to {stream!r}"
            raise Invalid.at("/stream", what, f"it listens to {heard}")
        return (_source(stream, log=log),)


def _source(name: str, *, log: bool) -> Source:
    if name.startswith(LOG):
        return Source("event", event=name.removeprefix(LOG))
    return Source("log" if log else "stream", name)


def check_reach(reach: Reach) -> None:
    """Raise Invalid naming what no stream, or no log, could answer to."""
    for source in reach.sources:
        if source.kind == "log" and is_pattern(str(source.stream)):
            hint = "name one of them"
            raise Invalid.at("/stream", f"the log is asked for one stream, not for {source.stream!r}", hint)
    source, *others = reach.sources
    for name, given in (("from", reach.since), ("to", reach.until)):
        if given is None:
            continue
        if others or (source.stream is not None and is_pattern(source.stream)):
            what = "is the id of an entry of one stream, and the task listens to several"
            raise Invalid.at(f"/{name}", what, "name the stream, or say how many of the `last`")
        if not _is_id(given, source):
            raise Invalid.at(f"/{name}", f"{given[:60]!r} is not the id of an entry", _IDS[source.kind])
    if reach.since is not None and reach.until is not None and _is_behind(reach.since, reach.until, source):
        raise Invalid.at("/from", "comes behind `to`", "the id of the first entry, then of the last")


def _is_behind(since: str, until: str, source: Source) -> bool:
    match source.kind:
        case "stream":
            return parse_id(since) > parse_id(until if "-" in until else f"{until}-{MAX_NUMBER}")
        case "event":
            return int(since) > int(until)
    return False  # the log knows their order


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
