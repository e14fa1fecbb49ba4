"""`ordinaut doctor` on spaces: which tasks are faster than their space allows by now?"""

import time
from collections.abc import AsyncIterator
from datetime import datetime

import asyncpg

from ordinaut.cli.finding import Finding
from ordinaut.domain.durations import format_duration
from ordinaut.domain.errors import Invalid
from ordinaut.domain.schedules.spec import parse_schedule
from ordinaut.domain.space import Space, fold
from ordinaut.log.read import read_stream
from ordinaut.runtime.spaces import too_near

SECONDS = 10.0
"""How long all schedules may take."""
MOST_TOLD = 20

_SPACES = "SELECT DISTINCT space, stream FROM events WHERE type = 'SpaceChanged' ORDER BY space"

_TASKS = """
SELECT DISTINCT t.name, t.created_at, t.definition->'schedule' AS schedule
  FROM tasks t JOIN schedules s ON s.task_id = t.id WHERE t.space = $1 ORDER BY t.name
"""


async def findings(connection: asyncpg.Connection) -> AsyncIterator[Finding]:
    """A line for each task that could not be given its schedule today, and a summary for each space."""
    deadline = time.monotonic() + SECONDS
    now: datetime = await connection.fetchval("SELECT now()")
    for row in await connection.fetch(_SPACES):
        space = fold(row["space"], await read_stream(connection, row["stream"]))
        if space.minimum_interval is not None:
            async for finding in _of_space(connection, space, now, deadline):
                yield finding


async def _of_space(
    connection: asyncpg.Connection, space: Space, now: datetime, deadline: float
) -> AsyncIterator[Finding]:
    assert space.minimum_interval is not None
    check, minimum = f"space {space.name}", format_duration(space.minimum_interval)
    rows = await connection.fetch(_TASKS, space.name)
    looked_at = too_fast = 0
    for row in rows:
        if time.monotonic() > deadline:
            break
        looked_at += 1
        try:
            rule = parse_schedule(row["schedule"], created_at=row["created_at"])
        except Invalid:
            continue  # the ledger's check says so
        if (fault := too_near(space, rule, now)) is None:
            continue
        too_fast += 1
        if too_fast <= MOST_TOLD:
            advice = f"the space's minimum is {minimum}: give the task a slower schedule"
            yield Finding(check, "warn", f"{row['name']} {fault.message}", advice)
    found = f"{looked_at - too_fast} of {len(rows)} schedules keep to the minimum interval of {minimum}"
    if too_fast > MOST_TOLD:
        found += f"; {too_fast - MOST_TOLD} more do not"
    if looked_at < len(rows):
        found += f"; {len(rows) - looked_at} were not looked at"
    yield Finding(check, "warn" if too_fast else "ok", found)
