"""Windows: what tasks with a pattern collect becomes their runs, in event time (see domain/windows.py).

EventCollected is in the log; who reads on from there takes each into its window, ends the windows whose time
has come, and appends what follows from it, all in one transaction with the position reached. So nothing is
counted twice and nothing is lost, wherever the process is cut off. One intake at a time does this; the row's
lock says which. The windows are rows, and so are their timers. While the queue is full nobody does
(pressure.py).
"""

import asyncio
from dataclasses import replace
from datetime import datetime
from time import monotonic

from ordinaut.domain.patterns import Pattern
from ordinaut.domain.windows import close, collect
from ordinaut.intake.backlog import Backlog
from ordinaut.intake.following import follow
from ordinaut.intake.pressure import LEAST_SECONDS, Pressure
from ordinaut.intake.window_outcomes import Outcomes, TaskChanged
from ordinaut.log.append import Connection
from ordinaut.log.read import COLUMNS, to_event
from ordinaut.runtime.system import System
from ordinaut.runtime.windows import Due, Row, due, held_of, load, next_due, store, streams_of

BATCH = 500
"""How many collected events are taken in, or windows ended, in one transaction."""

PATIENCE_SECONDS = 300.0
"""How long a window that is due waits for a stream whose entries have not all been read."""

BACKLOG_SECONDS = 0.25
"""How soon the streams are asked again that a window waits for."""

# A process that hangs with the transaction open would keep all others from the windows.
_LET_GO = "SET LOCAL idle_in_transaction_session_timeout = '15s'"

_NEWS = f"""
SELECT {COLUMNS} FROM events WHERE type = 'EventCollected' AND position > $1 ORDER BY position LIMIT $2
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
        self._waiting: dict[tuple[str, str], float] = {}
        self._round: tuple[datetime, Due | None] | None = None
        self.requested = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the log and the clock; outages of PostgreSQL are waited out."""
        await follow(self._system, stop, self.step, what="windows", wait=self._until_due)

    async def step(self) -> bool:
        """Take in the next events, or end windows that are due when there are none; says whether there may be
        more to do. Nothing is done while the queue is full. Raises what asking PostgreSQL raises; nothing was
        done then."""
        try:
            async with self._system.pool.acquire() as connection:
                if not await connection.fetchval(_TO_DO, self._system.time.now()):
                    return False  # most of the time, so nothing is locked
            if await self._pressure.hold():
                # Nothing is read from the streams either: it is not they who keep windows waiting.
                self._waiting.clear()
                return False
            async with self._system.pool.acquire() as connection, connection.transaction():
                await connection.execute(_LET_GO)
                position = await connection.fetchval(
                    "SELECT position FROM log_readers WHERE name = 'windows' FOR UPDATE SKIP LOCKED"
                )
                if position is None:
                    return False
                return await self._take_in(connection, position) or await self._end_due(connection, position)
        except TaskChanged:
            return True

    async def _take_in(self, connection: Connection, position: int) -> bool:
        events = [to_event(row) for row in await connection.fetch(_NEWS, position, BATCH)]
        if not events:
            return False
        rows = await load(connection, {(event.data["task"], event.data["key"]) for event in events})
        outcomes = Outcomes(self._system)
        for event in events:
            name = (event.data["task"], event.data["key"])
            row = rows.get(name) or Row(*name, event.space, event.data["name"])
            step = collect(row.window, Pattern.from_data(event.data["pattern"]), held_of(event))
            for closing in step.closings:
                outcomes.close(row, closing)
            for outcome in step.at_once:
                outcomes.decide(row, outcome)
            rows[name] = replace(row, window=step.window)
        await store(connection, rows.values())
        await connection.execute(
            "UPDATE log_readers SET position = $1 WHERE name = 'windows'", events[-1].position
        )
        await self._append(connection, outcomes)
        return True

    async def _end_due(self, connection: Connection, position: int) -> bool:
        """End some of the windows that are due. They are gone through in rounds, the oldest first: those that
        wait for their streams are passed over, and looked at again in the next round."""
        now, behind = self._round or (self._system.time.now(), None)
        rows = await due(connection, now, BATCH, behind)
        streams = await streams_of(connection, rows)
        self._backlog.forget()
        moved: list[Row] = []
        outcomes = Outcomes(self._system)
        for row in rows:
            window = row.window
            while window is not None and window.due_at <= now:
                members, deadline = window.first()
                # What the others of its parts say matters as much as what there is.
                sources = window.pattern.sources or {
                    streams[each.position] for each in members if each.position in streams
                }
                if await self._backlog.hides(connection, sources, deadline, now) and self._waits_on(row):
                    break  # some of its events have not been read yet
                self._waiting.pop((row.task_id, row.key), None)
                closing, window = close(window)
                if closing is not None:
                    outcomes.close(row, closing)
            if window is not row.window:
                moved.append(replace(row, window=window))
        if moved:
            # What the streams were asked about may have been collected since the log was read.
            if await connection.fetch(_NEWS, position, 1):
                return True
            await store(connection, moved)
            await self._append(connection, outcomes)
        over = len(rows) < BATCH
        self._round = None if over else (now, rows[-1].due)
        return not over

    async def _append(self, connection: Connection, outcomes: Outcomes) -> None:
        await outcomes.append(connection)
        self.requested += outcomes.requested

    def _waits_on(self, row: Row) -> bool:
        """Whether there is patience left with a window's streams."""
        since = self._waiting.setdefault((row.task_id, row.key), monotonic())
        return monotonic() - since < PATIENCE_SECONDS

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
