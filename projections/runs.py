"""The table `runs`: every run there was, for lists. One run with its steps is read from its stream."""

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from ordinaut.domain.events import RUN_ENDED
from ordinaut.domain.run import Run
from ordinaut.log.append import Connection
from projections.base import Fold, Projection, batch

DDL = """
CREATE TABLE runs (
    id           uuid        PRIMARY KEY,
    position     bigint      NOT NULL,
    space        text        NOT NULL,
    task_id      uuid        NOT NULL,
    task         text        NOT NULL,
    task_version int         NOT NULL,
    state        text        NOT NULL,
    attempt      int         NOT NULL,
    cause        jsonb       NOT NULL,
    correlation  text        NOT NULL,
    simulate     boolean     NOT NULL,
    input        jsonb,
    output       jsonb,
    error        jsonb,
    requested_at timestamptz NOT NULL,
    started_at   timestamptz,
    finished_at  timestamptz,
    troubled     boolean     NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX ON runs (space, position);
CREATE INDEX ON runs (task_id, position);
CREATE INDEX ON runs (space, position) WHERE troubled;
"""

# A run's row is written when it is requested and again when it ends. No index is on what changes in between
# (`state` is in none, `troubled` stays false for a run that succeeds) and half of each page is left free, so
# that the second time touches no index: a heap-only update costs a third.
TROUBLED = ("failed", "canceled", "parked")
UNFINISHED = ("queued", "running", "waiting")

REQUESTS = frozenset({"RunRequested"})
MOVES = frozenset({"RunStarted", "RunRetryScheduled", "RunWaiting", "RunResumed"}) | RUN_ENDED

# What a batch makes of each of its runs. The last event that is about its state decides state, output,
# error and finished_at; `at` never runs backwards along a stream. One grouping and no join: the planner knows
# nothing of how many runs a batch holds, and a nested loop over two guesses took minutes.
STATES = {
    "RunRequested": "queued", "RunStarted": "running", "RunResumed": "queued",
    "RunRetryScheduled": "waiting", "RunWaiting": "waiting", "RunSucceeded": "succeeded",
    "RunFailed": "failed", "RunCanceled": "canceled", "RunParked": "parked",
}  # fmt: skip
ENDED = "type IN ('RunSucceeded', 'RunFailed', 'RunCanceled', 'RunParked')"
STATE = " ".join(f"WHEN '{name}' THEN '{state}'" for name, state in STATES.items())

GROUPED = f"""
SELECT stream, min(space) AS space, max(version) AS last,
       min(correlation) FILTER (WHERE type = 'RunRequested') AS correlation,
       array_agg(version) AS versions, array_agg(type) AS types,
       array_agg(version) FILTER (WHERE {ENDED}) AS ends, array_agg(data) FILTER (WHERE {ENDED}) AS end_data,
       max(at) AS last_at, min(at) FILTER (WHERE type = 'RunStarted') AS started_at,
       max((data->>'attempt')::int) FILTER (WHERE type = 'RunStarted') AS attempt,
       min(position) FILTER (WHERE type = 'RunRequested') AS requested,
       min(at) FILTER (WHERE type = 'RunRequested') AS requested_at,
       (array_agg(data) FILTER (WHERE type = 'RunRequested'))[1] AS request
  FROM ({batch(REQUESTS | MOVES)}) AS m GROUP BY stream
"""

CHANGES = f"""
SELECT stream, space, correlation, started_at, attempt, requested, requested_at, request,
       CASE last_type {STATE} END AS state,
       CASE last_type WHEN 'RunSucceeded' THEN end_event->'output' END AS output,
       CASE WHEN last_type IN ('RunFailed', 'RunParked') THEN end_event->'error'
            WHEN last_type = 'RunCanceled' THEN jsonb_build_object('message',
                 coalesce(nullif(end_event->>'reason', ''), 'canceled')) END AS error,
       CASE WHEN end_event IS NOT NULL THEN last_at END AS finished_at
  FROM (SELECT *, types[array_position(versions, last)] AS last_type,
               end_data[array_position(ends, last)] AS end_event
          FROM ({GROUPED}) AS g) AS c
"""

# Those requested in this batch are new rows, the others change theirs; one grouping for both.
FOLD = f"""
WITH c AS MATERIALIZED ({CHANGES}),
added AS (
    INSERT INTO runs
    SELECT substr(stream, 5)::uuid, requested, space, (request->>'task')::uuid, request->>'name',
           (request->>'task_version')::int, state, coalesce(attempt, 0), request->'cause', correlation,
           coalesce((request->>'simulate')::boolean, false), request->'input', output, error,
           requested_at, started_at, finished_at, state IN {TROUBLED}
      FROM c WHERE requested IS NOT NULL
)
UPDATE runs SET state = c.state, troubled = c.state IN {TROUBLED}, output = c.output,
       attempt = coalesce(c.attempt, runs.attempt),
       error = c.error, finished_at = c.finished_at, started_at = coalesce(runs.started_at, c.started_at)
  FROM c WHERE id = substr(c.stream, 5)::uuid AND c.requested IS NULL
"""

PROJECTION = Projection("runs", version=1, ddl=DDL, folds=[Fold(REQUESTS | MOVES, FOLD)])


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def public(row: asyncpg.Record) -> dict[str, Any]:
    """A row of `runs` as the API lists a run (without its steps)."""
    return {
        "id": str(row["id"]),
        "task": row["task"],
        "task_id": str(row["task_id"]),
        "task_version": row["task_version"],
        "space": row["space"],
        "state": row["state"],
        "attempt": row["attempt"],
        "cause": row["cause"],
        "correlation": row["correlation"],
        "simulate": row["simulate"],
        "input": row["input"],
        "output": row["output"],
        "error": row["error"],
        "requested_at": _iso(row["requested_at"]),
        "started_at": _iso(row["started_at"]),
        "finished_at": _iso(row["finished_at"]),
    }


def public_run(run: Run) -> dict[str, Any]:
    """A run folded from its stream, as the API shows one: with its steps, in the order they began."""
    return {
        "id": run.id,
        "task": run.task,
        "task_id": run.task_id,
        "task_version": run.task_version,
        "space": run.space,
        "state": run.state,
        "attempt": run.attempt,
        "cause": run.cause,
        "correlation": run.correlation,
        "simulate": run.simulate,
        "input": run.input,
        "output": run.output,
        "error": run.error,
        "requested_at": _iso(run.requested_at),
        "started_at": _iso(run.started_at),
        "finished_at": _iso(run.finished_at),
        "run_at": _iso(run.run_at),
        "steps": [step.public() for step in run.steps.values()],
    }


async def list_runs(
    connection: Connection,
    space: str,
    *,
    before: int,
    limit: int,
    task_id: str | None = None,
    states: list[str] | None = None,
    correlation: str | None = None,
) -> list[tuple[int, dict[str, Any]]]:
    """Runs with their log positions, newest first, requested before the position `before`."""
    conditions = ["space = $1", "position < $2"]
    arguments: list[Any] = [space, before]
    for condition, value in (
        ("task_id = {}", UUID(task_id) if task_id else None),
        ("state = ANY({}::text[])", states),
        ("correlation = {}", correlation),
    ):
        if value is not None:
            arguments.append(value)
            conditions.append(condition.format(f"${len(arguments)}"))
    if states is not None and set(states) <= set(TROUBLED):
        conditions.append("troubled")
    elif states is not None and set(states) <= set(UNFINISHED):
        conditions.append("id IN (SELECT run_id FROM due_work)")
    arguments.append(limit)
    rows = await connection.fetch(
        f"SELECT * FROM runs WHERE {' AND '.join(conditions)} ORDER BY position DESC LIMIT ${len(arguments)}",
        *arguments,
    )
    return [(row["position"], public(row)) for row in rows]
