"""taskiq with Redis Streams: acknowledged messages, no result backend, no argument parsing, uvloop.

There is no documented bulk call, so the burst keeps CONCURRENT `kiq` calls in flight.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any, ClassVar

import redis.asyncio
import uvloop

from benchmarks.peers import harness
from benchmarks.peers.taskiq.app import GROUP, QUEUE, broker, noop

CONCURRENT = 100
WORKERS = 2


class Taskiq(harness.Peer):
    """Producer side: `kiq`."""

    packages = ("taskiq", "taskiq-redis", "redis", "uvloop")
    settings: ClassVar[dict[str, Any]] = {
        "worker_processes": WORKERS,
        "max_async_tasks": 1000,
        "max_prefetch": 1000,
        "xread_count": 1000,
        "ack": "when executed",
        "concurrent_kiq": CONCURRENT,
    }

    async def prepare(self) -> None:
        await broker.startup()
        self.redis = redis.asyncio.Redis.from_url(harness.connection()[1])

    def workers(self) -> list[list[str]]:
        program = str(Path(sys.executable).with_name("taskiq"))
        what = [program, "worker", "benchmarks.peers.taskiq.app:broker", "--workers", str(WORKERS)]
        limits = ["--max-async-tasks", "1000", "--max-prefetch", "1000"]
        ways = ["--ack-type", "when_executed", "--no-parse", "--log-level", "WARNING"]
        return [[*what, *limits, *ways]]

    async def burst(self, jobs: int) -> None:
        async def some(count: int) -> None:
            for _ in range(count):
                await noop.kiq(0.0)

        share, rest = divmod(jobs, CONCURRENT)
        await asyncio.gather(*(some(share + (number < rest)) for number in range(CONCURRENT)))

    async def one(self, stamp: float) -> None:
        await noop.kiq(stamp)

    async def drained(self) -> bool:
        groups = await self.redis.xinfo_groups(QUEUE)
        group = next(group for group in groups if group["name"] == GROUP.encode())
        return group["pending"] == 0 and group.get("lag") == 0


if __name__ == "__main__":
    uvloop.install()
    harness.main(Taskiq())
