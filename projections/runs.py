"""The table `runs`: every run there was, for lists. One run with its steps is read from its stream.

A row holds what runs are sorted and chosen by. What a run was given and what came of it can be large, is
in its stream already, and is read from there for the few rows that a page shows.
"""

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
    correlation  text        NOT NULL,
    simulate     boolean     NOT NULL,
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

# What a batch makes of each of its runs. The last event that is about its state decides state and
# finished_at: the greatest version, in one number with what it makes of the run, because an array of all to
# choose from cost a fifth of the grouping. `at` never runs backwards along a stream. One grouping and no
# join: the planner knows nothing of how many runs a batch holds, and a nested loop over two guesses took
# minutes.
STATES = {
    "RunRequested": "queued", "RunStarted": "running", "RunResumed": "queued",
    "RunRetryScheduled": "waiting", "RunWaiting": "waiting", "RunSucceeded": "succeeded",
    "RunFailed": "failed", "RunCanceled": "canceled", "RunParked": "parked",
}  # fmt: skip
ENDED = "('RunSucceeded', 'RunFailed', 'RunCanceled', 'RunParked')"
NUMBERED = dict(enumerate(STATES, 1))
NUMBER = " ".join(f"WHEN '{name}' THEN {number}" for number, name in NUMBERED.items())
STATE = " ".join(f"WHEN {number} THEN '{STATES[name]}'" for number, name in NUMBERED.items())
ENDS = ", ".join(str(number) for number, name in NUMBERED.items() if name in RUN_ENDED)

GROUPED = f"""
SELECT stream, min(space) AS space, max(version * 16 + CASE type {NUMBER} END) % 16 AS last,
       min(correlation) FILTER (WHERE type = 'RunRequested') AS correlation,
       max(at) AS last_at, min(at) FILTER (WHERE type = 'RunStarted') AS started_at,
       max((data->>'attempt')::int) FILTER (WHERE type = 'RunStarted') AS attempt,
       min(position) FILTER (WHERE type = 'RunRequested') AS requested,
       min(at) FILTER (WHERE type = 'RunRequested') AS requested_at,
       (array_agg(data) FILTER (WHERE type = 'RunRequested'))[1] AS request
  FROM ({batch(REQUESTS | MOVES, "position, space, stream, version, type, at, correlation, data")}) AS m
 GROUP BY stream
"""

CHANGES = f"""
SELECT stream, space, correlation, started_at, attempt, requested, requested_at, request,
       CASE last {STATE} END AS state, CASE WHEN last IN ({ENDS}) THEN last_at END AS finished_at
  FROM ({GROUPED}) AS c
"""

# Those requested in this batch are new rows, the others change theirs; one grouping for both.
FOLD = f"""
WITH c AS MATERIALIZED ({CHANGES}),
added AS (
    INSERT INTO runs
    SELECT substr(stream, 5)::uuid, requested, space, (request->>'task')::uuid, request->>'name',
           (request->>'task_version')::int, state, coalesce(attempt, 0), correlation,
           coalesce((request->>'simulate')::boolean, false),
           requested_at, started_at, finished_at, state IN {TROUBLED}
      FROM c WHERE requested IS NOT NULL
)
UPDATE runs SET state = c.state, troubled = c.state IN {TROUBLED},
       attempt = coalesce(c.attempt, runs.attempt),
       finished_at = c.finished_at, started_at = coalesce(runs.started_at, c.started_at)
  FROM c WHERE id = substr(c.stream, 5)::uuid AND c.requested IS NULL
"""

PROJECTION = Projection("runs", version=3, ddl=DDL, folds=[Fold(REQUESTS | MOVES, FOLD)])


# A page of the table first, then what the streams of its runs say: of each the request and, when it has
# ended, the last event that ended it.
PAGE = f"""
SELECT r.*, request.data AS request, ending.data AS ending
  FROM (SELECT * FROM runs WHERE {{conditions}} ORDER BY position DESC LIMIT {{limit}}) AS r
  JOIN events AS request ON request.stream = 'run-' || r.id AND request.version = 1
  LEFT JOIN LATERAL (SELECT data FROM events
                      WHERE stream = 'run-' || r.id AND type IN {ENDED} AND r.finished_at IS NOT NULL
                      ORDER BY version DESC LIMIT 1) AS ending ON true
 ORDER BY r.position DESC
"""


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def public(row: asyncpg.Record) -> dict[str, Any]:
    """A row of `PAGE` as the API lists a run (without its steps)."""
    request, ending, state = row["request"], row["ending"] or {}, row["state"]
    error = ending.get("error")
    if state == "canceled":
        error = {"message": ending.get("reason") or "canceled"}
    return {
        "id": str(row["id"]),
        "task": row["task"],
        "task_id": str(row["task_id"]),
        "task_version": row["task_version"],
        "space": row["space"],
        "state": state,
        "attempt": row["attempt"],
        "cause": request["cause"],
        "correlation": row["correlation"],
        "simulate": row["simulate"],
        "input": request["input"],
        "output": ending.get("output") if state == "succeeded" else None,
        "error": error,
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
    page = PAGE.format(conditions=" AND ".join(conditions), limit=f"${len(arguments)}")
    rows = await connection.fetch(page, *arguments)
    return [(row["position"], public(row)) for row in rows]
