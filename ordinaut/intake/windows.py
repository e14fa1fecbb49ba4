"""Windows: what tasks with a pattern collect becomes their runs, in event time (see domain/windows.py).

EventCollected is in the log; who reads on from there takes each into its window, ends the windows whose time
has come, and appends what follows from it, all in one transaction with the position reached. So nothing is
counted twice and nothing is lost, wherever the process is cut off. One intake at a time does this; the row's
lock says which. The windows are rows, and so are their timers. While the queue is full nobody does
(pressure.py).
"""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic

from ordinaut.domain.events import Event
from ordinaut.domain.patterns import Held, Pattern
from ordinaut.domain.windows import Window, close, collect
from ordinaut.intake.backlog import Backlog
from ordinaut.intake.following import follow
from ordinaut.intake.pressure import LEAST_SECONDS, Pressure
from ordinaut.intake.window_outcomes import Outcomes, TaskChanged
from ordinaut.log.append import Connection
from ordinaut.log.read import to_event
from ordinaut.runtime.system import System
from ordinaut.runtime.windows import (
    COLLECTED,
    Due,
    Name,
    Row,
    due,
    held_of,
    load,
    next_due,
    store,
    streams_of,
)

BATCH = 500
"""How many collected events are taken in, or windows ended, in one transaction."""

ENOUGH_BYTES = 32 * 1024 * 1024
"""No more is taken in or ended in one transaction when the runs that come of it have so much input."""

PATIENCE_SECONDS = 300.0
"""How long a window that is due waits for a stream whose entries have not all been read."""

BACKLOG_SECONDS = 0.25
"""How soon the streams are asked again that a window waits for."""

# A process that hangs with the transaction open would keep all others from the windows.
_LET_GO = "SET LOCAL idle_in_transaction_session_timeout = '15s'"

_NEWS = f"""
SELECT {COLLECTED} FROM events WHERE type = 'EventCollected' AND position > $1 ORDER BY position LIMIT $2
"""

_TO_DO = """
SELECT EXISTS (SELECT FROM windows WHERE due_at <= $1)
    OR EXISTS (SELECT FROM events WHERE type = 'EventCollected'
                  AND position > (SELECT position FROM log_readers WHERE name = 'windows'))
"""


class Windows:
    """Takes collected events into their windows and ends these, until told to stop. `requested` counts the
    runs that were asked for here."""

    def __init__(self, system: System, pressure: Pressure) -> None:
        self._system = system
        self._pressure = pressure
        self._backlog = Backlog(system.redis)
        self._waiting: dict[Name, tuple[datetime, float]] = {}
        self._seen: set[Name] = set()
        self._round: tuple[datetime, Due | None] | None = None
        self.requested = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the log and the clock; outages of PostgreSQL are waited out."""
        await follow(self._system, stop, self.step, what="windows", wait=self._until_due)

    async def step(self) -> bool:
        """Take in the next events, and end windows that are due when there are no more; says whether there
        may be more to do. Nothing is done while the queue is full. Raises what asking PostgreSQL raises;
        nothing was done then."""
        async with self._system.pool.acquire() as connection:
            if not await connection.fetchval(_TO_DO, self._system.time.now()):
                return False  # most of the time, so nothing is locked
        if await self._pressure.hold():
            # Nothing is read from the streams either: it is not they who keep windows waiting.
            self._waiting.clear()
            return False
        asked = await self._ask()
        try:
            async with self._system.pool.acquire() as connection, connection.transaction():
                await connection.execute(_LET_GO)
                position = await connection.fetchval(
                    "SELECT position FROM log_readers WHERE name = 'windows' FOR UPDATE SKIP LOCKED"
                )
                return position is not None and await self._go_on(connection, position, asked)
        except TaskChanged:
            return True

    async def _ask(self) -> "_Asked":
        """Some of the windows that are due, and how far their streams have been read: before the log is read
        on, so that what has been read from them is in the log. They are gone through in rounds, the oldest
        first: those that wait are passed over, and looked at again in the next round."""
        now, behind = self._round or (self._system.time.now(), None)
        async with self._system.pool.acquire() as connection:
            rows = await due(connection, now, BATCH, behind)
            asked = _Asked(now, rows, await streams_of(connection, rows))
            self._backlog.forget()
            for row in rows:
                window = row.window
                assert window is not None
                await self._backlog.ask(
                    connection, asked.sources(window, window.held), window.first()[1], now
                )
        return asked

    async def _go_on(self, connection: Connection, position: int, asked: "_Asked") -> bool:
        news = await connection.fetch(_NEWS, position, BATCH)
        events = [to_event(row) for row in news]
        # Behind a whole batch there may be more, even from before the streams were asked.
        ending = asked.rows if len(events) < BATCH else []
        before = await load(connection, {_collected_in(one) for one in events} | {one.name for one in ending})
        rows, outcomes = dict(before), Outcomes(self._system)
        taken = ended = 0
        while taken < len(events) and outcomes.bytes < ENOUGH_BYTES:
            self._take_in(events[taken], news[taken]["size"], rows, outcomes)
            asked.learn(events[taken])
            taken += 1
        while ended < len(ending) and outcomes.bytes < ENOUGH_BYTES:
            row = ending[ended]
            found = before.get(row.name)
            if found is not None and found.window == row.window:  # else another intake was here meanwhile
                rows[row.name] = self._end_due(rows[row.name], asked, outcomes)
            ended += 1
        await store(connection, [row for name, row in rows.items() if row is not before.get(name)])
        if taken:
            await connection.execute(
                "UPDATE log_readers SET position = $1 WHERE name = 'windows'", events[taken - 1].position
            )
        await outcomes.append(connection)
        self.requested += outcomes.requested
        if ended < len(asked.rows):
            self._round = (asked.now, asked.rows[ended - 1].due) if ended else self._round
            return True
        self._next_round(asked)
        return bool(events) or self._round is not None

    def _take_in(self, event: Event, size: int, rows: dict[Name, Row], outcomes: Outcomes) -> None:
        name = _collected_in(event)
        row = rows.get(name) or Row(*name, event.space, event.data["name"])
        step = collect(row.window, Pattern.from_data(event.data["pattern"]), held_of(event, size))
        for closing in step.closings:
            outcomes.close(row, closing)
        for outcome in step.at_once:
            outcomes.decide(row, outcome)
        rows[name] = replace(row, window=step.window)

    def _end_due(self, row: Row, asked: "_Asked", outcomes: Outcomes) -> Row:
        """The row when those of its windows have ended that are due, and wait for nothing."""
        window = row.window
        while window is not None and window.due_at <= asked.now and outcomes.bytes < ENOUGH_BYTES:
            members, deadline = window.first()
            if self._backlog.hides(asked.sources(window, members), deadline) and self._waits_on(
                row, deadline
            ):
                break  # some of its events have not been read yet
            closing, window = close(window)
            if closing is not None:
                outcomes.close(row, closing)
        return row if window is row.window else replace(row, window=window)

    def _waits_on(self, row: Row, deadline: datetime) -> bool:
        """Whether there is patience left with the streams of a window."""
        until, since = self._waiting.get(row.name, (None, 0.0))
        if until != deadline:
            since = monotonic()
            self._waiting[row.name] = deadline, since
        self._seen.add(row.name)
        return monotonic() - since < PATIENCE_SECONDS

    def _next_round(self, asked: "_Asked") -> None:
        if len(asked.rows) == BATCH:
            self._round = (asked.now, asked.rows[-1].due)
            return
        # Others may have ended some of those that waited here.
        self._waiting = {name: one for name, one in self._waiting.items() if name in self._seen}
        self._round, self._seen = None, set()

    async def _until_due(self) -> float:
        """Seconds until the next window is due; those that are due by now wait for their streams, or for room
        in the queue."""
        if self._pressure.held:
            return LEAST_SECONDS
        async with self._system.pool.acquire() as connection:
            at = await next_due(connection)
        if at is None:
            return self._system.settings.poll_seconds
        left = (at - self._system.time.now()).total_seconds()
        return left if left > 0 else BACKLOG_SECONDS


@dataclass(slots=True)
class _Asked:
    """Windows that are due at an instant, and the Redis streams of their events, by position in the log."""

    now: datetime
    rows: list[Row]
    streams: dict[int, str]

    def learn(self, event: Event) -> None:
        """Of an event that has been collected since."""
        if event.data["cause"]["kind"] == "stream":
            self.streams[event.position] = event.data["cause"]["stream"]

    def sources(self, window: Window, members: Iterable[Held]) -> Collection[str]:
        """Where more events for these members may come from."""
        # What the others of its parts say matters as much as what there is.
        return window.pattern.sources or {
            self.streams[each.position] for each in members if each.position in self.streams
        }


def _collected_in(event: Event) -> Name:
    return event.data["task"], event.data["key"]
