"""The role `api`: serves HTTP inside the process it runs in."""

import asyncio
import contextlib
import socket
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import structlog
import uvicorn

from ordinaut.api.app import create_app
from ordinaut.api.door import Door, Trouble
from ordinaut.runtime.ports import PortTaken
from ordinaut.runtime.system import System

logger = structlog.get_logger(__name__)

BACKLOG = 2048
GRACE_SECONDS = 5
"""After the stop, how long requests that are under way may take to end."""

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open: longer than clients keep one in their pools (5 s to 60 s are
common). A server that gives up first closes connections just as a client is about to use them."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the process has its own, for all roles."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class Api:
    """The HTTP server. `tools`, `roles` and `troubles` are as in `create_app`."""

    def __init__(
        self,
        system: System,
        *,
        tools: Mapping[str, Mapping[str, Any]] | None = None,
        roles: Collection[str] = ("api",),
        troubles: Mapping[str, Trouble] | None = None,
    ) -> None:
        self._system = system
        self._app = create_app(system, tools=tools, roles=roles, troubles=troubles)
        self._door: Door = self._app.state.door
        self._socket: socket.socket | None = None

    def bind(self) -> str:
        """Take the address the settings name, and say where that is (`http://127.0.0.1:8080`): connections
        are kept waiting until `run`. Raises `PortTaken`. Done by `run` unless it was done before."""
        if self._socket is None:
            self._socket = _listen(self._system.settings.host, self._system.settings.port)
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop; then no new connections, live streams end, requests get
        `GRACE_SECONDS`."""
        url = self.bind()
        assert self._socket is not None
        config = uvicorn.Config(
            self._app, http="httptools", ws="none", lifespan="off", access_log=False, log_config=None,
            server_header=False, proxy_headers=False, backlog=BACKLOG, timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )  # fmt: skip
        server = _Server(config)
        logger.info("api.listening", url=url)
        serving = asyncio.create_task(server.serve(sockets=[self._socket]), name="uvicorn")
        stopped = asyncio.create_task(stop.wait(), name="api-stop")
        try:
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            self._door.stopping.set()
            server.should_exit = True
            await serving
        finally:
            for task in (stopped, serving):
                task.cancel()
            await asyncio.gather(stopped, serving, return_exceptions=True)
            await self._door.refusals.drain()
            self._socket.close()
            self._socket = None


def _listen(host: str, port: int) -> socket.socket:
    listening: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise PortTaken.by(error, "the API", host, port, "ORDINAUT_PORT") from None
    listening.setblocking(False)
    return listening
