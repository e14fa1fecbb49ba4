"""The table `occurrences`: what became of each instant a schedule named (I8)."""

from datetime import datetime
from typing import Any

from ordinaut.log.append import Connection
from projections.base import Fold, Projection, batch

DDL = """
CREATE TABLE occurrences (
    task_id      uuid        NOT NULL,
    at           timestamptz NOT NULL,
    until        timestamptz NOT NULL,
    count        bigint      NOT NULL,
    space        text        NOT NULL,
    run_id       uuid        NOT NULL,
    verdict      text        NOT NULL,
    reason       text,
    lateness     double precision,
    task_version int         NOT NULL,
    decided_at   timestamptz NOT NULL,
    PRIMARY KEY (task_id, at)
);
"""

OCCURS = frozenset({"RunRequested", "OccurrenceSkipped"})

# A skip may stand for a range of instants (an outage of `every: 1s`): from `at` to `until`, `count` of
# them. A fired occurrence stands for itself.
ADD = f"""
INSERT INTO occurrences
SELECT (data->>'task')::uuid, coalesce((data->>'from')::timestamptz, (data#>>'{{cause,at}}')::timestamptz),
       coalesce((data->>'to')::timestamptz, (data#>>'{{cause,at}}')::timestamptz),
       coalesce((data->>'count')::bigint, 1), space, substr(stream, 5)::uuid,
       CASE type WHEN 'RunRequested' THEN 'fired' ELSE 'skipped' END, data->>'reason',
       (data#>>'{{cause,lateness}}')::double precision, (data->>'task_version')::int, at
  FROM ({batch(OCCURS)}) AS e
 WHERE data#>>'{{cause,kind}}' = 'schedule'
 ORDER BY position
ON CONFLICT (task_id, at) DO NOTHING
"""

PROJECTION = Projection("occurrences", version=1, ddl=DDL, folds=[Fold(OCCURS, ADD)])


async def list_occurrences(
    connection: Connection, task_id: str, *, since: datetime, until: datetime, limit: int
) -> list[dict[str, Any]]:
    """Past verdicts on a task's scheduled instants from `since` up to `until`, oldest first."""
    rows = await connection.fetch(
        """SELECT * FROM occurrences WHERE task_id = $1::uuid AND until >= $2 AND at < $3
            ORDER BY at LIMIT $4""",
        task_id, since, until, limit,
    )  # fmt: skip
    return [public(row) for row in rows]


async def latest_occurrences(
    connection: Connection, task_id: str, *, before: datetime, limit: int
) -> list[dict[str, Any]]:
    """The last `limit` verdicts before an instant, oldest first."""
    rows = await connection.fetch(
        "SELECT * FROM occurrences WHERE task_id = $1::uuid AND at < $2 ORDER BY at DESC LIMIT $3",
        task_id, before, limit,
    )  # fmt: skip
    return [public(row) for row in reversed(rows)]


def public(row: Any) -> dict[str, Any]:
    """A row as the API shows an occurrence. `lateness` is in seconds."""
    return {
        "at": row["at"].isoformat(),
        "until": row["until"].isoformat(),
        "count": row["count"],
        "verdict": row["verdict"],
        "reason": row["reason"],
        "run": str(row["run_id"]) if row["verdict"] == "fired" else None,
        "lateness": row["lateness"],
        "task_version": row["task_version"],
        "decided_at": row["decided_at"].isoformat(),
    }
