"""A load generator for one route: keep-alive connections, one request in flight on each.

Raw sockets under asyncio, because a full HTTP client would cost more than the servers it measures. It
reads answers with a Content-Length, which is what both servers here send for small JSON.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import cast

_LENGTH = b"content-length:"


class _Connection(asyncio.Protocol):
    """Sends the next request when the answer to the last is complete."""

    def __init__(self, requests: Iterator[bytes], statuses: dict[int, int]) -> None:
        self._requests = requests
        self._statuses = statuses
        self._received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            if not self.done.done():
                self.done.set_result(None)
        else:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        lowered = head.lower()
        at = lowered.find(_LENGTH)
        length = int(lowered[at + len(_LENGTH) :].partition(b"\r\n")[0]) if at >= 0 else 0
        if len(body) < length:
            return
        status = int(head[9:12])
        self._statuses[status] = self._statuses.get(status, 0) + 1
        self._received = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed a connection"))


def request(port: int, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A POST with a JSON body, as bytes for the wire."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def throughput(port: int, requests: list[bytes], concurrency: int) -> tuple[float, dict[int, int]]:
    """Sends all requests, `concurrency` at a time: (answers per second, how many of each status)."""
    loop = asyncio.get_running_loop()
    statuses: dict[int, int] = {}
    pending = iter(requests)
    start = time.perf_counter()
    opened = [
        await loop.create_connection(lambda: _Connection(pending, statuses), "127.0.0.1", port)
        for _ in range(concurrency)
    ]
    await asyncio.gather(*(connection.done for _, connection in opened))
    return len(requests) / (time.perf_counter() - start), statuses
