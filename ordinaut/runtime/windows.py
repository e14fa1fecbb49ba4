"""The table `windows`: the open windows and their timers, and how it follows from the log."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import repeat
from typing import Any

from ordinaut.domain.events import Event
from ordinaut.domain.patterns import Held, Pattern
from ordinaut.domain.windows import Window, collect
from ordinaut.log.append import Connection
from ordinaut.log.read import COLUMNS, to_event

Name = tuple[str, str]
"""What a window is known by: its task's id and its key."""

Due = tuple[datetime, str, str]
"""The place of a window among those that are due: when it is, its task's id and its key."""


COLLECTED = (
    COLUMNS.removesuffix("data")
    + "data - 'input' AS data, coalesce(octet_length((data->'input')::text), 0) AS size"
)
"""The columns of EventCollected and WindowClosed: of the input only the bytes it has."""


@dataclass(frozen=True, slots=True)
class Row:
    """A task's window for one key; None when none is open."""

    task_id: str
    key: str
    space: str
    task: str
    window: Window | None = None

    @property
    def name(self) -> Name:
        """Its task's id and its key."""
        return (self.task_id, self.key)

    @property
    def due(self) -> Due:
        """Its place among those that are due. Only of one that is open."""
        assert self.window is not None
        return (self.window.due_at, self.task_id, self.key)


async def load(connection: Connection, names: Collection[Name]) -> dict[Name, Row]:
    """The open windows among these (task id, key)."""
    tasks, keys = [name[0] for name in names], [name[1] for name in names]
    rows = await connection.fetch(
        """SELECT * FROM windows WHERE (task_id, key) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))""",
        tasks, keys,
    )  # fmt: skip
    return {(str(row["task_id"]), row["key"]): _row(row) for row in rows}


async def due(connection: Connection, now: datetime, limit: int, behind: Due | None = None) -> list[Row]:
    """At most `limit` windows whose time has come, the oldest first; those that come behind a place."""
    rows = await connection.fetch(
        """SELECT * FROM windows
            WHERE due_at <= $1 AND ($3::timestamptz IS NULL OR (due_at, task_id, key) > ($3, $4::uuid, $5))
            ORDER BY due_at, task_id, key LIMIT $2""",
        now, limit, *(behind or (None, None, None)),
    )  # fmt: skip
    return [_row(row) for row in rows]


async def next_due(connection: Connection) -> datetime | None:
    """When the next window ends."""
    at: datetime | None = await connection.fetchval("SELECT min(due_at) FROM windows")
    return at


async def store(connection: Connection, rows: Iterable[Row]) -> None:
    """Write the windows down as they are now."""
    given = list(rows)
    await delete(connection, given)
    open_ = [row for row in given if row.window is not None]
    await connection.executemany(
        """INSERT INTO windows (task_id, key, space, task, pattern, opened_at, positions, instants, parts,
                                sizes, started, due_at)
           VALUES ($1::uuid, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)""",
        [_columns(row) for row in open_],
    )


async def delete(connection: Connection, rows: Iterable[Row]) -> None:
    """Remove windows that have ended."""
    given = list(rows)
    await connection.execute(
        "DELETE FROM windows WHERE (task_id, key) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))",
        [row.task_id for row in given], [row.key for row in given],
    )  # fmt: skip


async def streams_of(connection: Connection, rows: Iterable[Row]) -> dict[int, str]:
    """By position, the Redis stream that each event came from that these windows hold."""
    positions = [each.position for row in rows if row.window for each in row.window.held]
    found = await connection.fetch(
        """SELECT position, data#>>'{cause,stream}' AS stream FROM events
            WHERE position = ANY ($1) AND data#>>'{cause,kind}' = 'stream'""",
        positions,
    )
    return {row["position"]: row["stream"] for row in found}


async def list_windows(
    connection: Connection, space: str, after: tuple[str, str], limit: int, *, task_id: str | None = None
) -> list[dict[str, Any]]:
    """A space's open windows in the order of task and key, behind the (task, key) `after`, as the API shows
    them."""
    rows = await connection.fetch(
        """SELECT * FROM windows WHERE space = $1 AND (task, key) > ($2, $3)
              AND ($4::text IS NULL OR task_id = $4::text::uuid) ORDER BY task, key LIMIT $5""",
        space, *after, task_id, limit,
    )  # fmt: skip
    return [_public(row) for row in rows]


def _public(record: Any) -> dict[str, Any]:
    instants = record["instants"] or [record["opened_at"]]
    return {
        "task": record["task"],
        "task_id": str(record["task_id"]),
        "key": record["key"],
        "pattern": record["pattern"]["kind"],
        "count": len(record["positions"]) or record["started"],
        "from": instants[0].isoformat(),
        "to": instants[-1].isoformat(),
        "parts": _counts(record),
        "due_at": record["due_at"].isoformat(),
    }


def _counts(record: Any) -> dict[str, int] | None:
    """How many of the held events are which part of the pattern; None where it has no parts."""
    names = record["pattern"].get("parts")
    return {name: sum(name in parts for parts in record["parts"]) for name in names} if names else None


async def differences(connection: Connection) -> tuple[int, list[Name]]:
    """How many windows are open by the log, and those of which the table says something else. Needs a
    transaction with one snapshot (REPEATABLE READ)."""
    now: datetime = await connection.fetchval("SELECT now()")
    position = await connection.fetchval("SELECT position FROM log_readers WHERE name = 'windows'")
    wanted = {name: row for name, row in (await fold_log(connection, position)).items() if _lasts(row, now)}
    timers: dict[Name, datetime] = {}
    there: dict[Name, Row] = {}
    for record in await connection.fetch("SELECT * FROM windows"):
        row = _row(record)
        if _lasts(row, now):
            there[row.name], timers[row.name] = row, record["due_at"]
    return len(wanted), [
        name
        for name in sorted(wanted.keys() | there)
        if wanted.get(name) != there.get(name) or timers[name] != wanted[name].due[0]
    ]


def _lasts(row: Row, now: datetime) -> bool:
    """Whether it still means something: what a throttle has started is counted until its window is over."""
    window = row.window
    return window is not None and not (window.pattern.starts_at_once and window.due_at <= now)


async def rebuild(connection: Connection) -> int:
    """Make the table anew from the log, up to where it has been read; how many windows are open then. Needs a
    transaction."""
    position = await connection.fetchval("SELECT position FROM log_readers WHERE name = 'windows' FOR UPDATE")
    rows = await fold_log(connection, position)
    await connection.execute("DELETE FROM windows")
    await store(connection, rows.values())
    return len(rows)


def held_of(event: Event, size: int) -> Held:
    """The event that EventCollected put by, with so many bytes of input."""
    return Held.from_data(event.position, event.data, size)


async def fold_log(connection: Connection, upto: int) -> dict[Name, Row]:
    """The windows that the events collected up to a position make: what the table has to be. Those of a
    throttle that has started its runs are there until another takes their place, though they may be over."""
    rows: dict[Name, Row] = {}
    async for record in connection.cursor(
        f"""SELECT {COLLECTED} FROM events
             WHERE type = 'WindowClosed' OR type = 'EventCollected' AND position <= $1 ORDER BY position""",
        upto,
    ):
        event = to_event(record)
        data = event.data
        name = (data["task"], data["key"])
        row = rows.get(name) or Row(*name, event.space, data["name"])
        if event.type == "EventCollected":
            held = held_of(event, record["size"])
            window = _with(row.window, Pattern.from_data(data["pattern"]), held)
        else:
            window = _without(row.window, frozenset(data["positions"]))
        rows[name] = replace(row, window=window)
    return {name: row for name, row in rows.items() if row.window is not None}


def _with(window: Window | None, pattern: Pattern, event: Held) -> Window | None:
    if pattern.starts_at_once:
        return collect(window, pattern, event).window
    # Which of the events before it are out, WindowClosed says.
    held = (*(window.held if window else ()), event)
    return Window(pattern, tuple(sorted(held, key=lambda each: (each.at, each.position))))


def _without(window: Window | None, positions: Collection[int]) -> Window | None:
    held = tuple(each for each in window.held if each.position not in positions) if window else ()
    return Window(window.pattern, held) if window and held else None


def _row(record: Any) -> Row:
    parts = map(tuple, record["parts"]) if record["parts"] else repeat(())
    # The last one is as long as it has to be.
    held = tuple(map(Held, record["positions"], record["instants"], parts, record["sizes"]))
    window = Window(Pattern.from_data(record["pattern"]), held, record["opened_at"], record["started"])
    return Row(str(record["task_id"]), record["key"], record["space"], record["task"], window)


def _columns(row: Row) -> tuple[Any, ...]:
    window = row.window
    assert window is not None
    return (
        row.task_id, row.key, row.space, row.task, window.pattern.as_data(), window.opened_at,
        [each.position for each in window.held], [each.at for each in window.held],
        [each.parts for each in window.held] if window.pattern.parts else [],
        [each.size for each in window.held], window.started, window.due_at,
    )  # fmt: skip
