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
from ordinaut.log.wake import LOG, Notifications, Wake
from projections.base import Projection

BATCH = 20_000

LEAST_REST = 0.025
MAX_REST = 0.5
REST_AT = 20_000
"""A table rests after a batch, for as long as REST_AT events a second would take to give the next one of that
size, at least LEAST_REST seconds and at most MAX_REST. So under load it takes few large batches, in which a
run's four events are one insert; and a hundred runs a second, which append three hundred times, are folded
forty times. It ends when the log has been quiet for QUIET seconds."""
QUIET = 0.03

GIVE_WAY_SECONDS = 0.005
"""After a wake-up, before a batch: what woke the projector is often a run that a worker is about to begin.
Reading beside it would delay its first step by more than anybody notices in a list."""

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
    changed: bool = await connection.fetchval(f"SELECT ordinaut_fold_{projection.name}($1, $2)", after, upto)
    return changed


async def step(connection: Connection, projection: Projection, limit: int = BATCH) -> Step:
    """Fold the next batch, at most `limit` events, in one transaction and one round trip."""
    row = await connection.fetchrow(
        "SELECT * FROM project($1, $2, $3)", projection.name, limit, projection.notifies
    )
    if row is None or row["reached"] is None:
        raise LookupError(f"projection {projection.name} has no table yet; run `ordinaut migrate`")
    return Step(row["reached"], row["head"], row["folded"])


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
        self._waiting: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the log until told to stop."""
        async with asyncio.TaskGroup() as group:
            for projection in self._projections:
                group.create_task(self._follow(projection, stop), name=f"projection-{projection.name}")

    async def _follow(self, projection: Projection, stop: asyncio.Event) -> None:
        wake = Wake()
        # A synchronous table is at the end of the log already; the poll finds it when it is not.
        hear = (lambda _: None) if projection.synchronous else (lambda _: wake.set())
        unhear = self._notifications.hear(LOG, hear)
        try:
            while not stop.is_set():
                try:
                    await self._keep_up(projection, wake, stop)
                except (LookupError, *OUTAGE) as error:
                    reason = str(error) or type(error).__name__
                    if projection.name not in self._waiting:
                        logger.warning("projection.waits", projection=projection.name, error=reason)
                    self._waiting.add(projection.name)
                    await wake.wait(self._poll_seconds)
        finally:
            unhear()

    async def _rest(self, wake: Wake, seconds: float) -> bool:
        """Wait up to `seconds`, as long as the log goes on growing; says whether it has grown."""
        grown = False
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            # Not until woken: each append would wake the loop of every table, to wait again.
            await asyncio.sleep(min(left, QUIET))
            if not wake.take():
                break
            grown = True
        return grown

    async def _keep_up(self, projection: Projection, wake: Wake, stop: asyncio.Event) -> None:
        # A read table is as durable as it needs to be without a flush of its own: table and checkpoint
        # are one transaction, and whatever follows in the write-ahead log flushes them too.
        connection = await connect(self._url, synchronous_commit="off", work_mem="64MB")
        try:
            while not stop.is_set():
                began = time.monotonic()
                done = await step(connection, projection)
                if projection.name in self._waiting:
                    logger.info("projection.recovered", projection=projection.name)
                    self._waiting.remove(projection.name)
                self.seconds[projection.name] = time.monotonic() - began
                self.positions[projection.name] = done.position
                self.lags[projection.name] = done.head - done.position
                if done.position < done.head:
                    continue
                rest = min(MAX_REST, max(LEAST_REST, done.folded / REST_AT)) if done.folded else 0.0
                if not await self._rest(wake, rest):
                    await wake.wait(self._poll_seconds)
                    await asyncio.sleep(GIVE_WAY_SECONDS)
        finally:
            with suppress(*OUTAGE):
                await connection.close(timeout=2)
