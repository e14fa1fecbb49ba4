"""Past events of the log, read once more: those that were published in a stream (EventReceived), or the log's
own of one type."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

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
_POSITION = f"SELECT position FROM events WHERE {_RECEIVED}"


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One of the log's own events, and the first one of its stream."""

    event: Event
    first: Event


async def read_published(pool: asyncpg.Pool, space: str, reach: Reach) -> AsyncIterator[list[Event]]:
    """The events that were published in the stream, oldest first, some at a time. Raises Invalid naming what
    of `reach` is wrong."""
    stream = reach.source.stream
    assert stream is not None
    async with pool.acquire() as connection:
        first, last = await _positions(connection, space, stream, reach)
    while True:
        async with pool.acquire() as connection:
            rows = await connection.fetch(
                f"""SELECT {COLUMNS} FROM events WHERE {_RECEIVED} AND position BETWEEN $3 AND $4
                     ORDER BY position LIMIT $5""",
                space, stream, first, last, CHUNK,
            )  # fmt: skip
        if rows:
            first = rows[-1]["position"] + 1
            yield [to_event(row) for row in rows]
        if len(rows) < CHUNK:
            return


async def _positions(connection: Connection, space: str, stream: str, reach: Reach) -> tuple[int, int]:
    """The positions in the log that the reach lies between."""
    newest = await connection.fetchval(f"{_POSITION} ORDER BY position DESC LIMIT 1", space, stream)
    if newest is None:
        hint = "leave `log` out for the stream in Redis"
        raise Invalid.at("/stream", f"the log has no event of the stream {stream!r}", hint)
    last = newest if reach.until is None else await _position(connection, space, stream, "to", reach.until)
    if reach.last is not None:
        first = await connection.fetchval(
            f"{_POSITION} ORDER BY position DESC OFFSET $3 LIMIT 1", space, stream, reach.last - 1
        )
        return first or 1, last
    first = 1 if reach.since is None else await _position(connection, space, stream, "from", reach.since)
    if first > last:
        raise Invalid.at("/from", "comes behind `to`", "the id of the first event, then of the last")
    return first, last


async def _position(connection: Connection, space: str, stream: str, name: str, event_id: str) -> int:
    position: int | None = await connection.fetchval(
        f"{_POSITION} AND stream = $3", space, stream, event_stream(event_id.lower())
    )
    if position is None:
        raise Invalid.at(f"/{name}", f"no event {event_id} was received in the stream {stream!r}")
    return position


async def read_own(pool: asyncpg.Pool, space: str, reach: Reach) -> AsyncIterator[list[LogEvent]]:
    """The log's own events of one type, oldest first, some at a time."""
    event = reach.source.event
    assert event in EVENT_TYPES
    # A literal: the index on types holds only some of them, and is not used for a parameter.
    which = f"type = '{event}' AND space = $1"
    first, last = int(reach.since or 1), int(reach.until or MAX_POSITION)
    async with pool.acquire() as connection:
        newest = await connection.fetchval("SELECT position FROM log_head")
        last = min(last, newest)
        if reach.last is not None:
            oldest = f"SELECT position FROM events WHERE {which} ORDER BY position DESC OFFSET $2 LIMIT 1"
            first = await connection.fetchval(oldest, space, reach.last - 1) or 1
    while True:
        async with pool.acquire() as connection:
            rows = await connection.fetch(
                f"""SELECT {COLUMNS} FROM events WHERE {which} AND position BETWEEN $2 AND $3
                     ORDER BY position LIMIT $4""",
                space, first, last, CHUNK,
            )  # fmt: skip
            events = [to_event(row) for row in rows]
            begun = await read_first(connection, sorted({each.stream for each in events}))
        if events:
            first = events[-1].position + 1
            yield [LogEvent(each, begun[each.stream]) for each in events]
        if len(events) < CHUNK:
            return
