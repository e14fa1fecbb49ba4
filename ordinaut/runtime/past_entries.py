"""Entries that are in a stream already, read once more, and what a trigger makes of each: the very decision
that intake (or POST /v1/events) takes, without its effects.

They are those of a Redis stream, or the events of that stream that the log holds (EventReceived).
"""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from ordinaut.domain import ids
from ordinaut.domain.definition import Definition
from ordinaut.domain.errors import Invalid, Unavailable
from ordinaut.domain.events import Event, NewEvent
from ordinaut.domain.schedules.spec import trigger_of
from ordinaut.domain.task import Task
from ordinaut.log.append import Connection
from ordinaut.log.read import COLUMNS, to_event
from ordinaut.runtime.entries import Entry, decide, digest
from ordinaut.runtime.listening import Listener, Listening, is_pattern, matches
from ordinaut.runtime.publication import Incoming, Origin, Publication, event_run_id, event_stream
from ordinaut.runtime.streams import RESERVED, last_id, parse_id
from ordinaut.runtime.system import System

CHUNK = 100
"""Entries read at once: each may be large."""

ANSWERS_SECONDS = 10.0
"""A Redis that has not answered by then does not answer."""

MAX_NUMBER = 2**64 - 1
"""Of either part of an entry's id."""

_NUMBER = "(0|[1-9][0-9]{0,19})"
_ENTRY_ID = re.compile(f"{_NUMBER}(-{_NUMBER})?")

_RECEIVED = "type = 'EventReceived' AND space = $1 AND data->>'stream' = $2"
_RANGE = f"SELECT {COLUMNS} FROM events WHERE {_RECEIVED} AND position BETWEEN $3 AND $4"
_POSITION = f"SELECT position FROM events WHERE {_RECEIVED}"

PastEntry = Entry | Event


@dataclass(frozen=True, slots=True)
class Reach:
    """Which entries: those of `stream`, in Redis or (`log`) as the log has them, from the id `since` to the
    id `until`, both included and None where it is open; or the newest `last`."""

    stream: str
    log: bool = False
    since: str | None = None
    until: str | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What a trigger makes of an entry: it starts a run with this `input` (or is collected for one), or
    (`none`) its `where` is not true, or (`error`) it starts nothing for this `reason`.

    `run` is the id of the run it would get. Of a Redis entry `digest` stands for its fields, and `next_run`
    is that id where another entry had its id before.
    """

    id: str
    run: str
    outcome: Literal["match", "none", "error"]
    reason: str | None = None
    input: Any = None
    depth: int = 0
    digest: str | None = None
    next_run: str | None = None


def listening_as_if_active(task: Task, definition: Definition, stream: str) -> Listening:
    """The task alone, with this definition, neither paused nor snoozed. Raises Invalid (at `/stream`) when it
    does not listen to `stream`."""
    on = trigger_of(definition.schedule)
    if on is None or "stream" not in on:
        raise Invalid.at("/stream", f"the task {task.name!r} listens to no stream", "see `on`, its trigger")
    if on["stream"] != stream and not (is_pattern(on["stream"]) and matches(on["stream"], stream)):
        hint = f"it listens to {on['stream']!r}"
        raise Invalid.at("/stream", f"the task {task.name!r} does not listen to {stream!r}", hint)
    active = replace(task, status="active", paused_until=None, snoozed_until=None)
    return Listening([Listener(active, definition, on["stream"])])


def judge(system: System, found: PastEntry, listening: Listening) -> Judged:
    """What the one task that listens makes of an entry."""
    task: Task = listening[0].task
    if isinstance(found, Entry):
        about, fields = (task.space, found.stream, found.id, task.id), digest(found.fields)
        decided = decide(found, listening, now=system.time.now(), space=task.space)
        judged = _judged(found.id, ids.entry_run_id(*about), decided[0][0].events[0] if decided else None)
        return replace(judged, digest=fields, next_run=ids.entry_run_id(*about, fields))
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
        return Judged(entry_id, run, "match", None, event.data["input"], event.data["depth"])
    return Judged(entry_id, run, "error", event.data["reason"])


async def read_entries(system: System, space: str, reach: Reach) -> AsyncIterator[list[PastEntry]]:
    """The entries, oldest first, some at a time; those that are added meanwhile are not among them.

    Raises Invalid naming what of `reach` is wrong, Unavailable when Redis does not answer.
    """
    if not reach.log:
        with _redis_errors(reach.stream):
            async for entries in _of_redis(system.redis, reach):
                yield entries
        return
    async with system.pool.acquire() as connection:
        first, last = await _positions(connection, space, reach)
    while True:
        async with system.pool.acquire() as connection:
            rows = await connection.fetch(
                f"{_RANGE} ORDER BY position LIMIT $5", space, reach.stream, first, last, CHUNK
            )
        if rows:
            first = rows[-1]["position"] + 1
            yield [to_event(row) for row in rows]
        if len(rows) < CHUNK:
            return


def check_reach(reach: Reach) -> None:
    """Raise Invalid naming what no stream could answer to."""
    if reach.stream.startswith(RESERVED):
        hint = "name a stream of your own"
        raise Invalid.at("/stream", f"streams named {RESERVED}… are the system's own", hint)
    for name, given in (("from", reach.since), ("to", reach.until)):
        if given is not None and not _is_id(given, log=reach.log):
            hint = (
                "the id of an event, as POST /v1/events answers it"
                if reach.log
                else "such as 1700000000000-0"
            )
            raise Invalid.at(f"/{name}", f"{given[:60]!r} is not the id of an entry", hint)
    if not reach.log and reach.since and reach.until:
        until = reach.until if "-" in reach.until else f"{reach.until}-{MAX_NUMBER}"
        if parse_id(reach.since) > parse_id(until):
            raise Invalid.at("/from", "comes behind `to`", "the id of the first entry, then of the last")


def _is_id(text: str, *, log: bool) -> bool:
    if not log:
        return bool(_ENTRY_ID.fullmatch(text)) and max(parse_id(text)) <= MAX_NUMBER
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


# --- Redis ----------------------------------------------------------------------------------------


async def _of_redis(redis: Redis, reach: Reach) -> AsyncIterator[list[PastEntry]]:
    async with asyncio.timeout(ANSWERS_SECONDS):
        if not await redis.exists(reach.stream):
            hint = "`log` looks at the events that were published over HTTP or by a step"
            raise Invalid.at("/stream", f"there is no stream {reach.stream!r} in Redis", hint)
        newest = await last_id(redis, reach.stream)
    last = reach.until or f"{newest[0]}-{newest[1]}"
    first = reach.since or "-"
    if reach.last is not None:
        first = await _first_of_last(redis, reach.stream, last, reach.last)
    while True:
        async with asyncio.timeout(ANSWERS_SECONDS):
            rows: Any = await redis.xrange(reach.stream, min=first, max=last, count=CHUNK)
        if rows:
            first = f"({rows[-1][0].decode()}"
            yield [Entry(reach.stream, entry_id.decode(), fields) for entry_id, fields in rows]
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


# --- the log --------------------------------------------------------------------------------------


async def _positions(connection: Connection, space: str, reach: Reach) -> tuple[int, int]:
    """The positions in the log that the reach lies between."""
    newest = await connection.fetchval(f"{_POSITION} ORDER BY position DESC LIMIT 1", space, reach.stream)
    if newest is None:
        hint = "leave `log` out for the stream in Redis"
        raise Invalid.at("/stream", f"the log has no event of the stream {reach.stream!r}", hint)
    last = newest if reach.until is None else await _position(connection, space, reach, "to", reach.until)
    if reach.last is not None:
        first = await connection.fetchval(
            f"{_POSITION} ORDER BY position DESC OFFSET $3 LIMIT 1", space, reach.stream, reach.last - 1
        )
        return first or 1, last
    first = 1 if reach.since is None else await _position(connection, space, reach, "from", reach.since)
    if first > last:
        raise Invalid.at("/from", "comes behind `to`", "the id of the first event, then of the last")
    return first, last


async def _position(connection: Connection, space: str, reach: Reach, name: str, event_id: str) -> int:
    position: int | None = await connection.fetchval(
        f"{_POSITION} AND stream = $3", space, reach.stream, event_stream(event_id.lower())
    )
    if position is None:
        raise Invalid.at(f"/{name}", f"no event {event_id} was received in the stream {reach.stream!r}")
    return position
