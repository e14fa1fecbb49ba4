"""Tasks that listen to the log's own events (`on: {event: RunFailed}`): each event becomes their runs.

The log is read behind a position that is kept in the database and moved when the verdicts are on its disk;
what was read and not moved past is read again and comes to the same runs, because their ids follow from the
event and the task (I7). One intake at a time reads; the row's lock says which. While the queue is full
nobody does (pressure.py): the position stays where it is.
"""

import asyncio
from collections.abc import Iterator, Sequence

import structlog

from ordinaut.domain.errors import VersionConflict
from ordinaut.domain.events import Event
from ordinaut.intake.following import follow
from ordinaut.intake.pressure import LEAST_SECONDS, Pressure
from ordinaut.intake.record import REFUSED, has_verdict
from ordinaut.log.append import Append, Appended, Connection
from ordinaut.log.read import COLUMNS, read_first, to_event
from ordinaut.runtime.log_triggers import decide_event, rejection
from ordinaut.runtime.metrics import REACTIONS_LAG
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex

BATCH = 1000
"""How many events are decided on at once."""

STRETCH = 10_000
"""How many positions of the log are looked through at once."""

_POSITION = "SELECT position FROM log_readers WHERE name = 'events'"

_FOUND = f"""
SELECT {COLUMNS} FROM events WHERE position > $1 AND position <= $2 AND type = ANY ($3)
 ORDER BY position LIMIT $4
"""

logger = structlog.get_logger(__name__)


class LogEvents:
    """Starts the runs of tasks that listen to the log, until told to stop. `matched` counts the verdicts that
    were recorded here."""

    def __init__(self, system: System, index: TriggerIndex, pressure: Pressure) -> None:
        self._system = system
        self._index = index
        self._pressure = pressure
        self._followed = 0
        self.matched = 0

    async def run(self, stop: asyncio.Event) -> None:
        """React to events as they are appended; outages of PostgreSQL are waited out."""
        await follow(self._system, stop, self.step, what="events of the log", wait=self._until_room)

    async def step(self) -> bool:
        """Read on, at most `STRETCH` positions, and nothing while the queue is full; says whether there is
        more. Raises what asking PostgreSQL raises; doing it again is safe."""
        await self._index.refresh()
        # What was appended later may be for a task that the index does not know of yet.
        upto, types = self._index.position, sorted(self._index.event_types())
        # With nobody listening the position follows slowly: old events are for nobody (log_triggers.py).
        if upto - self._followed < (1 if types else STRETCH):
            return False  # most of the time, so the row is not asked for
        if types and await self._pressure.hold():
            async with self._system.pool.acquire() as connection:
                self._followed = await connection.fetchval(_POSITION)
            REACTIONS_LAG.set(upto - self._followed)
            return False
        async with self._system.pool.acquire() as connection, connection.transaction():
            position = await connection.fetchval(f"{_POSITION} FOR UPDATE SKIP LOCKED")
            if position is None:
                return False
            self._followed = position
            if upto - position < (1 if types else STRETCH):
                return False
            reached = upto
            if types:
                reached = min(upto, position + STRETCH)
                rows = await connection.fetch(_FOUND, position, reached, types, BATCH)
                events = [to_event(row) for row in rows]
                if len(events) == BATCH:
                    reached = events[-1].position
                await self._record(connection, events)
            await connection.execute("UPDATE log_readers SET position = $1 WHERE name = 'events'", reached)
        self._followed = reached
        REACTIONS_LAG.set(upto - reached if types else 0)
        return bool(reached < upto)

    async def _until_room(self) -> float:
        return LEAST_SECONDS if self._pressure.held else self._system.settings.poll_seconds

    async def _record(self, connection: Connection, events: Sequence[Event]) -> None:
        """Put the verdicts on these events into the log: when it returns, all of them are there."""
        first = await read_first(connection, sorted({event.stream for event in events}))
        waiting = list(events)
        while waiting:
            decided = [(event, one) for event in waiting for one in self._decide(event, first[event.stream])]
            outcomes = await self._system.appender.attempt_all([append for _, append in decided])
            waiting, refused = [], []
            for (event, append), outcome in zip(decided, outcomes, strict=True):
                if isinstance(outcome, REFUSED):
                    depth = append.events[0].data.get("depth", 0)
                    refused.append(_rejected(event, append, f"it cannot be stored: {outcome}", depth))
                elif has_verdict(append, outcome):
                    self.matched += isinstance(outcome, Appended)
                elif isinstance(outcome, VersionConflict):
                    # The task has just changed.
                    if event not in waiting:
                        waiting.append(event)
                elif isinstance(outcome, Exception):
                    raise outcome
            for outcome in await self._system.appender.attempt_all(refused):
                if isinstance(outcome, REFUSED):
                    logger.error("intake.rejection_refused", reason=str(outcome))
                elif isinstance(outcome, Exception) and not isinstance(outcome, VersionConflict):
                    raise outcome
            if waiting:
                await self._index.refresh()

    def _decide(self, event: Event, first: Event) -> Iterator[Append]:
        listening = self._index.listening_to_event(event.type, event.space)
        return decide_event(event, first, listening, now=self._system.time.now())


def _rejected(event: Event, append: Append, reason: str, depth: int) -> Append:
    data = append.events[0].data
    about = {"task": data["task"], "name": data["name"]}
    return rejection(event, append.stream.removeprefix("run-"), about, reason, depth)
