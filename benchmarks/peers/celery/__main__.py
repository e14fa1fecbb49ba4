"""Celery as its optimisation guide says for many short tasks: a high prefetch multiplier, no results,
no events, no gossip, mingle or heartbeat, prefork with one process a core.

Its defaults acknowledge early: a task whose worker is killed is lost, which the others here do not allow.
There is no bulk call for independent tasks; the burst calls `apply_async` with one producer held open.
"""

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import redis

from benchmarks.peers import harness
from benchmarks.peers.celery.app import app, noop

PROCESSES = os.cpu_count() or 2


class Celery(harness.Peer):
    """Producer side: `apply_async` on one held producer."""

    packages = ("celery", "kombu", "redis")
    settings: ClassVar[dict[str, Any]] = {
        "pool": f"prefork {PROCESSES}",
        "worker_prefetch_multiplier": 128,
        "task_ignore_result": True,
        "acks": "early (default)",
        "without": "gossip, mingle, heartbeat, events",
    }

    async def prepare(self) -> None:
        self.producer = app.amqp.producer_pool.acquire(block=True)
        self.redis = redis.Redis.from_url(harness.connection()[1])

    def workers(self) -> list[list[str]]:
        program = str(Path(sys.executable).with_name("celery"))
        options = f"-P prefork -c {PROCESSES} --without-gossip --without-mingle --without-heartbeat".split()
        return [[program, "-A", "benchmarks.peers.celery.app", "worker", "-l", "WARNING", *options]]

    async def burst(self, jobs: int) -> None:
        for _ in range(jobs):
            noop.apply_async((0.0,), producer=self.producer)

    async def one(self, stamp: float) -> None:
        noop.apply_async((stamp,), producer=self.producer)

    async def drained(self) -> bool:
        return self.redis.llen("celery") == 0 and self.redis.hlen("unacked") == 0


if __name__ == "__main__":
    harness.main(Celery())
