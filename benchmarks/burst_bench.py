"""Ten thousand tasks due in the same second: how long after that instant each is a row in `due_work`.

The tasks are in the log and folded before; the roles `clock`, `projector` and `relay` run, each as a process
of its own. `due_work` is written in the transaction that appends, which tells when it commits (NOTIFY): from
then on a run's row can be seen. Nominal instant and notification are read from one machine's clocks.

Beside it APScheduler with its store in memory and as many jobs, one process and nothing durable: how long
after the instant each job's function is called.
"""

import asyncio
import json
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

from benchmarks import serving
from benchmarks.measure import percentile
from benchmarks.post_bench import running
from benchmarks.venvs import ROOT
from ordinaut.domain import ids, task
from ordinaut.domain.definition import parse_definition
from ordinaut.domain.schedules.zones import tz_version
from ordinaut.log.append import Append, Appended
from ordinaut.log.appender import Appender
from ordinaut.log.wake import LOG

ROLES = ("clock", "projector", "relay")
AHEAD = 7.0
"""Seconds before the instant by which all is in place: the clock reads ahead what is due within five."""

BATCH = 2000
DOCUMENT = {
    "name": "bench",
    "pipeline": [{"id": "noop", "uses": "debug.echo"}],
}
ZONES = ("UTC", "Europe/Chisinau", "America/New_York", "Asia/Tokyo", "Australia/Brisbane")
"""Of whole hours, so that one minute of the hour is the same instant in all of them."""


async def fill(database: str, tasks: int, at: datetime) -> None:
    """Puts tasks into the log that are due at `at`, and every hour from then on."""
    pool = await asyncpg.create_pool(database, min_size=1, max_size=2)
    try:
        appender, created_at = Appender(pool), datetime.now(UTC)
        schedules = [{"cron": f"{at.minute} * * * *", "timezone": zone} for zone in ZONES]
        schedules.append({"every": "1h", "anchor": at.isoformat()})
        documents = [{**DOCUMENT, "schedule": each} for each in schedules]
        definitions = [parse_definition(each, created_at=created_at, known_tools=None) for each in documents]
        normals, plan = [each.normalised() for each in definitions], [{"at": at.isoformat()}]
        for first in range(0, tasks, BATCH):
            appends = []
            for number in range(first, min(first + BATCH, tasks)):
                name = f"bench-{number}"
                empty = task.Task(ids.task_id("default", name))
                normal = normals[number % len(normals)]
                events = task.create(empty, name, normal, plan, tz_version(), created_at=created_at)
                stream = task.task_stream(empty.id)
                appends.append(Append(stream, 0, events, "default", "key:bench", "bench"))
            outcomes = await appender.append_all(appends)
            if not all(isinstance(outcome, Appended) for outcome in outcomes):
                raise RuntimeError("a task is there already")
    finally:
        await pool.close()


async def folded(connection: asyncpg.Connection) -> None:
    """Waits until every projection has read the whole log."""
    query = "SELECT bool_and(position >= (SELECT position FROM log_head)) FROM projection_checkpoints"
    deadline = time.monotonic() + 60
    while not await connection.fetchval(query):
        if time.monotonic() > deadline:
            raise RuntimeError("the projections did not catch up within a minute")
        await asyncio.sleep(0.05)


async def ours(tasks: int) -> dict[str, Any]:
    """One burst in a fresh database."""
    serving.prepare()
    environment = serving.environment(0)
    database = environment["ORDINAUT_DATABASE_URL"]
    # The next full minute that leaves time to fill; a cron names whole minutes.
    at = (datetime.now(UTC) + timedelta(seconds=AHEAD + 8 + tasks / 1000)).replace(second=0, microsecond=0)
    at += timedelta(minutes=1)
    seen: list[tuple[int, float]] = []
    with ExitStack() as stack:
        for role in ROLES:
            stack.enter_context(running([*serving.program(), "serve", role], environment))
        connection = await asyncpg.connect(database)
        try:
            await fill(database, tasks, at)
            await folded(connection)
            if time.time() > at.timestamp() - AHEAD:
                raise RuntimeError("filling took too long: the instant is there already")
            await connection.execute("VACUUM ANALYZE")
            await connection.add_listener(
                LOG, lambda _connection, _pid, _channel, head: seen.append((int(head), time.time()))
            )
            await asyncio.sleep(max(0.0, at.timestamp() - time.time()))
            positions = await _requested(connection, tasks, at.timestamp() + 60)
        finally:
            await connection.close()
    heads = [head for head, _ in seen]
    waited = [seen[bisect_left(heads, position)][1] - at.timestamp() for position in positions]
    return _figures(waited)


async def _requested(connection: asyncpg.Connection, tasks: int, deadline: float) -> list[int]:
    """The positions of the runs' events, once they are all there."""
    while time.time() < deadline:
        await asyncio.sleep(1)
        count = await connection.fetchval("SELECT count(*) FROM due_work")
        if count == tasks:
            rows = await connection.fetch("SELECT position FROM events WHERE type = 'RunRequested'")
            return [row["position"] for row in rows]
    raise RuntimeError(f"{count} of {tasks} were in due_work a minute after the instant")


def _figures(waited: list[float]) -> dict[str, Any]:
    return {
        "p50_s": percentile(waited, 0.5),
        "p99_s": percentile(waited, 0.99),
        "max_s": max(waited),
        "jobs": len(waited),
    }


async def apscheduler(jobs: int) -> dict[str, Any]:
    """The same burst of APScheduler's, in this process."""
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=5 + jobs // 2000)
    waited: list[float] = []
    called = asyncio.Event()

    async def job() -> None:
        waited.append(time.time() - at.timestamp())
        if len(waited) == jobs:
            called.set()

    scheduler = AsyncIOScheduler(timezone=UTC)
    for _ in range(jobs):
        scheduler.add_job(job, DateTrigger(at), misfire_grace_time=None)
    scheduler.start()
    await asyncio.wait_for(called.wait(), at.timestamp() - time.time() + 60)
    scheduler.shutdown(wait=False)
    return _figures(waited)


def theirs(jobs: int) -> dict[str, Any]:
    """`apscheduler` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.burst_bench", str(jobs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-1500:])
    result: dict[str, Any] = json.loads(done.stdout)
    return result


async def measured(tasks: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """One burst of each, ours first."""
    tell(f"burst: {tasks:,} tasks due at one instant")
    result = await ours(tasks)
    tell(f"burst: APScheduler with {tasks:,} jobs in memory")
    other = await asyncio.to_thread(theirs, tasks)
    return [{**result, **{f"apscheduler_{name}": value for name, value in other.items()}}]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(apscheduler(int(sys.argv[1])))))
