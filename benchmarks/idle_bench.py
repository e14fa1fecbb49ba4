"""A clock with nothing to do and a table full of schedules: its processor time, and its memory.

The table `schedules` is filled by SQL with rows that are due an hour from now and later, a thousand first and
then a million; the role `clock` runs as a process of its own. What it takes is what the kernel counted for
that process, from a few seconds after its start on.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import psutil

from benchmarks import serving
from benchmarks.post_bench import running
from ordinaut.domain.schedules.zones import tz_version

FEW = 1_000
SETTLE = 3.0
"""Seconds a clock is left alone after its start."""

_FILL = """
INSERT INTO schedules (task_id, space, next_fire_at, since_version, tz)
SELECT gen_random_uuid(), 'default', now() + interval '1 hour' + n % 86400 * interval '1 second', 1, $2
  FROM generate_series(1, $1::int) AS n
"""


async def measured(schedules: int, seconds: float, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """One measurement with few schedules and one with many, in the database `serving.environment` names."""
    environment = serving.environment(0)
    await asyncio.to_thread(serving.prepare)
    result: dict[str, Any] = {"schedules": schedules}
    for number, suffix in ((FEW, "few"), (schedules, "many")):
        await _fill(environment["ORDINAUT_DATABASE_URL"], number)
        tell(f"idle: a clock with {number:,} schedules")
        share, memory = await _watched(environment, seconds)
        result |= {f"cpu_percent_{suffix}": share, f"rss_mb_{suffix}": memory}
    result["rss_ratio"] = result["rss_mb_many"] / result["rss_mb_few"]
    return [result]


async def _fill(database: str, number: int) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("TRUNCATE schedules")
        await connection.execute(_FILL, number, tz_version())
        await connection.execute("VACUUM ANALYZE schedules")
    finally:
        await connection.close()


async def _watched(environment: dict[str, str], seconds: float) -> tuple[float, float]:
    """(percent of a core, megabytes resident) of a clock over some seconds."""
    with running([*serving.program(), "serve", "clock"], environment) as pid:
        process = psutil.Process(pid)
        await asyncio.sleep(SETTLE)
        before, start = sum(process.cpu_times()[:2]), time.monotonic()
        await asyncio.sleep(seconds)
        used = sum(process.cpu_times()[:2]) - before
        return 100 * used / (time.monotonic() - start), process.memory_info().rss / 1e6
