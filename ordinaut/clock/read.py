"""What the clock asks the database beside the table `schedules`' own queries."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from ordinaut.domain.events import RUN_ENDED
from ordinaut.log.append import Connection

# min() without a condition and with one are two index probes; they answer "how late?" and "when next?".
_LOOK = """
SELECT (SELECT min(next_fire_at) FROM schedules WHERE next_fire_at IS NOT NULL) AS oldest,
       (SELECT min(next_fire_at) FROM schedules WHERE next_fire_at > $1) AS following
"""

# `due_work` may lag behind the log: the requests it has not folded are read from the log itself. Which
# runs are over needs no such care, because their rows go in the transaction that ends them.
_UNFINISHED = """
SELECT task_id::text AS task, run_id::text AS run
  FROM due_work WHERE task_id = ANY ($1::text[]::uuid[]) AND scheduled
UNION
SELECT e.data->>'task', substr(e.stream, 5) FROM events e
 WHERE e.type = 'RunRequested'
   AND e.position > (SELECT position FROM projection_checkpoints WHERE name = 'due_work')
   AND e.data->>'task' = ANY ($1) AND e.data #>> '{cause,kind}' = 'schedule'
   AND NOT EXISTS (SELECT FROM events over WHERE over.stream = e.stream AND over.type = ANY ($2))
 ORDER BY 1, 2
"""


_COMING = """
SELECT task_id::text, next_fire_at, since_version FROM schedules
 WHERE (next_fire_at, task_id) > ($1, $2::uuid) AND next_fire_at > $1 - interval '1 microsecond'
   AND next_fire_at <= $3
 ORDER BY next_fire_at, task_id LIMIT $4
"""


async def coming(
    connection: Connection, after: tuple[datetime, str], until: datetime, limit: int
) -> list[Any]:
    """At most `limit` schedules (task_id, next_fire_at, since_version) planned up to `until`, in the order
    of their instants and tasks, behind the (instant, task id) `after`."""
    rows: list[Any] = await connection.fetch(_COMING, *after, until, limit)
    return rows


async def look(connection: Connection, now: datetime) -> tuple[datetime | None, datetime | None]:
    """The oldest planned instant of all, and the first one after `now`; None where there is none."""
    row = await connection.fetchrow(_LOOK, now)
    assert row is not None
    return row["oldest"], row["following"]


async def unfinished_scheduled_runs(
    connection: Connection, task_ids: Collection[str]
) -> dict[str, list[str]]:
    """By task, the ids of its runs from scheduled instants that have not ended, oldest first."""
    found: dict[str, list[str]] = {}
    if task_ids:
        for row in await connection.fetch(_UNFINISHED, list(task_ids), sorted(RUN_ENDED)):
            found.setdefault(row["task"], []).append(row["run"])
    return found


async def first_events(connection: Connection, streams: Collection[str]) -> Mapping[str, dict[str, Any]]:
    """The data of the first event of each stream; one that does not exist is missing."""
    rows = await connection.fetch(
        "SELECT stream, data FROM events WHERE stream = ANY ($1) AND version = 1", list(streams)
    )
    return {row["stream"]: row["data"] for row in rows}
