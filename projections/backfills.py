"""The table `backfills`: every backfill there was, and how far its runs have got."""

from collections.abc import Mapping
from typing import Any

from ordinaut.domain.backfill import Backfill
from ordinaut.domain.events import RUN_ENDED
from ordinaut.log.append import Connection
from projections.base import Fold, Projection, batch

DDL = """
CREATE TABLE backfills (
    id           uuid        PRIMARY KEY,
    position     bigint      NOT NULL,
    space        text        NOT NULL,
    task_id      uuid        NOT NULL,
    task         text        NOT NULL,
    state        text        NOT NULL,
    source       jsonb       NOT NULL,
    since        text,
    until        text,
    run_order    text        NOT NULL,
    max_parallel int         NOT NULL,
    rerun        boolean     NOT NULL,
    reason       text,
    counts       jsonb       NOT NULL,
    requested    int         NOT NULL,
    succeeded    int         NOT NULL,
    failed       int         NOT NULL,
    canceled     int         NOT NULL,
    parked       int         NOT NULL,
    requested_by text        NOT NULL,
    requested_at timestamptz NOT NULL,
    stopped_by   text,
    stop_reason  text,
    ended_at     timestamptz
);
CREATE INDEX ON backfills (space, position);
CREATE INDEX ON backfills (task_id, position);
CREATE INDEX ON backfills (position) WHERE state = 'running';
"""

BEGINS = frozenset({"BackfillRequested"})
ENDS = frozenset({"BackfillStopped", "BackfillFinished"})
REQUESTS = frozenset({"RunRequested"})
OUTCOMES = RUN_ENDED | {"RunRetryScheduled"}

ADD = f"""
INSERT INTO backfills
SELECT substr(stream, 10)::uuid, position, space, (data->>'task')::uuid, data->>'name', 'running',
       coalesce(data->'source', '{{"kind": "schedule"}}'), data->>'from', data->>'to', data->>'order',
       (data->>'max_parallel')::int, (data->>'rerun')::boolean, data->>'reason', data->'counts',
       0, 0, 0, 0, 0, actor, at, NULL, NULL, NULL
  FROM ({batch(BEGINS)}) AS e
ON CONFLICT (id) DO NOTHING
"""

END = f"""
UPDATE backfills SET state = CASE e.type WHEN 'BackfillStopped' THEN 'stopped' ELSE 'finished' END,
       stopped_by = CASE e.type WHEN 'BackfillStopped' THEN e.actor END,
       stop_reason = e.data->>'reason', ended_at = e.at
  FROM ({batch(ENDS)}) AS e
 WHERE id = substr(e.stream, 10)::uuid
"""

# Without a backfill in the table there is nothing to look for among the many events of other runs.
ANY = "(SELECT EXISTS (SELECT FROM backfills))"

REQUEST = f"""
UPDATE backfills SET requested = requested + e.more
  FROM (SELECT (data#>>'{{cause,backfill}}')::uuid AS backfill, count(*)::int AS more
          FROM ({batch(REQUESTS)}) AS r
         WHERE {ANY} AND data->'cause' ? 'backfill' GROUP BY 1) AS e
 WHERE id = e.backfill
"""

# What a run came to is counted when it ends, and taken back when it is opened again. Which backfill it is of
# stands in its first event; LIMIT keeps the planner to one look at an index for each.
OUTCOME = f"""
WITH changes AS (
    SELECT f.backfill, CASE WHEN e.type = 'RunRetryScheduled' THEN b.type ELSE e.type END AS type,
           CASE WHEN e.type = 'RunRetryScheduled' THEN -1 ELSE 1 END AS change
      FROM ({batch(OUTCOMES)}) AS e
     CROSS JOIN LATERAL (
        SELECT (data#>>'{{cause,backfill}}')::uuid AS backfill FROM events
         WHERE stream = e.stream AND version = 1 AND data->'cause' ? 'backfill' LIMIT 1) AS f
      LEFT JOIN LATERAL (
        SELECT type FROM events WHERE stream = e.stream AND version < e.version
           AND type IN ('RunSucceeded', 'RunFailed', 'RunCanceled', 'RunParked')
         ORDER BY version DESC LIMIT 1) AS b ON e.type = 'RunRetryScheduled'
     WHERE {ANY} AND (e.type <> 'RunRetryScheduled' OR e.data ? 'reopened')
       AND e.data->>'task' IN (SELECT task_id::text FROM backfills)
), sums AS (
    SELECT backfill, coalesce(sum(change) FILTER (WHERE type = 'RunSucceeded'), 0)::int AS succeeded,
           coalesce(sum(change) FILTER (WHERE type = 'RunFailed'), 0)::int AS failed,
           coalesce(sum(change) FILTER (WHERE type = 'RunCanceled'), 0)::int AS canceled,
           coalesce(sum(change) FILTER (WHERE type = 'RunParked'), 0)::int AS parked
      FROM changes GROUP BY backfill
)
UPDATE backfills AS b SET succeeded = b.succeeded + s.succeeded, failed = b.failed + s.failed,
       canceled = b.canceled + s.canceled, parked = b.parked + s.parked
  FROM sums AS s WHERE b.id = s.backfill
"""

PROJECTION = Projection(
    "backfills",
    version=2,
    ddl=DDL,
    folds=[
        Fold(BEGINS, ADD),
        Fold(ENDS, END),
        Fold(REQUESTS, REQUEST, wakes=False),
        Fold(OUTCOMES, OUTCOME, wakes=False),
    ],
    notifies=True,
)

OUTCOME_COLUMNS = ("succeeded", "failed", "canceled", "parked")
STATES = ("running", "stopped", "finished")


async def list_backfills(
    connection: Connection,
    space: str,
    *,
    before: int,
    limit: int,
    task_id: str | None = None,
    state: str | None = None,
) -> list[tuple[int, dict[str, Any]]]:
    """Backfills with their log positions, newest first, asked for before the position `before`."""
    rows = await connection.fetch(
        """SELECT * FROM backfills WHERE space = $1 AND position < $2
              AND ($3::text IS NULL OR task_id = $3::text::uuid) AND ($4::text IS NULL OR state = $4)
            ORDER BY position DESC LIMIT $5""",
        space, before, task_id, state, limit,
    )  # fmt: skip
    return [(row["position"], _public(row)) for row in rows]


async def get_backfill(connection: Connection, space: str, backfill_id: str) -> dict[str, Any] | None:
    """One backfill by its id; None when the table has none in this space."""
    row = await connection.fetchrow(
        "SELECT * FROM backfills WHERE space = $1 AND id = $2::text::uuid", space, backfill_id
    )
    return _public(row) if row else None


async def with_numbers(connection: Connection, backfill: Backfill) -> dict[str, Any]:
    """A backfill that was read from its stream, with the table's numbers, which may be a moment behind."""
    row = await connection.fetchrow("SELECT * FROM backfills WHERE id = $1::text::uuid", backfill.id)
    none = dict.fromkeys(("requested", *OUTCOME_COLUMNS), 0)
    numbers: Mapping[str, Any] = none if row is None else dict(row)
    assert backfill.requested_at
    return _shown(
        {
            "id": backfill.id, "task": backfill.task, "task_id": backfill.task_id, "space": backfill.space,
            "state": backfill.state, "source": backfill.source.public(), "since": backfill.since,
            "until": backfill.until,
            "run_order": backfill.order, "max_parallel": backfill.max_parallel, "rerun": backfill.rerun,
            "reason": backfill.reason, "counts": backfill.counts, "requested_by": backfill.requested_by,
            "requested_at": backfill.requested_at, "stopped_by": backfill.stopped_by,
            "stop_reason": backfill.stop_reason, "ended_at": backfill.ended_at,
        },
        numbers,
    )  # fmt: skip


async def running(connection: Connection) -> list[str]:
    """The ids of the backfills that have not ended, in all spaces, oldest first."""
    rows = await connection.fetch("SELECT id::text FROM backfills WHERE state = 'running' ORDER BY position")
    return [row["id"] for row in rows]


def _public(row: Any) -> dict[str, Any]:
    return _shown(row, row)


def _shown(known: Mapping[str, Any], numbers: Mapping[str, Any]) -> dict[str, Any]:
    """A backfill as the API shows it. `planned` counts its items, `requested` the runs asked for so far,
    `unfinished` those of them that have not ended."""
    ended = {name: numbers[name] for name in OUTCOME_COLUMNS}
    return {
        "id": str(known["id"]),
        "task": known["task"],
        "task_id": str(known["task_id"]),
        "space": known["space"],
        "state": known["state"],
        "source": known["source"],
        "from": known["since"],
        "to": known["until"],
        "order": known["run_order"],
        "max_parallel": known["max_parallel"],
        "rerun": known["rerun"],
        "reason": known["reason"],
        "counts": known["counts"],
        "planned": known["counts"]["run"],
        "requested": numbers["requested"],
        "unfinished": numbers["requested"] - sum(ended.values()),
        **ended,
        "requested_by": known["requested_by"],
        "requested_at": known["requested_at"].isoformat(),
        "stopped_by": known["stopped_by"],
        "stop_reason": known["stop_reason"],
        "ended_at": known["ended_at"].isoformat() if known["ended_at"] else None,
    }
