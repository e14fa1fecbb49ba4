"""Ordinaut, driven as the peers are: `XADD` is its enqueue call, `ordinaut serve` its workers.

A run's clock stops later than a peer's: every run is `RunSucceeded` in the log, every projection has folded
the log to its head, and the relay has published all of it on `ordinaut:log`.

Throughput runs `debug.echo`, which is what it is for. Latency runs a Python function offered by the entry
point group `ordinaut.tools`, so that its first line is the first line of the step's handler.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any, ClassVar
from urllib.parse import urlsplit

import asyncpg
import httpx
import orjson
import redis.asyncio
import uvloop

from benchmarks import serving
from benchmarks.peers import harness

BATCH = 1000
STREAM = "bench"
HIGH_WATER = 5000
"""Runs that wait at the most: docs/deployment.md says why a short queue is the faster one."""
EVENTS = 4
"""What a run leaves in the log, at least."""
LOG = "ordinaut:log"
LAYOUT = os.environ.get("BENCH_ORDINAUT_LAYOUT", "relay projector clock intake / worker api")
PROMPT = os.environ.get("BENCH_ORDINAUT_LAYOUT", "relay projector clock api / worker intake")
"""Where first steps must begin soon: see docs/deployment.md."""


class Ordinaut(harness.Peer):
    """Producer side: `XADD`, pipelined for the burst."""

    packages = ("fastapi", "asyncpg", "redis", "uvloop", "orjson")
    settings: ClassVar[dict[str, Any]] = {
        "processes": f"{LAYOUT} (latency: {PROMPT})",
        "worker_concurrency": serving.CONCURRENCY,
        "queue_high_water": HIGH_WATER,
        "xadd_pipeline": BATCH,
        "until": "projected and relayed",
    }

    def __init__(self, what: str) -> None:
        self.latency = what == "latency"
        self.port = serving.free_port()
        self.wanted = 0
        self.succeeded = 0
        self.counted = 0

    async def prepare(self) -> None:
        database, redis_url = harness.connection()
        self.key = await asyncio.to_thread(serving.prepare)
        self.pool = await asyncpg.create_pool(database, min_size=1, max_size=2)
        # A connection of its own, as pgqueuer's producer has: one from a pool is looked at before each use.
        self.redis = redis.asyncio.Redis.from_url(redis_url, single_connection_client=True)
        server = urlsplit(redis_url)
        self.reader, self.writer = await asyncio.open_connection(server.hostname, server.port)
        os.environ.update(serving.environment(self.port), ORDINAUT_QUEUE_HIGH_WATER=str(HIGH_WATER))

    def workers(self) -> list[list[str]]:
        layout = PROMPT if self.latency else LAYOUT
        return [[*serving.program(), "serve", *roles.split()] for roles in layout.split("/")]

    async def ready(self) -> None:
        uses = {"uses": "bench.noop"} if self.latency else {"uses": "debug.echo"}
        step = {"id": "noop", **uses, "with": {"stamp": "${input.stamp}"}}
        task = {"schedule": {"on": {"stream": STREAM}}, "pipeline": [step]}
        async with serving.client(self.port, self.key) as client:
            await serving.wait_ready(client)
            answer = await client.put("/v1/tasks/bench", json=task)
            if answer.is_error:
                raise RuntimeError(f"PUT /v1/tasks/bench answered {answer.status_code}: {answer.text}")
            await self._watched(client)

    async def _watched(self, client: httpx.AsyncClient) -> None:
        """An entry counts from when intake has made its group on the stream."""
        deadline = time.monotonic() + 30
        while True:
            try:
                if await self.redis.xinfo_groups(STREAM):
                    return
            except redis.asyncio.ResponseError:
                pass  # the stream is not there yet
            if time.monotonic() > deadline:
                raise RuntimeError(f"intake did not begin to read the stream {STREAM!r}")
            await asyncio.sleep(0.05)

    async def burst(self, jobs: int) -> None:
        """As Redis's documentation loads many at once: the commands in its protocol, a thousand at a time."""
        parts = (b"XADD", STREAM.encode(), b"*", b"data", orjson.dumps({"stamp": 0.0}))
        command = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self.wanted += jobs
        for start in range(0, jobs, BATCH):
            count = min(BATCH, jobs - start)
            self.writer.write(command * count)
            # Each answer is the entry's ID: its length on a line, itself on another.
            for _ in range(count):
                length = await self.reader.readline()
                if not length.startswith(b"$"):
                    raise RuntimeError(f"XADD answered {length.decode().strip()}")
                await self.reader.readline()

    async def one(self, stamp: float) -> None:
        self.wanted += 1
        await self.redis.xadd(STREAM, {b"data": orjson.dumps({"stamp": stamp})})

    async def ran(self, tally: Any) -> int:
        """Runs that are RunSucceeded in the log, counted from where the last call ended, and not before the
        log is long enough for all: counting takes from what is measured."""
        head = await self.pool.fetchval("SELECT position FROM log_head")
        if head < EVENTS * self.wanted:
            return self.succeeded
        query = "SELECT count(*), max(position) FROM events WHERE type = 'RunSucceeded' AND position > $1"
        row = await self.pool.fetchrow(query, self.counted)
        self.succeeded += row[0]
        self.counted = row[1] or self.counted
        return self.succeeded

    async def drained(self) -> bool:
        query = """SELECT position, (SELECT bool_and(c.position >= h.position) FROM projection_checkpoints c),
                          NOT EXISTS (SELECT FROM due_work) FROM log_head h"""
        head, projected, idle = await self.pool.fetchrow(query)
        if not (projected and idle):
            return False
        last = (await self.redis.xinfo_stream(LOG))["last-generated-id"]
        return int(last.partition(b"-")[0]) >= head


def main() -> None:
    """`throughput|latency JOBS RATE SECONDS`, as for every peer."""
    uvloop.install()
    try:
        peer = Ordinaut(sys.argv[1])
    except OSError as error:
        print(json.dumps({"failed": str(error)}))
        return
    harness.main(peer)


if __name__ == "__main__":
    main()
