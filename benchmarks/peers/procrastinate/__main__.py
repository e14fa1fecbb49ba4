"""procrastinate: async tasks with concurrency, LISTEN/NOTIFY, bulk defer, finished jobs deleted."""

import asyncio
import sys
from typing import Any, ClassVar

from procrastinate import App, PsycopgConnector

from benchmarks import measure
from benchmarks.peers import harness

BATCH = 1000
CONCURRENCY = 20
WORKERS = 2

app = App(connector=PsycopgConnector(conninfo=harness.connection()[0], min_size=4, max_size=CONCURRENCY + 4))


@app.task(name="noop")
async def noop(stamp: float) -> None:
    """Does nothing, and says when it began."""
    measure.hit(stamp)


class Procrastinate(harness.Peer):
    """Producer side: `batch_defer_async` and `defer_async`."""

    packages = ("procrastinate", "psycopg", "psycopg-pool")
    settings: ClassVar[dict[str, Any]] = {
        "worker_processes": WORKERS,
        "concurrency": CONCURRENCY,
        "batch_defer": BATCH,
        "listen_notify": True,
        "delete_jobs": "successful",
        "psycopg": "binary",
    }

    async def prepare(self) -> None:
        await app.open_async()
        await app.schema_manager.apply_schema_async()

    def workers(self) -> list[list[str]]:
        return [[sys.executable, "-m", "benchmarks.peers.procrastinate", "worker"]] * WORKERS

    async def burst(self, jobs: int) -> None:
        for start in range(0, jobs, BATCH):
            await noop.batch_defer_async(*[{"stamp": 0.0}] * min(BATCH, jobs - start))

    async def one(self, stamp: float) -> None:
        await noop.defer_async(stamp=stamp)

    async def drained(self) -> bool:
        query = "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing')) AS busy"
        return not (await app.connector.execute_query_one_async(query))["busy"]


async def work() -> None:
    """One worker process."""
    async with app.open_async():
        await app.run_worker_async(
            concurrency=CONCURRENCY, listen_notify=True, delete_jobs="successful", wait=True
        )


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        asyncio.run(work())
    else:
        harness.main(Procrastinate())
