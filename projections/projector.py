"""The projector: keeps every read table at the end of the log.

A batch of the log is folded and the checkpoint moved in one transaction, under the checkpoint's row
lock, so any number of projectors may run and no batch is folded twice. Nothing here needs Redis (I6).
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
import structlog

from ordinaut.log.append import Connection
from ordinaut.log.database import OUTAGE
from ordinaut.log.wake import LOG, PROJECTED, Notifications, Wake
from projections.base import Projection

BATCH = 5000

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """How far a projection got: it stands at `position` of a log that ended at `head`."""

    position: int
    head: int
    changed: bool


async def fold_range(connection: Connection, projection: Projection, after: int, upto: int) -> bool:
    """Fold the events after `after` up to `upto` into the table the search path names; says whether
    any of them concerned it."""
    present = {
        row[0]
        for row in await connection.fetch(
            "SELECT DISTINCT type FROM events WHERE position > $1 AND position <= $2", after, upto
        )
    }
    changed = False
    for fold in projection.folds:
        if not fold.types.isdisjoint(present):
            await connection.execute(fold.sql, after, upto)
            changed = True
    return changed


async def step(connection: Connection, projection: Projection, limit: int = BATCH) -> Step:
    """Fold the next batch, at most `limit` events, in one transaction."""
    async with connection.transaction():
        # A read table is as durable as it needs to be without a flush of its own: table and checkpoint
        # are in the same transaction, and whatever follows in the write-ahead log flushes them too.
        await connection.execute("SET LOCAL synchronous_commit = off")
        position = await connection.fetchval(
            "SELECT position FROM projection_checkpoints WHERE name = $1 FOR UPDATE", projection.name
        )
        if position is None:
            raise LookupError(f"projection {projection.name} has no table yet; run `ordinaut migrate`")
        # Read behind the lock, in a snapshot of its own: every event up to it is visible to the folds.
        head: int = await connection.fetchval("SELECT position FROM log_head")
        upto = min(head, position + limit)
        if upto <= position:
            return Step(position, head, False)
        changed = await fold_range(connection, projection, position, upto)
        await connection.execute(
            "UPDATE projection_checkpoints SET position = $2, updated_at = clock_timestamp()"
            " WHERE name = $1 AND position = $3",
            projection.name, upto, position,
        )  # fmt: skip
        if changed and projection.notifies:
            await connection.execute("SELECT pg_notify($1, $2)", PROJECTED, projection.name)
        return Step(upto, head, changed)


class Projector:
    """Runs every projection, each in a loop and on a connection of its own.

    `positions` and `lags` tell how far each is (in events); `folded` counts what this process folded.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        notifications: Notifications,
        projections: Sequence[Projection],
        *,
        poll_seconds: float,
    ) -> None:
        self._pool = pool
        self._notifications = notifications
        self._projections = projections
        self._poll_seconds = poll_seconds
        self.positions: dict[str, int] = {}
        self.lags: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the log until told to stop."""
        async with asyncio.TaskGroup() as group:
            for projection in self._projections:
                group.create_task(self._follow(projection, stop), name=f"projection-{projection.name}")

    async def _follow(self, projection: Projection, stop: asyncio.Event) -> None:
        wake = Wake()
        unhear = self._notifications.hear(LOG, lambda _: wake.set())
        try:
            while not stop.is_set():
                try:
                    behind = await self._advance(projection)
                except (LookupError, *OUTAGE) as error:
                    logger.warning("projection.waits", projection=projection.name, error=str(error))
                    behind = False
                if not behind:
                    await wake.wait(self._poll_seconds)
        finally:
            unhear()

    async def _advance(self, projection: Projection) -> bool:
        began = time.monotonic()
        async with self._pool.acquire() as connection:
            done = await step(connection, projection)
        self.seconds[projection.name] = time.monotonic() - began
        self.positions[projection.name] = done.position
        self.lags[projection.name] = done.head - done.position
        return done.position < done.head
