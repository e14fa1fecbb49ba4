"""Entries that are there already, read once more: those of Redis streams, the events that the log holds of
some, or the log's own events of some types. Those of several sources come in the order of time."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from heapq import heappop, heappush
from typing import Protocol

from ordinaut.domain.errors import Invalid
from ordinaut.domain.events import Event
from ordinaut.domain.matching import entry_time
from ordinaut.domain.planned import Source
from ordinaut.domain.trigger import LOG
from ordinaut.runtime.entries import Entry
from ordinaut.runtime.listening import is_pattern
from ordinaut.runtime.past_events import LogEvent, own, published
from ordinaut.runtime.past_redis import ANSWERS_SECONDS, entries_of, redis_errors
from ordinaut.runtime.reach import Reach
from ordinaut.runtime.streams import streams_of
from ordinaut.runtime.system import System

CHUNK = 100
"""Entries of several sources that are given at once."""

MOST_STREAMS = 100
"""How many streams are read together, at the most."""

PastEntry = Entry | Event | LogEvent
"""An entry of a Redis stream, EventReceived, or an event of the log's own."""


class Stretch(Protocol):
    """Part of a source. `cut` is the time of its first entry where older ones may have been left out."""

    @property
    def cut(self) -> datetime | None: ...

    def read(self) -> AsyncIterator[Sequence[PastEntry]]:
        """The entries, oldest first, some at a time."""
        ...


def id_of(entry: PastEntry) -> str:
    """What the entry is called where its source is known (see `Reach`)."""
    match entry:
        case Entry():
            return entry.id
        case LogEvent():
            return str(entry.event.position)
        case Event():
            return entry.stream.removeprefix("event-")


def source_of(entry: PastEntry) -> str:
    """What tasks listen to that hear of the entry: a stream, or `LOG` and the type of an event."""
    match entry:
        case Entry():
            return entry.stream
        case LogEvent():
            return LOG + entry.event.type
        case Event():
            return str(entry.data["stream"])


def written_at(entry: PastEntry) -> datetime:
    """When the entry was written: by the clock of Redis (or what its id says), or of the log."""
    match entry:
        case Entry():
            return datetime.fromisoformat(entry_time(entry.id))
        case LogEvent():
            return entry.event.at
        case Event():
            return entry.at


async def read_entries(system: System, space: str, reach: Reach) -> AsyncIterator[Sequence[PastEntry]]:
    """The entries, oldest first, some at a time; those that are added meanwhile are not among them.

    With `reach.last` they are the newest so many of each source, as far back as that reaches in all of them.
    Raises Invalid naming what of `reach` is wrong, Unavailable when Redis does not answer.
    """
    stretches: list[Stretch] = []
    for source in await _one_by_one(system, reach.sources):
        stretch = await _stretch(system, space, source, reach)
        if stretch is not None:
            stretches.append(stretch)
    if not stretches:
        raise _nothing(reach.sources)
    if len(stretches) == 1:
        async for entries in stretches[0].read():
            yield entries
        return
    begin = max((each.cut for each in stretches if each.cut is not None), default=None)
    chunk: list[PastEntry] = []
    async for entry in _by_time([each.read() for each in stretches]):
        if begin is None or written_at(entry) >= begin:
            chunk.append(entry)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def _one_by_one(system: System, sources: Sequence[Source]) -> list[Source]:
    """The sources, with the streams there are instead of a pattern."""
    found: list[Source] = []
    for source in sources:
        if source.stream is None or not is_pattern(source.stream):
            found.append(source)
            continue
        with redis_errors(source.stream):
            async with asyncio.timeout(ANSWERS_SECONDS):
                streams = await streams_of(system.redis, [source.stream])
        found += [Source("stream", stream) for stream in sorted(streams)]
    if len(found) > MOST_STREAMS:
        raise Invalid.at("/stream", f"there are more than {MOST_STREAMS} such streams", "name one of them")
    return list(dict.fromkeys(found))


async def _stretch(system: System, space: str, source: Source, reach: Reach) -> Stretch | None:
    match source:
        case Source(event=str(event)):
            return await own(system.pool, space, event, reach)
        case Source(kind="log", stream=str(stream)):
            return await published(system.pool, space, stream, reach)
        case Source(stream=str(stream)):
            return await entries_of(system.redis, stream, reach)
    raise AssertionError(source)


def _nothing(sources: Sequence[Source]) -> Invalid:
    names = " or ".join(repr(one.stream) for one in sources)
    if sources[0].kind == "log":
        hint = "leave `log` out for the stream in Redis"
        return Invalid.at("/stream", f"the log has no event of the stream {names}", hint)
    hint = "`log` looks at the events that were published over HTTP or by a step"
    return Invalid.at("/stream", f"there is no stream {names} in Redis", hint)


async def _by_time(readers: Sequence[AsyncIterator[Sequence[PastEntry]]]) -> AsyncIterator[PastEntry]:
    """The entries of several sources, each in order, in the order they were written."""
    waiting: list[deque[PastEntry]] = [deque() for _ in readers]
    heads: list[tuple[datetime, int, int]] = []

    async def look(number: int) -> None:
        if not waiting[number]:
            waiting[number].extend(await anext(readers[number], []))
        if waiting[number]:
            first = waiting[number][0]
            heappush(heads, (written_at(first), _position(first), number))

    for number in range(len(readers)):
        await look(number)
    while heads:
        _, _, number = heappop(heads)
        yield waiting[number].popleft()
        await look(number)


def _position(entry: PastEntry) -> int:
    """Within the log it is the order, which times may not tell."""
    match entry:
        case Entry():
            return 0
        case LogEvent():
            return entry.event.position
        case Event():
            return entry.position
