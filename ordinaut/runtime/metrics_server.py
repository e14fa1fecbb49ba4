"""`/metrics` of a process on a port of its own, whichever roles it runs."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import structlog
from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.registry import Collector

from ordinaut.runtime.metrics import REGISTRY, SystemGauges
from ordinaut.runtime.ports import PortTaken
from ordinaut.runtime.system import System

ANSWER_SECONDS = 5.0
"""How long a scrape waits for the gauges about the whole system; then they are as they were last."""

logger = structlog.get_logger(__name__)


class _Asking(Collector):
    """Everything in `REGISTRY`, once the gauges about the whole system were asked for in the event loop.

    Scrapes are answered in threads of their own, so that a busy loop is seen and not waited for.
    """

    def __init__(self, gauges: SystemGauges, loop: asyncio.AbstractEventLoop) -> None:
        self._gauges = gauges
        self._loop = loop

    def collect(self) -> Iterable[Metric]:
        """What was measured until now."""
        asked = asyncio.run_coroutine_threadsafe(self._gauges.refresh(), self._loop)
        try:
            asked.result(ANSWER_SECONDS)
        except TimeoutError:
            asked.cancel()
        return REGISTRY.collect()


@asynccontextmanager
async def metrics_served(system: System) -> AsyncIterator[None]:
    """Serve /metrics on the settings' `metrics_port` while the block runs; without one do nothing.

    Raises `PortTaken` when it cannot listen there.
    """
    host, port = system.settings.host, system.settings.metrics_port
    if port is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(_Asking(SystemGauges(system.pool, system.redis), asyncio.get_running_loop()))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise PortTaken.by(error, "the metrics", host, port, "ORDINAUT_METRICS_PORT") from None
    logger.info("metrics.listening", url=f"http://{host}:{port}/metrics")
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
