"""Wake-ups by LISTEN/NOTIFY: hints that something may be new, never the news itself.

A wake-up may be lost (the listening connection breaks, the server restarts), so whoever waits also
looks by itself every `poll_seconds`.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from ordinaut.log.database import CONNECT_SECONDS, OUTAGE, connect

LOG = "ordinaut_log"
PROJECTED = "ordinaut_projected"
CANCELED = "ordinaut_canceled"
CHANNELS = (LOG, PROJECTED, CANCELED)

Hearer = Callable[[str], None]

logger = structlog.get_logger(__name__)


class Wake:
    """An event that many may wait for; setting it wakes all, waiting clears it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake whoever waits, or the next who will."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Wait to be woken, at most `seconds`; says whether it was woken."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True

    def take(self) -> bool:
        """Whether it was woken since the last wait, without waiting; that is then forgotten."""
        woken = self._event.is_set()
        self._event.clear()
        return woken


class Notifications:
    """One LISTEN connection a process; hearers are called with the payload of each notification.

    After a reconnect every hearer is called once with an empty payload, because notifications may
    have been missed. The log says once that the database cannot be reached, and once that it can again.
    """

    def __init__(self, database_url: str, connect_seconds: float = CONNECT_SECONDS) -> None:
        self._url = database_url
        self._connect_seconds = connect_seconds
        self._hearers: dict[str, list[Hearer]] = {channel: [] for channel in CHANNELS}
        self._lost = False

    def hear(self, channel: str, hearer: Hearer) -> Callable[[], None]:
        """Call `hearer` at each notification on `channel`; the function returned ends that."""
        self._hearers[channel].append(hearer)
        return lambda: self._hearers[channel].remove(hearer)

    def _dispatch(self, channel: str, payload: str) -> None:
        for hearer in tuple(self._hearers[channel]):
            hearer(payload)

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until `stop` is set, connecting again whenever the connection is lost."""
        while not stop.is_set():
            try:
                await self._listen(stop)
            except OUTAGE as error:
                if not self._lost:
                    logger.warning("notifications.lost", error=str(error) or type(error).__name__)
                self._lost = True
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 0.5)

    async def _listen(self, stop: asyncio.Event) -> None:
        connection = await connect(self._url, timeout=self._connect_seconds)
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            for channel in CHANNELS:
                await connection.add_listener(channel, self._heard)
            if self._lost:
                logger.info("notifications.recovered")
            self._lost = False
            for channel in CHANNELS:
                self._dispatch(channel, "")
            ended = [asyncio.create_task(stop.wait()), asyncio.create_task(lost.wait())]
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.cancel()
        finally:
            with suppress(*OUTAGE):
                await connection.close(timeout=2)

    def _heard(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        self._dispatch(channel, str(payload))
