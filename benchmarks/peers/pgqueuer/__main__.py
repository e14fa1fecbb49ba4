"""pgqueuer as its performance guide sets it up: asyncpg, uvloop, batches of 1000, tuned autovacuum.

Durability stays `durable` (its default), since every system here runs with durable storage.
"""

import asyncio
import signal
import struct
import sys
from datetime import timedelta
from typing import Any, ClassVar

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks import measure
from benchmarks.peers import harness

BATCH = 1000
# What was faster on two cores: a second dequeuer helps a burst and gets in the way of a single job.
WORKERS = 2 if sys.argv[1] == "throughput" else 1
STAMP = struct.Struct("<d")


class Pgqueuer(harness.Peer):
    """Producer side: `Queries.enqueue` with lists, through a pool."""

    packages = ("pgqueuer", "asyncpg", "uvloop")
    settings: ClassVar[dict[str, Any]] = {
        "batch_size": BATCH,
        "enqueue_batch": BATCH,
        "worker_processes": "2 (latency: 1)",
        "durability": "durable",
        "autovac": True,
    }

    async def prepare(self) -> None:
        self.pool = await asyncpg.create_pool(harness.connection()[0], min_size=2, max_size=8)
        self.queries = Queries(AsyncpgPoolDriver(self.pool))
        await self.queries.install()
        await self.queries.optimize_autovacuum()

    def workers(self) -> list[list[str]]:
        return [[sys.executable, "-m", "benchmarks.peers.pgqueuer", "worker"]] * WORKERS

    async def burst(self, jobs: int) -> None:
        payload = STAMP.pack(0.0)
        for start in range(0, jobs, BATCH):
            count = min(BATCH, jobs - start)
            await self.queries.enqueue(["noop"] * count, [payload] * count, [0] * count)

    async def one(self, stamp: float) -> None:
        await self.queries.enqueue("noop", STAMP.pack(stamp))

    async def drained(self) -> bool:
        return not await self.pool.fetchval("SELECT EXISTS (SELECT FROM pgqueuer)")


async def work() -> None:
    """One worker: its own connection for dequeue and LISTEN, as the guide advises."""
    pgq = PgQueuer(AsyncpgDriver(await asyncpg.connect(harness.connection()[0])))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, pgq.shutdown.set)

    @pgq.entrypoint("noop")
    async def noop(job: Job) -> None:
        measure.hit(STAMP.unpack(job.payload or b"")[0])

    await pgq.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=30))


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        uvloop.run(work())
    else:
        uvloop.install()
        harness.main(Pgqueuer())
