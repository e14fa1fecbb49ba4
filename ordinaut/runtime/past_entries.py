"""Entries that are there already, read once more: those of a Redis stream, the events that the log holds of
one, or the log's own events of one type."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from ordinaut.domain.errors import Invalid, Unavailable
from ordinaut.domain.events import Event
from ordinaut.runtime.entries import Entry
from ordinaut.runtime.past_events import LogEvent, read_own, read_published
from ordinaut.runtime.reach import Reach
from ordinaut.runtime.streams import last_id
from ordinaut.runtime.system import System

CHUNK = 100
"""Entries read at once: each may be large."""

ANSWERS_SECONDS = 10.0
"""A Redis that has not answered by then does not answer."""

PastEntry = Entry | Event | LogEvent
"""An entry of a Redis stream, EventReceived, or an event of the log's own."""


def id_of(entry: PastEntry) -> str:
    """What the entry is called where its source is known (see `Reach`)."""
    match entry:
        case Entry():
            return entry.id
        case LogEvent():
            return str(entry.event.position)
        case Event():
            return entry.stream.removeprefix("event-")


async def read_entries(system: System, space: str, reach: Reach) -> AsyncIterator[Sequence[PastEntry]]:
    """The entries, oldest first, some at a time; those that are added meanwhile are not among them.

    Raises Invalid naming what of `reach` is wrong, Unavailable when Redis does not answer.
    """
    match reach.source.kind:
        case "log":
            async for published in read_published(system.pool, space, reach):
                yield published
        case "event":
            async for own in read_own(system.pool, space, reach):
                yield own
        case _:
            assert reach.source.stream is not None
            with _redis_errors(reach.source.stream):
                async for entries in _of_redis(system.redis, reach.source.stream, reach):
                    yield entries


async def _of_redis(redis: Redis, stream: str, reach: Reach) -> AsyncIterator[list[Entry]]:
    async with asyncio.timeout(ANSWERS_SECONDS):
        if not await redis.exists(stream):
            hint = "`log` looks at the events that were published over HTTP or by a step"
            raise Invalid.at("/stream", f"there is no stream {stream!r} in Redis", hint)
        newest = await last_id(redis, stream)
    last = reach.until or f"{newest[0]}-{newest[1]}"
    first = reach.since or "-"
    if reach.last is not None:
        first = await _first_of_last(redis, stream, last, reach.last)
    while True:
        async with asyncio.timeout(ANSWERS_SECONDS):
            rows: Any = await redis.xrange(stream, min=first, max=last, count=CHUNK)
        if rows:
            first = f"({rows[-1][0].decode()}"
            yield [Entry(stream, entry_id.decode(), fields) for entry_id, fields in rows]
        if len(rows) < CHUNK:
            return


async def _first_of_last(redis: Redis, stream: str, newest: str, number: int) -> str:
    """The id that the newest `number` entries begin with."""
    first, before = "-", newest
    while number > 0:
        async with asyncio.timeout(ANSWERS_SECONDS):
            rows: Any = await redis.xrevrange(stream, max=before, min="-", count=min(CHUNK, number))
        if not rows:
            break
        first = rows[-1][0].decode()
        before, number = f"({first}", number - len(rows)
    return first


@contextmanager
def _redis_errors(stream: str) -> Iterator[None]:
    try:
        yield
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            raise Invalid.at("/stream", f"the key {stream!r} holds something else than a stream") from None
        raise Invalid.at("/stream", f"Redis does not let it be read: {error}") from None
    except (RedisError, OSError) as error:
        raise Unavailable(f"Redis does not answer: {error or type(error).__name__}") from None
