"""Appending to the log: expected versions, requirements, and what is asked along with it.

Serialised appends cost one commit at a time (see `append_events`, migrations/0001_log.sql and
0013_said_once.sql); group commit pays it back (ordinaut/log/appender.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import asyncpg
import orjson
import structlog

from ordinaut.domain.errors import VersionConflict
from ordinaut.domain.events import SCHEMA_VERSION, NewEvent

logger = structlog.get_logger(__name__)

T = TypeVar("T")
Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

# What was in the log of tasks is asked along with it: by the statement's snapshot, so before the append.
_LAST_OF_TASKS = "SELECT position FROM events WHERE stream LIKE 'task-%' ORDER BY position DESC LIMIT 1"
# Types and data travel as one text each, a line an event: an array costs the client four times as much. There
# is no line break in either; JSON escapes its own. Joined as bytes, and decoded at once, the data would be a
# large block more, which costs the worker thousands of page faults a batch.
_LINES = r"string_to_array($9, E'\n'), string_to_array($10, E'\n')"
_APPENDED = f"append_events($1, $2, $3, $4, $5, $6, $7, $8, {_LINES}, $11, $12, $13, $14) AS a"
_ANSWER = f"SELECT a.*, ({_LAST_OF_TASKS}) AS tasks_at"
APPEND = f"{_ANSWER} FROM {_APPENDED}"

# A function on the right of a lateral join that needs the left one's answer is called after it.
APPEND_AND = f"{_ANSWER}, c.* FROM {_APPENDED} LEFT JOIN LATERAL {{companion}} AS c ON true"


@dataclass(slots=True)  # not frozen: see ordinaut/domain/events.py
class Append:
    """What one caller wants appended to one stream, all or nothing.

    `expected` is the version the stream must be at (0: it must not exist). `requires` maps other
    streams to the versions they must be at, for a decision that read them. `effects` are changes to
    other tables that must stand or fall with the events: SQL text to one row of arguments; rows of
    the same SQL are sent together as one array per argument, so write it over `unnest`.
    """

    stream: str
    expected: int
    events: Sequence[NewEvent]
    space: str
    actor: str
    correlation: str
    causation: str | None = None
    requires: Mapping[str, int] = field(default_factory=dict)
    effects: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class Appended:
    """The append is on disk: `position` is that of its last event, `at` when it happened (UTC).

    `tasks_at` is the position of the last event of any task that was in the log when this was sent (0: none,
    or not asked): whoever has read as far has decided by all that was acknowledged by then.
    """

    position: int
    version: int
    at: datetime
    tasks_at: int = 0


Outcome = Appended | VersionConflict


class Companion(Protocol):
    """What is asked along with appends: in their transaction, after them, and by the same round trip.

    `types`: only along with an event of one of these. `sql` calls a function that answers with a set, with
    its arguments from `$15` on; it must depend on `a.head_after`, the position of the last event appended.
    """

    types: frozenset[str]
    sql: str

    def ask(self) -> tuple[Any, ...] | None:
        """The arguments for the next append, or None to ask nothing. What is asked is answered."""

    def answer(self, rows: Sequence[asyncpg.Record]) -> None:
        """What came of it; nothing where the append failed, or it is not known what became of it."""


async def append(connection: Connection, appends: Sequence[Append]) -> list[Outcome]:
    """Append a batch in the transaction `connection` is in; one outcome each, in order.

    No two appends may name the same stream. The lock on the head of the log is held from here to the
    end of the transaction: make this the last thing it does. Effects are not carried out here.
    """
    row = await connection.fetchrow(APPEND, *_arguments(appends))
    assert row is not None
    return _outcomes(appends, row)


def _arguments(appends: Sequence[Append]) -> tuple[Any, ...]:
    """What `append_events` is given (see migrations/0013_said_once.sql): what is the same for all, once."""
    events = [event for item in appends for event in item.events]
    counts = [len(item.events) for item in appends]
    first: list[int] = []
    belongs_to: list[int] = []
    if len(_same(counts)) > 1:
        first = [1 + before for before in accumulate(counts[:-1], initial=0)]
        belongs_to = [n for n, count in enumerate(counts, 1) for _ in range(count)]
    required = _same([item.requires for item in appends])
    required_by = [] if len(required) == 1 else [n for n, streams in enumerate(required, 1) for _ in streams]
    return (
        [item.stream for item in appends],
        _same([item.expected for item in appends]),
        first,
        _same([item.space for item in appends]),
        _same([item.actor for item in appends]),
        [item.correlation for item in appends],
        [item.causation for item in appends],
        belongs_to,
        "\n".join([event.type for event in events]),
        "\n".join([orjson.dumps(event.data).decode() for event in events]),
        required_by,
        [stream for streams in required for stream in streams],
        [version for streams in required for version in streams.values()],
        SCHEMA_VERSION,
    )


def _same(values: list[T]) -> list[T]:
    """One of them where all are the same, else all."""
    return values[:1] if values and values.count(values[0]) == len(values) else values


def _outcomes(appends: Sequence[Append], row: asyncpg.Record) -> list[Outcome]:
    conflicts: dict[int, VersionConflict] = {}
    if row["conflict_append"]:
        for number, stream, actual in zip(
            row["conflict_append"], row["conflict_stream"], row["conflict_actual"], strict=True
        ):
            # SQL counts from 1; without a number, what conflicts is required by all.
            for n in range(len(appends)) if number is None else (number - 1,):
                item = appends[n]
                own = stream == item.stream
                # Its own stream first: "it exists already" says more than "what you read has changed".
                if n not in conflicts or own:
                    conflicts[n] = VersionConflict(
                        stream, item.expected if own else item.requires[stream], actual
                    )
    position: int = row["head_before"]
    at: datetime = row["appended_at"]
    tasks_at: int = row["tasks_at"] or 0
    outcomes: list[Outcome] = []
    for n, item in enumerate(appends):
        conflict = conflicts.get(n)
        if conflict is not None:
            outcomes.append(conflict)
            continue
        position += len(item.events)
        outcomes.append(Appended(position, item.expected + len(item.events), at, tasks_at))
    return outcomes


async def append_with(
    connection: Connection, appends: Sequence[Append], companion: Companion | None
) -> list[Outcome]:
    """`append` in a transaction of its own, along with what `companion` asks. Should that fail, the appends
    do not: they are then made without it."""
    wanted = companion is not None and any(e.type in companion.types for one in appends for e in one.events)
    asked = companion.ask() if companion is not None and wanted else None
    if companion is None or asked is None:
        return await append(connection, appends)
    rows: Sequence[asyncpg.Record] = ()
    failure: Exception | None = None
    try:
        rows = await connection.fetch(
            APPEND_AND.format(companion=companion.sql), *_arguments(appends), *asked
        )
    except Exception as error:
        if is_outage(error):
            raise
        failure = error
    finally:
        companion.answer(rows)
    if failure is None:
        return _outcomes(appends, rows[0])
    outcomes = await append(connection, appends)
    logger.warning("append.without_companion", error=f"{type(failure).__name__}: {failure}")
    return outcomes


def is_outage(error: BaseException) -> bool:
    """Whether PostgreSQL is away, starting, stopping or overloaded, rather than refusing a statement."""
    return isinstance(
        error,
        OSError
        | asyncpg.InterfaceError
        | asyncpg.InternalClientError
        | asyncpg.PostgresConnectionError
        | asyncpg.OperatorInterventionError
        | asyncpg.InsufficientResourcesError
        | asyncpg.PostgresSystemError,
    )
