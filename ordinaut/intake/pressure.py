"""Flow control: no more is taken in, from Redis or from the log, than the queue can take.

Entries that are not read stay in their streams, and nothing piles up in the group's list of pending ones;
events of the log stay before the position of their reader. What is taken in becomes rows of `due_work`, from
which every lease has to choose.
"""

import time
from collections.abc import Callable

import asyncpg
import structlog

from ordinaut.runtime.metrics import HELD_BACK
from projections import due_work

GOES_ON_AT = 0.8
"""The share of the high-water mark that the queue must be down to before reading goes on."""

LEAST_SECONDS = 0.2
"""The queue is not counted more often than this, however near it is to the mark."""

SHARE = 20
"""Counting takes at most one part in so many of the time."""

logger = structlog.get_logger(__name__)


class Pressure:
    """Whether there is room in the queue. `held` says whether reading is held back, `waiting` how many runs
    waited when they were last counted (at most `high` of them are). `requested` tells how many this intake
    has asked for since its start: between two counts it tells how much has come at the most.

    Only what intake takes in is held back, never anything that a run in the queue needs for its end: workers
    alone empty the queue, so this cannot wait for itself.
    """

    def __init__(
        self, pool: asyncpg.Pool, high: int, every_seconds: float, requested: Callable[[], int]
    ) -> None:
        self._pool = pool
        self._every = every_seconds
        self._requested = requested
        self._asked = self._again = float("-inf")
        self._counted = 0
        self.high = high
        self.low = int(high * GOES_ON_AT)
        self.held = False
        self.waiting = 0

    @property
    def trouble(self) -> str | None:
        """A sentence while reading is held back."""
        if not self.held:
            return None
        return (
            f"{self.waiting} runs or more wait for workers: nothing is read from streams, and no task reacts"
            f" to events of the log, until there are {self.low} or fewer"
        )

    async def hold(self) -> bool:
        """Whether to hold back now. Raises what asking PostgreSQL raises."""
        now, requested = time.monotonic(), self._requested()
        full = self.waiting + requested - self._counted >= self.high
        if now >= self._again or (full and not self.held and now >= self._asked + LEAST_SECONDS):
            async with self._pool.acquire() as connection:
                self.waiting = await due_work.waiting(connection, self.high)
            self._counted, self._asked = requested, now
            self._set(self.waiting >= self.high if not self.held else self.waiting > self.low)
            # Workers may empty a queue in less than a second, and must not wait for what is held back.
            every = min(self._every, LEAST_SECONDS) if self.held else self._every
            self._again = now + max(every, SHARE * (time.monotonic() - now))
            return self.held
        return self.held or full

    def _set(self, held: bool) -> None:
        if held and not self.held:
            logger.warning("intake.held_back", waiting=self.waiting, until=self.low)
        elif self.held and not held:
            logger.info("intake.goes_on", waiting=self.waiting)
        self.held = held
        HELD_BACK.set(held)
