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
    finished_at  timestamptz
) WITH (fillfactor = 80);
CREATE INDEX ON runs (space, position);
CREATE INDEX ON runs (task_id, position);
CREATE INDEX ON runs (space, state, position) WHERE state <> 'succeeded';
"""

REQUESTS = frozenset({"RunRequested"})
MOVES = frozenset({"RunStarted", "RunRetryScheduled", "RunWaiting", "RunResumed"}) | RUN_ENDED

# What a batch makes of each of its runs: the last event that is about its state, which decides state,
# output, error and finished_at, beside what its first one in the batch says. One sort and no join: the
# planner knows nothing of how many runs a batch holds, and a nested loop over two guesses took minutes.
CHANGES = f"""
SELECT DISTINCT ON (stream) stream, space, correlation,
       CASE type WHEN 'RunRequested' THEN 'queued' WHEN 'RunStarted' THEN 'running'
                 WHEN 'RunSucceeded' THEN 'succeeded' WHEN 'RunFailed' THEN 'failed'
                 WHEN 'RunCanceled' THEN 'canceled' WHEN 'RunParked' THEN 'parked'
                 WHEN 'RunResumed' THEN 'queued' ELSE 'waiting' END AS state,
       CASE type WHEN 'RunSucceeded' THEN data->'output' END AS output,
       CASE type WHEN 'RunFailed' THEN data->'error' WHEN 'RunParked' THEN data->'error'
                 WHEN 'RunCanceled' THEN jsonb_build_object('message',
                      coalesce(nullif(data->>'reason', ''), 'canceled')) END AS error,
       CASE WHEN type IN ('RunSucceeded', 'RunFailed', 'RunCanceled', 'RunParked') THEN at END AS finished_at,
       min(at) FILTER (WHERE type = 'RunStarted') OVER run AS started_at,
       max((data->>'attempt')::int) FILTER (WHERE type = 'RunStarted') OVER run AS attempt,
       first_value(type) OVER run AS first_type, first_value(data) OVER run AS first_data,
       first_value(position) OVER run AS first_position, first_value(at) OVER run AS first_at
  FROM ({batch(REQUESTS | MOVES)}) AS m
WINDOW run AS (PARTITION BY stream ORDER BY version ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
 ORDER BY stream, version DESC
"""

ADD = f"""
INSERT INTO runs
SELECT substr(stream, 5)::uuid, first_position, space, (first_data->>'task')::uuid, first_data->>'name',
       (first_data->>'task_version')::int, state, coalesce(attempt, 0), first_data->'cause', correlation,
       coalesce((first_data->>'simulate')::boolean, false), first_data->'input', output, error,
       first_at, started_at, finished_at
  FROM ({CHANGES}) AS c WHERE first_type = 'RunRequested'
"""

CHANGE = f"""
UPDATE runs SET state = c.state, attempt = coalesce(c.attempt, runs.attempt), output = c.output,
       error = c.error, finished_at = c.finished_at, started_at = coalesce(runs.started_at, c.started_at)
  FROM ({CHANGES}) AS c
 WHERE id = substr(c.stream, 5)::uuid AND c.first_type <> 'RunRequested'
"""

PROJECTION = Projection("runs", version=1, ddl=DDL, folds=[Fold(REQUESTS, ADD), Fold(MOVES, CHANGE)])


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
    arguments.append(limit)
    rows = await connection.fetch(
        f"SELECT * FROM runs WHERE {' AND '.join(conditions)} ORDER BY position DESC LIMIT ${len(arguments)}",
        *arguments,
    )
    return [(row["position"], public(row)) for row in rows]
