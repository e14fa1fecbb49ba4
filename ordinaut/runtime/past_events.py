"""Past events of the log, read once more: those that were published in a stream (EventReceived), or the log's
own of one type."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from ordinaut.domain.errors import Invalid
from ordinaut.domain.events import EVENT_TYPES, Event
from ordinaut.log.append import Connection
from ordinaut.log.read import COLUMNS, read_first, to_event
from ordinaut.runtime.publication import event_stream
from ordinaut.runtime.reach import MAX_POSITION, Reach

CHUNK = 100
"""Events read at once: each may be large."""

_RECEIVED = "type = 'EventReceived' AND space = $1 AND data->>'stream' = $2"


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One of the log's own events, and the first one of its stream."""

    event: Event
    first: Event


@dataclass(frozen=True, slots=True)
class LogStretch:
    """The events that are `which` (SQL, with the parameters `given`) between two positions, both included.
    `cut` is the time of the first where there may be older ones that were left out."""

    pool: asyncpg.Pool
    which: str
    given: tuple[str, ...]
    first: int
    last: int
    cut: datetime | None = None

    async def read(self) -> AsyncIterator[list[Event]]:
        """The events, oldest first, some at a time."""
        number, first = len(self.given), self.first
        statement = f"""SELECT {COLUMNS} FROM events WHERE {self.which}
                           AND position BETWEEN ${number + 1} AND ${number + 2}
                         ORDER BY position LIMIT {CHUNK}"""
        while True:
            async with self.pool.acquire() as connection:
                rows = await connection.fetch(statement, *self.given, first, self.last)
            if rows:
                first = rows[-1]["position"] + 1
                yield [to_event(row) for row in rows]
            if len(rows) < CHUNK:
                return


@dataclass(frozen=True, slots=True)
class OwnStretch:
    """The log's own events of one type."""

    events: LogStretch

    @property
    def cut(self) -> datetime | None:
        """As of the events."""
        return self.events.cut

    async def read(self) -> AsyncIterator[list[LogEvent]]:
        """The events, oldest first, some at a time."""
        async for events in self.events.read():
            async with self.events.pool.acquire() as connection:
                begun = await read_first(connection, sorted({each.stream for each in events}))
            yield [LogEvent(each, begun[each.stream]) for each in events]


async def published(pool: asyncpg.Pool, space: str, stream: str, reach: Reach) -> LogStretch | None:
    """Where the events are that were published in the stream; None when there are none. Raises Invalid naming
    what of `reach` is wrong."""
    given = (space, stream)
    async with pool.acquire() as connection:
        newest = await _newest(connection, _RECEIVED, given, 1)
        if newest is None:
            return None
        first, last, cut = 1, int(newest["position"]), None
        if reach.until is not None:
            last = await _position(connection, given, "to", reach.until)
        if reach.since is not None:
            first = await _position(connection, given, "from", reach.since)
        if reach.last is not None and (oldest := await _newest(connection, _RECEIVED, given, reach.last)):
            first, cut = oldest["position"], oldest["at"]
    if first > last:
        raise Invalid.at("/from", "comes behind `to`", "the id of the first event, then of the last")
    return LogStretch(pool, _RECEIVED, given, first, last, cut)


async def own(pool: asyncpg.Pool, space: str, event: str, reach: Reach) -> OwnStretch:
    """Where the log's own events of a type are."""
    assert event in EVENT_TYPES
    # A literal: the index on types holds only some of them, and is not used for a parameter.
    which = f"type = '{event}' AND space = $1"
    first: int = int(reach.since or 1)
    cut: datetime | None = None
    async with pool.acquire() as connection:
        newest: int = await connection.fetchval("SELECT position FROM log_head")
        if reach.last is not None and (oldest := await _newest(connection, which, (space,), reach.last)):
            first, cut = oldest["position"], oldest["at"]
    last = min(int(reach.until or MAX_POSITION), newest)
    return OwnStretch(LogStretch(pool, which, (space,), first, last, cut))


async def _newest(connection: Connection, which: str, given: tuple[str, ...], number: int) -> Any:
    """Of the newest `number` events the oldest; None when there are not so many."""
    return await connection.fetchrow(
        f"""SELECT position, at FROM events WHERE {which}
             ORDER BY position DESC OFFSET ${len(given) + 1} LIMIT 1""",
        *given, number - 1,
    )  # fmt: skip


async def _position(connection: Connection, given: tuple[str, str], name: str, event_id: str) -> int:
    position: int | None = await connection.fetchval(
        f"SELECT position FROM events WHERE {_RECEIVED} AND stream = $3",
        *given, event_stream(event_id.lower()),
    )  # fmt: skip
    if position is None:
        raise Invalid.at(f"/{name}", f"no event {event_id} was received in the stream {given[1]!r}")
    return position
