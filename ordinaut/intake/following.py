"""Following the log: a step again and again, woken by appends, through outages of PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from ordinaut.intake.record import AWAY
from ordinaut.log.wake import LOG, Wake
from ordinaut.runtime.system import System

NEWS_SECONDS = 0.05
"""Appends are looked at together: under load there are many a second."""

logger = structlog.get_logger(__name__)


async def follow(
    system: System,
    stop: asyncio.Event,
    step: Callable[[], Awaitable[bool]],
    *,
    what: str,
    wait: Callable[[], Awaitable[float]] | None = None,
) -> None:
    """Do `step` until told to stop: at once again while it says that there is more, else when something was
    appended, or after `wait` says how many seconds, at most the poll's. `what` names it where PostgreSQL is
    away, which is waited out."""
    wake = Wake()
    unhear = system.notifications.hear(LOG, lambda _: wake.set())
    stopping = asyncio.create_task(stop.wait())
    stopping.add_done_callback(lambda _: wake.set())
    troubled = False
    try:
        while not stop.is_set():
            seconds = system.settings.poll_seconds
            try:
                more = await step()
                if not more and wait is not None:
                    seconds = min(seconds, await wait())
                troubled = False
            except AWAY as error:
                more = False
                if not troubled:
                    troubled = True
                    logger.warning("intake.waits", what=what, reason=str(error) or type(error).__name__)
            if not more:
                await wake.wait(seconds)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), NEWS_SECONDS)
    finally:
        unhear()
        stopping.cancel()
