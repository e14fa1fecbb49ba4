"""DBOS: async no-op workflows on a queue without limits, polled every POLL seconds.

Its queues are polled, not notified, so the polling interval bounds the latency from below; the documented
default is one second, here it is as short as helped. A burst enqueues BATCH workflows a transaction.
"""

import asyncio
import signal
import sys
import threading
from typing import Any, ClassVar

import sqlalchemy
from dbos import DBOS, DBOSClient, EnqueueOptions, run_dbos_database_migrations

from benchmarks import measure
from benchmarks.peers import harness

BATCH = 1000
POLL = 0.01
QUEUE = "bench"
VERSION = "1"
DATABASE = harness.connection()[0]


@DBOS.workflow(name="noop")
async def noop(stamp: float) -> None:
    """Does nothing, and says when it began."""
    measure.hit(stamp)


class Dbos(harness.Peer):
    """Producer side: `DBOSClient`."""

    packages = ("dbos", "SQLAlchemy", "psycopg")
    settings: ClassVar[dict[str, Any]] = {
        "worker_processes": 1,
        "polling_interval_sec": POLL,
        "enqueued_per_transaction": BATCH,
        "workflow": "async",
        "sys_db_pool_size": 20,
    }

    async def prepare(self) -> None:
        await asyncio.to_thread(run_dbos_database_migrations, system_database_url=DATABASE)
        self.client = await asyncio.to_thread(DBOSClient, system_database_url=DATABASE)
        self.engine = sqlalchemy.create_engine(DATABASE.replace("postgresql:", "postgresql+psycopg:", 1))
        self.options: EnqueueOptions = {"workflow_name": "noop", "queue_name": QUEUE, "app_version": VERSION}

    def workers(self) -> list[list[str]]:
        return [[sys.executable, "-m", "benchmarks.peers.dbos", "worker"]]

    def _batch(self, count: int) -> None:
        with self.engine.begin() as connection:
            for _ in range(count):
                self.client.enqueue_in_transaction(connection, self.options, 0.0)

    async def burst(self, jobs: int) -> None:
        for start in range(0, jobs, BATCH):
            await asyncio.to_thread(self._batch, min(BATCH, jobs - start))

    async def one(self, stamp: float) -> None:
        await self.client.enqueue_async(self.options, stamp)

    async def drained(self) -> bool:
        query = "SELECT EXISTS (SELECT FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING'))"

        def busy() -> bool:
            with self.engine.connect() as connection:
                return bool(connection.execute(sqlalchemy.text(query)).scalar())

        return not await asyncio.to_thread(busy)


def work() -> None:
    """One worker process."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": DATABASE,
            "application_version": VERSION,
            "sys_db_pool_size": 20,
            "log_level": "WARNING",
        }
    )
    DBOS.launch()
    DBOS.register_queue(QUEUE, polling_interval_sec=POLL)
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    told.wait()
    DBOS.destroy()


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        work()
    else:
        harness.main(Dbos())
