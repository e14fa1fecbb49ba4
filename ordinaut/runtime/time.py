"""The time, as the database tells it.

Machines disagree about the time and step their clocks; every instant Ordinaut decides by is
PostgreSQL's. Asking for each would be a round trip, so the difference to this machine's monotonic
clock is measured now and then: stepping the wall clock changes nothing here.
"""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import asyncpg

from ordinaut.log.database import OUTAGE

RESYNC_SECONDS = 10.0


class DatabaseTime:
    """`now()` is PostgreSQL's time within about the duration of one round trip."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._at = datetime.now(UTC)
        self._monotonic = time.monotonic()

    def now(self) -> datetime:
        """The time (UTC, aware)."""
        return self._at + timedelta(seconds=time.monotonic() - self._monotonic)

    async def sync(self) -> None:
        """Measure the difference anew; raises what asking the database raises."""
        async with self._pool.acquire() as connection:
            before = time.monotonic()
            at: datetime = await connection.fetchval("SELECT clock_timestamp()")
            after = time.monotonic()
        self._at, self._monotonic = at, (before + after) / 2

    async def run(self, stop: asyncio.Event) -> None:
        """Keep measuring until told to stop; while the database is away the monotonic clock goes on."""
        while not stop.is_set():
            with suppress(*OUTAGE):
                await self.sync()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RESYNC_SECONDS)
