"""The projector: keeps every read table at the end of the log.

A batch of the log is folded and the checkpoint moved in one transaction, under the checkpoint's row
lock, so any number of projectors may run and no batch is folded twice. Nothing here needs Redis (I6).
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from ordinaut.log.append import Connection
from ordinaut.log.database import OUTAGE, connect
from ordinaut.log.wake import LOG, PROJECTED, Notifications, Wake
from projections.base import Projection

BATCH = 5000

BUSY = 250
REST_SECONDS = 0.03
"""After a batch of more than BUSY events a table that nobody waits for rests a moment, so that under
load it takes few large batches instead of many small ones (a run's four events are then one insert)."""

# The head is read in a snapshot not newer than those of the folds that follow, so every event up to it
# is visible to them. Where another projector moved the checkpoint meanwhile, the lock gives its new value.
WHERE_WE_ARE = """
SELECT position, (SELECT position FROM log_head) AS head
  FROM projection_checkpoints WHERE name = $1 FOR UPDATE
"""
MOVE_ON = """
WITH moved AS (
    UPDATE projection_checkpoints SET position = $2, updated_at = clock_timestamp() WHERE name = $1
    RETURNING name
)
SELECT CASE WHEN $3 THEN pg_notify($4, name) END FROM moved
"""

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """What one batch did: the projection stands at `position` of a log that ended at `head`, and
    `folded` events were looked at."""

    position: int
    head: int
    folded: int


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
        place = await connection.fetchrow(WHERE_WE_ARE, projection.name)
        if place is None:
            raise LookupError(f"projection {projection.name} has no table yet; run `ordinaut migrate`")
        position, head = place["position"], place["head"]
        upto = min(head, position + limit)
        if upto <= position:
            return Step(position, position, 0)
        changed = await fold_range(connection, projection, position, upto)
        await connection.execute(MOVE_ON, projection.name, upto, changed and projection.notifies, PROJECTED)
        return Step(upto, head, upto - position)


class Projector:
    """Runs every projection, each in a loop and on a connection of its own.

    `positions` and `lags` tell how far each is (in events), `seconds` how long its last batch took.
    """

    def __init__(
        self,
        database_url: str,
        notifications: Notifications,
        projections: Sequence[Projection],
        *,
        poll_seconds: float,
    ) -> None:
        self._url = database_url
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
                    await self._keep_up(projection, wake, stop)
                except (LookupError, *OUTAGE) as error:
                    reason = str(error) or type(error).__name__
                    logger.warning("projection.waits", projection=projection.name, error=reason)
                    await wake.wait(self._poll_seconds)
        finally:
            unhear()

    async def _keep_up(self, projection: Projection, wake: Wake, stop: asyncio.Event) -> None:
        # A read table is as durable as it needs to be without a flush of its own: table and checkpoint
        # are one transaction, and whatever follows in the write-ahead log flushes them too.
        connection = await connect(self._url, synchronous_commit="off")
        try:
            while not stop.is_set():
                began = time.monotonic()
                done = await step(connection, projection)
                self.seconds[projection.name] = time.monotonic() - began
                self.positions[projection.name] = done.position
                self.lags[projection.name] = done.head - done.position
                if done.position < done.head:
                    continue
                if done.folded > BUSY and not projection.urgent:
                    await asyncio.sleep(REST_SECONDS)
                await wake.wait(self._poll_seconds)
        finally:
            with suppress(*OUTAGE):
                await connection.close(timeout=2)
