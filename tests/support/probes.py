"""Tools that tests hold, count and let fail, and an HTTP server that remembers what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ordinaut.work.tools.base import StepContext, Tool
from ordinaut.work.tools.errors import ToolError


class Probe:
    """A tool `test.<name>` that remembers its calls. It answers with what it was given, fails while
    `failures` holds errors, holds each call while `holding`, until `let_go`, and then takes
    `seconds()`. `most` is how many calls there were at once."""

    def __init__(
        self, name: str = "probe", *, holding: bool = False, seconds: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.calls: list[StepContext] = []
        self.given: list[Any] = []
        self.finished: list[str] = []
        self.canceled: list[str] = []
        self.failures: list[Exception] = []
        self.most = 0
        self._inside = 0
        self._seconds = seconds
        self._open = asyncio.Event()
        if not holding:
            self._open.set()
        self.tool = Tool(f"test.{name}", "For tests.", {}, {}, self._call, sample_output="sample")

    def let_go(self) -> None:
        """Let every call that is held, and all later ones, go on."""
        self._open.set()

    def hold(self) -> None:
        """Hold the calls from now on."""
        self._open.clear()

    async def _call(self, given: Any, ctx: StepContext) -> Any:
        self.calls.append(ctx)
        self.given.append(given)
        self._inside += 1
        self.most = max(self.most, self._inside)
        try:
            await self._open.wait()
            await asyncio.sleep(self._seconds())
        except asyncio.CancelledError:
            self.canceled.append(ctx.run_id)
            raise
        finally:
            self._inside -= 1
        if self.failures:
            raise self.failures.pop(0)
        self.finished.append(ctx.run_id)
        return given


def passing(message: str = "not now", **more: Any) -> ToolError:
    """An error that another attempt may not meet."""
    return ToolError(message, retryable=True, **more)


def lasting(message: str = "never") -> ToolError:
    """An error that every attempt would meet."""
    return ToolError(message, retryable=False)


@dataclass
class Asked:
    """One request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


Reply = tuple[int, dict[str, str], Any]


@dataclass
class HttpProbe:
    """`answer(request)` gives (status, headers, JSON body). Answers are held while `open` is not set."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answer: Callable[[Asked], Reply] = lambda asked: (200, {}, {})
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's only request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            method, path, _ = first.split(" ")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            asked = Asked(method, path, headers, json.loads(body) if body else None)
            self.asked.append(asked)
            await self.open.wait()
            status, more, content = self.answer(asked)
            payload = json.dumps(content).encode()
            told = {
                "Content-Length": str(len(payload)),
                "Content-Type": "application/json",
                "Connection": "close",
                **more,
            }
            told_lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
            writer.write(f"HTTP/1.1 {status} Told\r\n{told_lines}\r\n".encode() + payload)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def http_probe() -> AsyncIterator[HttpProbe]:
    """A server on a free port of 127.0.0.1."""
    probe = HttpProbe()
    probe.open.set()
    listening = await asyncio.start_server(probe.serve, "127.0.0.1", 0)
    probe.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield probe
    finally:
        listening.close()
