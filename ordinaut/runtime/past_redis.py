"""Entries that are in a Redis stream already, read once more."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from ordinaut.domain.errors import Invalid, Unavailable
from ordinaut.domain.matching import entry_time
from ordinaut.runtime.entries import Entry
from ordinaut.runtime.reach import Reach
from ordinaut.runtime.streams import last_id

CHUNK = 100
"""Entries read at once: each may be large."""

ANSWERS_SECONDS = 10.0
"""A Redis that has not answered by then does not answer."""


@dataclass(frozen=True, slots=True)
class StreamStretch:
    """The entries of a stream between two ids, both included. `cut` is the time of the first where there may
    be older ones that were left out."""

    redis: Redis
    stream: str
    first: str
    last: str
    cut: datetime | None = None

    async def read(self) -> AsyncIterator[list[Entry]]:
        """The entries, oldest first, some at a time. Raises Unavailable when Redis does not answer."""
        first = self.first
        while True:
            with redis_errors(self.stream):
                async with asyncio.timeout(ANSWERS_SECONDS):
                    rows: Any = await self.redis.xrange(self.stream, min=first, max=self.last, count=CHUNK)
            if rows:
                first = f"({rows[-1][0].decode()}"
                yield [Entry(self.stream, entry_id.decode(), fields) for entry_id, fields in rows]
            if len(rows) < CHUNK:
                return


async def entries_of(redis: Redis, stream: str, reach: Reach) -> StreamStretch | None:
    """Where the entries are; None when there is no such stream. Raises Invalid for a key of another type,
    Unavailable when Redis does not answer."""
    with redis_errors(stream):
        async with asyncio.timeout(ANSWERS_SECONDS):
            if not await redis.exists(stream):
                return None
            newest = await last_id(redis, stream)
        last = reach.until or f"{newest[0]}-{newest[1]}"
        if reach.last is None:
            return StreamStretch(redis, stream, reach.since or "-", last)
        first = await _first_of_last(redis, stream, last, reach.last)
    cut = None if first == "-" else datetime.fromisoformat(entry_time(first))
    return StreamStretch(redis, stream, first, last, cut)


async def _first_of_last(redis: Redis, stream: str, newest: str, number: int) -> str:
    """The id that the newest `number` entries begin with; "-" when there are not so many."""
    first, before = "-", newest
    while number > 0:
        async with asyncio.timeout(ANSWERS_SECONDS):
            rows: Any = await redis.xrevrange(stream, max=before, min="-", count=min(CHUNK, number))
        if not rows:
            return "-"
        first = rows[-1][0].decode()
        before, number = f"({first}", number - len(rows)
    return first


@contextmanager
def redis_errors(stream: str) -> Iterator[None]:
    """What Redis raises about a stream, as Invalid or Unavailable."""
    try:
        yield
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            raise Invalid.at("/stream", f"the key {stream!r} holds something else than a stream") from None
        raise Invalid.at("/stream", f"Redis does not let it be read: {error}") from None
    except (RedisError, OSError) as error:
        raise Unavailable(f"Redis does not answer: {error or type(error).__name__}") from None
