"""The role `clock`: wakes when a schedule is due and has it fired.

APScheduler is the waker and runs the chores; *what* is due lives in the table `schedules`, so any number
of clocks may run. APScheduler goes by this machine's wall clock and the schedules by the database's time
(see runtime/time.py): the waiting time is what is carried over from one to the other, and a slow poll on
the event loop's own timers lies beneath, so that a stepped wall clock costs one poll at the most.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from ordinaut.clock.backfill import Backfills
from ordinaut.clock.fire import Fired, Firing
from ordinaut.clock.read import look
from ordinaut.clock.resume import BATCH, end_pauses
from ordinaut.log.database import OUTAGE
from ordinaut.log.wake import PROJECTED, Wake
from ordinaut.runtime.metrics import OCCURRENCES
from ordinaut.runtime.system import System
from projections import schedules, tasks

NEWS_SECONDS = 0.05
"""Changes of the table are looked at together: under load the projection announces many a second."""

FURTHEST = timedelta(hours=1)
"""How far ahead the waker is armed; the poll arms it again long before."""

CHORES_SECONDS = 600
ANSWERS_KEPT = timedelta(days=7)
"""How long an Idempotency-Key, or the id a sender gave to an event, is remembered with its answer."""

_SLACK = timedelta(milliseconds=1)
_WATCHED = (schedules.PROJECTION.name, tasks.PROJECTION.name, "")

logger = structlog.get_logger(__name__)


class Clock:
    """Fires what is due, ends the pauses that are over and carries out backfills, until told to stop.

    `lag` is how many seconds the oldest due schedule was overdue when last looked at; `fired` counts the
    runs requested and `skipped` the instants skipped by this process; `trouble` is a sentence while the
    database does not answer, else None.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._firing = Firing(system)
        self._wake = Wake()
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._news: asyncio.TimerHandle | None = None
        self.lag = 0.0
        self.fired = 0
        self.skipped = 0
        self.trouble: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Fire what is due and carry out backfills; outages of PostgreSQL are waited out."""
        async with asyncio.TaskGroup() as group:
            group.create_task(Backfills(self._system).run(stop), name="backfills")
            await self._keep_firing(stop)

    async def _keep_firing(self, stop: asyncio.Event) -> None:
        """Fire, arm the waker for what comes next, wait."""
        unhear = self._system.notifications.hear(PROJECTED, self._heard)
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self._wake.set())
        self._scheduler.add_job(
            self._forget_old_answers, IntervalTrigger(seconds=CHORES_SECONDS, timezone=UTC),
            next_run_time=datetime.now(UTC), coalesce=True, misfire_grace_time=None,
        )  # fmt: skip
        self._scheduler.start()
        try:
            while not stop.is_set():
                try:
                    await self._fire_all(stop)
                except OUTAGE as error:
                    self._report(f"{type(error).__name__}: {error}")
                else:
                    self._recovered()
                await self._wake.wait(self._system.settings.poll_seconds)
        finally:
            unhear()
            stopping.cancel()
            if self._news is not None:
                self._news.cancel()
            self._scheduler.shutdown(wait=False)
            await asyncio.sleep(0)  # APScheduler puts its end into the loop instead of doing it

    async def _fire_all(self, stop: asyncio.Event) -> None:
        """Fire until nothing is due that this clock can fire, then arm for the first that comes."""
        while await end_pauses(self._system) == BATCH and not stop.is_set():
            pass  # there may be more
        while True:
            now = self._system.time.now()
            async with self._system.pool.acquire() as connection:
                oldest, following = await look(connection, now)
                resumes = await tasks.next_pause_to_end(connection, now)
            self.lag = max(0.0, (now - oldest).total_seconds()) if oldest is not None else 0.0
            if stop.is_set():
                break
            if oldest is None or oldest > now:
                if await self._firing.prepare():
                    continue  # that took time: look again
                break
            done = await self._firing.fire_due()
            self._count(done)
            if not done.moved:
                break  # another clock has them, or the projection will correct them: it tells, or the poll
        coming = [at for at in (following, resumes) if at is not None]
        if coming:
            self._arm(min(coming))

    def _arm(self, due: datetime) -> None:
        ahead = min(max(due - self._system.time.now(), timedelta(0)), FURTHEST)
        self._scheduler.add_job(
            self._ring, DateTrigger(datetime.now(UTC) + ahead + _SLACK, timezone=UTC),
            id="due", replace_existing=True, misfire_grace_time=None,
        )  # fmt: skip

    async def _ring(self) -> None:
        # A coroutine, because APScheduler runs plain functions in a thread.
        self._wake.set()

    def _heard(self, payload: str) -> None:
        if payload in _WATCHED and self._news is None:
            self._news = asyncio.get_running_loop().call_later(NEWS_SECONDS, self._look_at_news)

    def _look_at_news(self) -> None:
        self._news = None
        self._wake.set()

    def _count(self, done: Fired) -> None:
        self.fired += done.fired
        self.skipped += done.skipped
        OCCURRENCES.labels("fired").inc(done.fired)
        OCCURRENCES.labels("skipped").inc(done.skipped)

    def _report(self, trouble: str) -> None:
        if self.trouble is None:
            logger.warning("clock.waits", reason=trouble)
        self.trouble = trouble

    def _recovered(self) -> None:
        if self.trouble is not None:
            logger.info("clock.recovered", lag=round(self.lag, 3))
        self.trouble = None

    async def _forget_old_answers(self) -> None:
        with suppress(*OUTAGE):  # the next time will do
            async with self._system.pool.acquire() as connection:
                await connection.execute(
                    "DELETE FROM idempotency_keys WHERE created_at < $1",
                    self._system.time.now() - ANSWERS_KEPT,
                )
