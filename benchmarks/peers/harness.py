"""How a peer is driven. One definition of "throughput" and "latency" for all, Ordinaut included.

- *Throughput*: N no-op jobs are enqueued as fast as the fastest documented call allows, workers running
  and warm. The clock runs from just before the first enqueue until every handler has run and the peer's
  own storage says that no job is left; jobs per second = N / that.
- *Latency*: one enqueue call a job, `rate` a second, open loop (a slow call does not delay the next one).
  From just before the call until the first line of the job's handler, in another process. The first two
  seconds warm up and are not counted.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from benchmarks import measure

WARM_UP = 2.0
LOOK = 0.05
"""Seconds between two looks at whether all is done: a look costs some systems a query, and takes from what
is measured."""
GIVE_UP = 300.0


class Peer(ABC):
    """What a system's script says about itself and how it is driven."""

    packages: ClassVar[tuple[str, ...]]
    """The distributions whose versions are reported."""
    settings: ClassVar[dict[str, Any]]
    """What was set, in the peer's own words, for the report."""

    @abstractmethod
    async def prepare(self) -> None:
        """Creates the schema (or topology) in an empty database and connects."""

    @abstractmethod
    def workers(self) -> list[list[str]]:
        """The commands of the worker processes."""

    @abstractmethod
    async def burst(self, jobs: int) -> None:
        """Enqueues `jobs` jobs as fast as the API allows."""

    @abstractmethod
    async def one(self, stamp: float) -> None:
        """Enqueues one job that carries `stamp`."""

    @abstractmethod
    async def drained(self) -> bool:
        """Whether the storage holds no job that is waiting or not yet acknowledged."""

    async def ready(self) -> None:
        """Called when the workers were started: waits for what they must have done, if anything."""
        return None

    async def ran(self, tally: Path) -> int:
        """How many jobs have run so far."""
        return measure.executed(tally)


def connection() -> tuple[str, str]:
    """(PostgreSQL URL, Redis URL), as the benchmark told this process."""
    return os.environ["BENCH_DATABASE_URL"], os.environ["BENCH_REDIS_URL"]


async def settle(peer: Peer, tally: Path, expected: int, processes: list[subprocess.Popen[bytes]]) -> float:
    """Waits until `expected` jobs have run and the storage is drained; the instant this was seen."""
    deadline = time.monotonic() + GIVE_UP
    while await peer.ran(tally) < expected or not await peer.drained():
        dead = [process.args for process in processes if process.poll() is not None]
        if dead:
            raise RuntimeError(f"a worker ended on its own: {dead[0]}")
        if time.monotonic() > deadline:
            ran = await peer.ran(tally)
            raise RuntimeError(f"{ran} of {expected} jobs had run after {GIVE_UP:.0f} s")
        await asyncio.sleep(LOOK)
    return time.monotonic()


async def paced(peer: Peer, rate: int, seconds: float) -> tuple[float, int]:
    """Enqueues `rate` jobs a second; returns the instant from which on they count, and how many all were."""
    start = time.monotonic()
    calls = []
    for number in range(round(rate * (WARM_UP + seconds))):
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        calls.append(asyncio.create_task(peer.one(time.monotonic())))
    await asyncio.gather(*calls)
    return start + WARM_UP, len(calls)


async def measured(peer: Peer, what: str, jobs: int, rate: int, seconds: float) -> dict[str, Any]:
    """One figure of a peer, `what` being "throughput" or "latency", on a database that is its own."""
    await peer.prepare()
    with tempfile.TemporaryDirectory(prefix="bench-tally-") as directory:
        tally = Path(directory)
        with workers(peer.workers(), tally) as processes:
            await peer.ready()
            warm = min(500, jobs)
            await peer.burst(warm)
            await settle(peer, tally, warm, processes)
            start = time.monotonic()
            if what == "throughput":
                await peer.burst(jobs)
                ended = await settle(peer, tally, warm + jobs, processes)
                result = {"throughput": jobs / (ended - start), "jobs": jobs}
            else:
                since, jobs = await paced(peer, rate, seconds)
                await settle(peer, tally, warm + jobs, processes)
                waits = measure.latencies(tally, since)
                result = {
                    "latency_p50_ms": measure.percentile(waits, 0.50) * 1000,
                    "latency_p99_ms": measure.percentile(waits, 0.99) * 1000,
                    "samples": len(waits),
                }
            result["ran_twice"] = await peer.ran(tally) - warm - jobs
    versions = {name: version(name) for name in peer.packages}
    return {**result, "versions": versions, "settings": peer.settings}


@contextmanager
def workers(commands: list[list[str]], tally: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Runs the worker processes; an error that comes through carries the end of what they wrote."""
    environment = {**os.environ, "BENCH_TALLY": str(tally)}
    with tempfile.TemporaryFile() as log:
        processes = [
            subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            for command in commands
        ]
        try:
            yield processes
        except RuntimeError as error:
            log.seek(0)
            raise RuntimeError(f"{error}; its output ends: {log.read()[-1500:].decode()}") from error
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
            for process in processes:
                stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Waits for a process that was told to end, and ends it if it does not listen."""
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main(peer: Peer) -> None:
    """The peer's command line: `throughput|latency JOBS RATE SECONDS`; prints one line of JSON."""
    # As when interrupted from the keyboard: the workers end first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    what, jobs, rate, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    try:
        result = asyncio.run(measured(peer, what, jobs, rate, seconds))
    except Exception as error:
        result = {"failed": f"{type(error).__name__}: {error}"}
    print(json.dumps(result), flush=True)
