"""Reading the log: a stream, a range, a filter. Readers never lock and never skip (I2)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

import asyncpg

from ordinaut.domain.events import Event
from ordinaut.domain.upcast import upcast
from ordinaut.log.append import Connection

COLUMNS = "position, space, stream, version, type, schema, at, actor, correlation, causation, data"

_columns = itemgetter(*COLUMNS.split(", "))


def to_event(row: asyncpg.Record) -> Event:
    """A row of `events` as an `Event` of the current schema version."""
    return upcast(Event(*_columns(row)))


async def head(connection: Connection) -> int:
    """The position of the last event that is in the log; 0 when it is empty."""
    position: int = await connection.fetchval("SELECT position FROM log_head")
    return position


async def read_stream(connection: Connection, stream: str, *, after: int = 0) -> list[Event]:
    """A stream's events with a version above `after`, in order. Empty: there is no such stream."""
    rows = await connection.fetch(
        f"SELECT {COLUMNS} FROM events WHERE stream = $1 AND version > $2 ORDER BY version", stream, after
    )
    return [to_event(row) for row in rows]


async def read_streams(connection: Connection, streams: Sequence[str]) -> dict[str, list[Event]]:
    """Several streams whole, each in order; a stream that does not exist is missing from the result."""
    rows = await connection.fetch(
        f"SELECT {COLUMNS} FROM events WHERE stream = ANY($1) ORDER BY stream, version", streams
    )
    found: dict[str, list[Event]] = {}
    for row in rows:
        found.setdefault(row["stream"], []).append(to_event(row))
    return found


async def read_first(connection: Connection, streams: Sequence[str]) -> dict[str, Event]:
    """The first event of each of these streams; a stream that does not exist is missing from the result."""
    rows = await connection.fetch(
        f"SELECT {COLUMNS} FROM events WHERE stream = ANY($1) AND version = 1", streams
    )
    return {row["stream"]: to_event(row) for row in rows}


async def read_after(connection: Connection, position: int, limit: int) -> list[Event]:
    """At most `limit` events after `position`, in order."""
    rows = await connection.fetch(
        f"SELECT {COLUMNS} FROM events WHERE position > $1 ORDER BY position LIMIT $2", position, limit
    )
    return [to_event(row) for row in rows]


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which events of a space to show; None means any. Instants are aware, `since` included,
    `until` excluded. `types` holds event type names."""

    space: str
    stream: str | None = None
    types: Sequence[str] | None = None
    correlation: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def where(self) -> tuple[str, list[Any]]:
        """The SQL condition and its arguments, `$1` being the space."""
        conditions: list[str] = ["space = $1"]
        arguments: list[Any] = [self.space]

        def add(condition: str, value: Any) -> None:
            if value is not None:
                arguments.append(value)
                conditions.append(condition.format(f"${len(arguments)}"))

        add("stream = {}", self.stream)
        add("type = ANY({}::text[])", list(self.types) if self.types is not None else None)
        # In the words of the index, which leaves out runs that are their own beginning.
        add(
            "(correlation = {0} AND stream <> 'run-' || correlation"
            " OR correlation = {0} AND stream = 'run-' || {0})",
            self.correlation,
        )
        add("actor = {}", self.actor)
        add("at >= {}", self.since)
        add("at < {}", self.until)
        return " AND ".join(conditions), arguments


async def read_log(
    connection: Connection, wanted: LogFilter, *, after: int, limit: int, newest_first: bool = False
) -> list[Event]:
    """A page of the log: `limit` events behind `after`, which is a position (0: from the end that
    the order begins with)."""
    condition, arguments = wanted.where()
    if newest_first:
        arguments.append(after or 2**63 - 1)
        order = f"position < ${len(arguments)} ORDER BY position DESC"
    else:
        arguments.append(after)
        order = f"position > ${len(arguments)} ORDER BY position"
    arguments.append(limit)
    rows = await connection.fetch(
        f"SELECT {COLUMNS} FROM events WHERE {condition} AND {order} LIMIT ${len(arguments)}", *arguments
    )
    return [to_event(row) for row in rows]


def public(event: Event) -> dict[str, Any]:
    """An event as the API and Redis show it: the columns of `events`, JSON-able."""
    return {
        "position": event.position,
        "space": event.space,
        "stream": event.stream,
        "version": event.version,
        "type": event.type,
        "schema": event.schema,
        "at": event.at.isoformat(),
        "actor": event.actor,
        "correlation": event.correlation,
        "causation": event.causation,
        "data": event.data,
    }


def last_version(events: Iterable[Event]) -> int:
    """The version a stream is at, given its events in order; 0 when there are none."""
    version = 0
    for event in events:
        version = event.version
    return version
