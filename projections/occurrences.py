"""The table `occurrences`: what became of each instant a schedule named (I8)."""

from collections.abc import AsyncIterator, Sequence
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

LOOKED_BACK = 1000
"""How many verdicts back one is looked for whose range reaches into a time that is asked about: ranges do not
overlap, but for those of a few seconds around a change of the schedule."""

OCCURS = frozenset({"RunRequested", "OccurrenceSkipped"})

# What a backfill runs had its verdict, and keeps it, unless it was left out of the ledger.
IS_VERDICT = """CASE data#>>'{cause,kind}' WHEN 'schedule' THEN true
        WHEN 'backfill' THEN data#>>'{cause,verdict}' = 'none' ELSE false END"""

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
 WHERE {IS_VERDICT}
 ORDER BY position
ON CONFLICT (task_id, at) DO NOTHING
"""

# Asking for `until >= $2` alone would read all that a task has behind it.
_REACHING_INTO = """(SELECT * FROM (
     SELECT * FROM occurrences WHERE task_id = $1::uuid AND at < $2 ORDER BY at DESC LIMIT $4) AS earlier
     WHERE until >= $2 AND at < $3)"""

PROJECTION = Projection("occurrences", version=2, ddl=DDL, folds=[Fold(OCCURS, ADD)])


async def list_occurrences(
    connection: Connection, task_id: str, *, since: datetime, until: datetime, limit: int, reaching: bool
) -> list[dict[str, Any]]:
    """Past verdicts on a task's scheduled instants from `since` up to `until`, oldest first. `reaching`:
    those as well that begin before `since` and do not end before it."""
    rows = await connection.fetch(
        f"""SELECT * FROM (
              (SELECT * FROM occurrences WHERE task_id = $1::uuid AND at >= $2 AND at < $3
                ORDER BY at LIMIT $5)
              UNION ALL {_REACHING_INTO}) AS o
            ORDER BY at LIMIT $5""",
        task_id, since, until, LOOKED_BACK if reaching else 0, limit,
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


async def decided_until(connection: Connection, task_id: str) -> datetime | None:
    """The latest instant of a task that has a verdict."""
    at: datetime | None = await connection.fetchval(
        "SELECT until FROM occurrences WHERE task_id = $1::uuid ORDER BY at DESC LIMIT 1", task_id
    )
    return at


async def checkpoint(connection: Connection) -> int:
    """The position of the last event that is in the table."""
    position: int | None = await connection.fetchval(
        "SELECT position FROM projection_checkpoints WHERE name = $1", PROJECTION.name
    )
    return position or 0


async def verdicts_of(
    connection: Connection, task_id: str, since: datetime, unfolded: Sequence[Any]
) -> AsyncIterator[Any]:
    """A task's verdicts that do not end before `since`, oldest first, read bit by bit: those of the table
    with the `unfolded` ones, where the table has none of that instant. Needs a transaction."""
    later = list(unfolded)
    async for row in connection.cursor(
        """SELECT at, until, count, verdict, task_version FROM occurrences
            WHERE task_id = $1::uuid AND until >= $2 ORDER BY at""",
        task_id, since,
    ):  # fmt: skip
        while later and later[0]["at"] < row["at"]:
            yield later.pop(0)
        if later and later[0]["at"] == row["at"]:
            later.pop(0)
        yield row
    for row in later:
        yield row


async def skips_between(connection: Connection, task_id: str, since: datetime, until: datetime) -> list[Any]:
    """The skipped verdicts (at, until, task_version, reason) that may be about a task's instants from `since`
    up to `until` (not included), oldest first, whether the table has them yet or not."""
    rows = await connection.fetch(
        f"""SELECT at, until, task_version, reason FROM (
              SELECT * FROM occurrences WHERE task_id = $1::uuid AND at >= $2 AND at < $3
              UNION ALL {_REACHING_INTO}) AS o
            WHERE verdict = 'skipped'""",
        task_id, since, until, LOOKED_BACK,
    )  # fmt: skip
    unfolded = (await verdicts_unfolded(connection, [task_id])).get(task_id, [])
    known = {row["at"] for row in rows}
    rows += [row for row in unfolded if row["verdict"] == "skipped" and row["at"] not in known]
    return sorted(rows, key=lambda row: row["at"])


async def verdicts_unfolded(connection: Connection, task_ids: Sequence[str]) -> dict[str, list[Any]]:
    """By task, the verdicts that are in the log and not in the table yet, oldest first, one an instant."""
    rows = await connection.fetch(
        f"""SELECT DISTINCT ON (task_id, at) * FROM (
              SELECT data->>'task' AS task_id, position,
                     coalesce((data->>'from')::timestamptz, (data#>>'{{cause,at}}')::timestamptz) AS at,
                     coalesce((data->>'to')::timestamptz, (data#>>'{{cause,at}}')::timestamptz) AS until,
                     coalesce((data->>'count')::bigint, 1) AS count,
                     CASE type WHEN 'RunRequested' THEN 'fired' ELSE 'skipped' END AS verdict,
                     (data->>'task_version')::int AS task_version,
                     data->>'reason' AS reason
                FROM events
               WHERE position > $1 AND type = ANY ($2) AND data->>'task' = ANY ($3)
                 AND {IS_VERDICT}) AS e
            ORDER BY task_id, at, position""",
        await checkpoint(connection), sorted(OCCURS), list(task_ids),
    )  # fmt: skip
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row["task_id"], []).append(row)
    return found


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
