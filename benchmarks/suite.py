"""Runs the measurements: every one on servers shared by all and a database of its own.

Systems that a floor compares take turns (A B A B …) within one run, because a machine is never equally
fast twice; what counts is the median of the rounds.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import (
    backlog_bench,
    burst_bench,
    idle_bench,
    matching_bench,
    next_bench,
    post_bench,
    rebuild_bench,
    venvs,
)
from benchmarks.servers import Servers
from benchmarks.venvs import PEERS, ROOT

PARTS = (
    "throughput",
    "latency",
    "busy",
    "post",
    "rebuild",
    "idle",
    "burst",
    "next",
    "matching",
    "backlog",
)
COMPARED = ("throughput", "latency", "busy")
"""The parts that other systems are measured in as well; `busy` is latency at the higher rate, of the two only
that a floor compares."""

ORDINAUT_JOBS = 125_000
PEER_TIMEOUT = 600.0
END_SECONDS = 30.0


@dataclass(frozen=True)
class Plan:
    """How much is measured. `rounds` is for what floors compare; the other peers get one."""

    rounds: int = 3
    scale: float = 1.0
    rate: int = 100
    seconds: float = 15.0
    busy_rate: int = 1_000
    busy_seconds: float = 10.0
    posts: int = 5_000
    events: int = 1_000_000
    schedules: int = 1_000_000
    idle_seconds: float = 15.0
    due: int = 10_000
    backlogs: tuple[backlog_bench.Case, ...] = backlog_bench.CASES


QUICK = Plan(
    rounds=1,
    scale=0.1,
    seconds=4.0,
    busy_seconds=4.0,
    posts=1_000,
    events=100_000,
    schedules=100_000,
    idle_seconds=5.0,
    due=1_000,
    backlogs=backlog_bench.QUICK_CASES,
)

Row = dict[str, Any]
Measure = Callable[[], Awaitable[list[Row]]]


@dataclass
class Results:
    """Every round of every measurement, and why a system is missing if it is."""

    throughput: dict[str, list[Row]] = field(default_factory=dict)
    latency: dict[str, list[Row]] = field(default_factory=dict)
    busy: dict[str, list[Row]] = field(default_factory=dict)
    post: list[Row] = field(default_factory=list)
    rebuild: list[Row] = field(default_factory=list)
    idle: list[Row] = field(default_factory=list)
    burst: list[Row] = field(default_factory=list)
    next: list[Row] = field(default_factory=list)
    matching: list[Row] = field(default_factory=list)
    backlog: list[Row] = field(default_factory=list)
    took: dict[str, float] = field(default_factory=dict)
    """Seconds, by part."""
    failed: dict[str, str] = field(default_factory=dict)

    def median(self, rows: Iterable[Row] | None, key: str) -> float | None:
        """The median of `key` over `rows`; None when there are none."""
        values = [row[key] for row in rows or ()]
        return statistics.median(values) if values else None


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let a script that still runs end its workers, then itself."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), END_SECONDS)
    except TimeoutError:
        process.kill()


class Suite:
    """One benchmark run over `servers`; `tell` gets a line for whoever waits."""

    def __init__(self, servers: Servers, plan: Plan, tell: Callable[[str], None]) -> None:
        self.servers = servers
        self.plan = plan
        self.tell = tell
        self.results = Results()
        self._pythons: dict[str, Path] = {"ordinaut": Path(sys.executable)}

    async def run(self, parts: Iterable[str], systems: list[str]) -> Results:
        """Measures `parts` (of PARTS) for `systems` (`ordinaut` and names of PEERS)."""
        for peer in PEERS:
            if peer.name in systems:
                await self._install(peer)
        for part in parts:
            start = time.monotonic()
            if part in COMPARED:
                await self._compared(part, systems)
            elif "ordinaut" in systems:
                for measure in self._measures(part):
                    await self._own(part, measure)
            self.results.took[part] = time.monotonic() - start
        return self.results

    async def _install(self, peer: venvs.Peer) -> None:
        self.tell(f"{peer.name}: environment")
        try:
            self._pythons[peer.name] = await asyncio.to_thread(venvs.python_of, peer)
        except (RuntimeError, OSError) as error:
            self.results.failed[peer.name] = str(error)

    async def _compared(self, part: str, systems: list[str]) -> None:
        paired = [name for name in ("ordinaut", "pgqueuer") if name in systems]
        if part == "throughput":
            # A machine that did nothing has given memory back, and whoever is first pays for taking it again.
            for name in paired:
                await self._round(part, name, 0)
        for number in range(self.plan.rounds):
            for name in paired:
                await self._round(part, name, number + 1)
        for name in systems:
            if name not in paired and part != "busy":
                await self._round(part, name, 1)

    async def _round(self, part: str, name: str, number: int) -> None:
        if name not in self._pythons:
            return
        self.tell(f"{part}: {name}, {f'round {number}' if number else 'to warm up'}")
        jobs = next((peer.jobs for peer in PEERS if peer.name == name), ORDINAUT_JOBS)
        module = "benchmarks.ordinaut_bench" if name == "ordinaut" else f"benchmarks.peers.{name}"
        plan = self.plan
        what, rate, seconds = part, plan.rate, plan.seconds
        if part == "busy":
            what, rate, seconds = "latency", plan.busy_rate, plan.busy_seconds
        arguments = [what, str(round(jobs * plan.scale)), str(rate), str(seconds)]
        database, redis_url = await self.servers.fresh()
        try:
            result = await self._process(name, [module, *arguments], database, redis_url)
        finally:
            await self.servers.drop(database)
        if "failed" in result:
            self.results.failed[f"{name} ({part}, round {number})"] = result["failed"]
        elif number:
            getattr(self.results, part).setdefault(name, []).append(result)

    async def _process(self, name: str, command: list[str], database: str, redis_url: str) -> Row:
        """Runs a system's script; its last line is the result, anything else is a failure."""
        environment = {
            **os.environ,
            "BENCH_DATABASE_URL": database,
            "BENCH_REDIS_URL": redis_url,
            "PYTHONPATH": str(ROOT),
        }
        process = await asyncio.create_subprocess_exec(
            self._pythons[name],
            "-m",
            *command,
            env=environment,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), PEER_TIMEOUT)
        except TimeoutError:
            return {"failed": f"no result after {PEER_TIMEOUT:.0f} s"}
        finally:
            await _end(process)
        try:
            result: Row = json.loads(out.decode().strip().rpartition("\n")[2])
        except ValueError:
            return {"failed": f"exit code {process.returncode}: {(out + err).decode().strip()[-1500:]}"}
        return result

    async def _own(self, part: str, measure: Measure) -> None:
        database, redis_url = await self.servers.fresh()
        os.environ.update(BENCH_DATABASE_URL=database, BENCH_REDIS_URL=redis_url)
        self.tell(f"{part}: ordinaut")
        try:
            getattr(self.results, part).extend(await measure())
        except Exception as error:
            self.results.failed[part] = f"{type(error).__name__}: {error}"
        finally:
            await self.servers.drop(database)

    def _measures(self, part: str) -> list[Measure]:
        """What is to be measured for a part, each in a database of its own."""
        plan, tell = self.plan, self.tell
        if part == "backlog":
            return [partial(backlog_bench.measured, case, tell) for case in plan.backlogs]
        measures: dict[str, Measure] = {
            "post": partial(post_bench.measured, plan.posts, plan.rounds),
            "rebuild": partial(rebuild_bench.measured, plan.events, plan.rounds, tell),
            "idle": partial(idle_bench.measured, plan.schedules, plan.idle_seconds, tell),
            "burst": partial(burst_bench.measured, plan.due, tell),
            "next": partial(asyncio.to_thread, next_bench.measured),
            "matching": partial(asyncio.to_thread, matching_bench.measured),
        }
        return [measures[part]]
