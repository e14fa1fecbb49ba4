"""The time, as the database tells it.

Machines disagree about the time and step their clocks; every instant Ordinaut decides by is
PostgreSQL's. Asking for each would be a round trip, so the difference to this machine's monotonic
clock is measured now and then: stepping the wall clock changes nothing here.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from ordinaut.log.database import OUTAGE

RESYNC_SECONDS = 10.0

SAMPLES = 3
"""How often the database is asked in a row: the first answer on a connection is the slowest."""

UNKNOWN = timedelta(days=365).total_seconds()
"""The round trip that stands for no measurement at all."""

DRIFT = 1e-4
"""Seconds a second by which two machines' clocks may run apart: what cheap quartz does."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The database said `at` about when the monotonic clock here said `monotonic`.

    It was asked and had answered within `round_trip` seconds, of which `monotonic` is the middle: so at
    that moment the measurement was wrong by half of them at the most.
    """

    at: datetime
    monotonic: float
    round_trip: float

    def time(self, monotonic: float) -> datetime:
        """The database's time when the monotonic clock says this."""
        return self.at + timedelta(0, monotonic - self.monotonic)  # by name it takes twice as long

    def error(self, monotonic: float) -> float:
        """By how many seconds `time(monotonic)` may be wrong: what is measured ages."""
        return self.round_trip / 2 + DRIFT * abs(monotonic - self.monotonic)


def better(known: Measurement, new: Measurement) -> Measurement:
    """The one to go by from now on: that which may be less wrong, so a hurried answer is not replaced by
    one that a busy machine was late to hear, until it has aged.

    When they cannot both be right, somebody set the database's clock (or it is another server by now, or
    this machine slept), and only the new one can be.
    """
    now = new.monotonic
    apart = abs((new.at - known.time(now)).total_seconds())
    if apart > known.error(now) + new.error(now) or new.error(now) <= known.error(now):
        return new
    return known


class DatabaseTime:
    """`now()` is PostgreSQL's time within about the duration of one round trip."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        # Until it was measured: this machine's time, which any measurement is better than.
        self._known = Measurement(datetime.now(UTC), time.monotonic(), UNKNOWN)

    def now(self) -> datetime:
        """The time (UTC, aware)."""
        return self._known.time(time.monotonic())

    def reached(self) -> datetime:
        """An instant (UTC, aware) that the database's clock has surely reached: `now()` less what it may be
        wrong by. What is recorded as having been at this instant is not recorded before it."""
        monotonic = time.monotonic()
        known = self._known
        return known.time(monotonic) - timedelta(seconds=known.error(monotonic))

    async def sync(self) -> None:
        """Measure the difference anew; raises what asking the database raises."""
        async with self._pool.acquire() as connection:
            for _ in range(SAMPLES):
                before = time.monotonic()
                at: datetime = await connection.fetchval("SELECT clock_timestamp()")
                after = time.monotonic()
                self._known = better(self._known, Measurement(at, (before + after) / 2, after - before))

    async def run(self, stop: asyncio.Event) -> None:
        """Keep measuring until told to stop; while the database is away the monotonic clock goes on."""
        while not stop.is_set():
            with suppress(*OUTAGE):
                await self.sync()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RESYNC_SECONDS)
