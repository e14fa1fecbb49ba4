"""The table `due_work`: the runs that somebody has to do, now or at `run_at`.

Which rows exist is folded from the log, in the transaction of the append itself: a run that was requested
can be leased as soon as anybody can know of it, and a finished one is never handed out again. The lease
columns belong to the workers (migrations/0003_leases.sql).
"""

from typing import Any

from ordinaut.domain.events import RUN_ENDED
from ordinaut.log.append import Connection
from projections.base import Fold, Projection, last_of

DDL = """
CREATE TABLE due_work (
    run_id            uuid        PRIMARY KEY,
    space             text        NOT NULL,
    task_id           uuid        NOT NULL,
    priority          smallint    NOT NULL,
    run_at            timestamptz NOT NULL,
    concurrency_key   text,
    concurrency_limit int,
    scheduled         boolean     NOT NULL,
    leased_by         text,
    lease_until       timestamptz
) WITH (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX ON due_work (priority DESC, run_at);
CREATE INDEX ON due_work (task_id) WHERE scheduled;
CREATE INDEX ON due_work (concurrency_key, priority DESC, run_at) WHERE concurrency_key IS NOT NULL;
"""

REQUESTS = frozenset({"RunRequested"})
RETRIES = frozenset({"RunRetryScheduled"})
LIVES = REQUESTS | RETRIES | RUN_ENDED

ADD = f"""
INSERT INTO due_work (run_id, space, task_id, priority, run_at, concurrency_key, concurrency_limit,
                      scheduled)
SELECT substr(stream, 5)::uuid, space, (data->>'task')::uuid, (data->>'priority')::smallint,
       coalesce((data->>'run_at')::timestamptz, at),
       data#>>'{{concurrency,key}}', (data#>>'{{concurrency,limit}}')::int,
       data#>>'{{cause,kind}}' = 'schedule'
  FROM ({last_of(LIVES, "*")}) AS e
 WHERE type = 'RunRequested'
ON CONFLICT (run_id) DO NOTHING
"""

# The rest of the row is in the run's RunRequested, which may be long before this batch (a run that is
# opened again) or in it (then its row is not there yet).
PUT_OFF = f"""
INSERT INTO due_work AS d (run_id, space, task_id, priority, run_at, concurrency_key, concurrency_limit,
                           scheduled)
SELECT substr(e.stream, 5)::uuid, e.space, (e.data->>'task')::uuid,
       (f.data->>'priority')::smallint, (e.data->>'run_at')::timestamptz,
       f.data#>>'{{concurrency,key}}', (f.data#>>'{{concurrency,limit}}')::int,
       f.data#>>'{{cause,kind}}' = 'schedule'
  FROM ({last_of(LIVES, "*")}) AS e
  JOIN events f ON f.stream = e.stream AND f.version = 1
 WHERE e.type = 'RunRetryScheduled'
ON CONFLICT (run_id) DO UPDATE SET run_at = excluded.run_at, leased_by = NULL, lease_until = NULL
"""

REMOVE = f"""
DELETE FROM due_work d USING ({last_of(LIVES, "stream, type")}) AS e
 WHERE d.run_id = substr(e.stream, 5)::uuid AND e.type NOT IN ('RunRequested', 'RunRetryScheduled')
"""

CARRY_OVER = """
UPDATE {rebuilt} r SET leased_by = l.leased_by, lease_until = l.lease_until
  FROM {live} l WHERE r.run_id = l.run_id AND l.leased_by IS NOT NULL
"""

PROJECTION = Projection(
    "due_work",
    version=2,
    ddl=DDL,
    folds=[Fold(REQUESTS, ADD), Fold(RETRIES, PUT_OFF), Fold(RUN_ENDED, REMOVE, wakes=False)],
    own=("leased_by", "lease_until"),
    carry_over=CARRY_OVER,
    notifies=True,
    synchronous=True,
)


async def waiting(connection: Connection, most: int) -> int:
    """How many runs are due and have no worker; not counted further than `most`, which keeps it cheap."""
    found: int = await connection.fetchval(
        """SELECT count(*) FROM (SELECT FROM due_work WHERE run_at <= now()
              AND (lease_until IS NULL OR lease_until <= now()) LIMIT $1) AS w""",
        most,
    )
    return found


async def depth(connection: Connection) -> dict[str, Any]:
    """How much there is to do: `ready` (due, not leased), `leased`, `later` (not due yet)."""
    row = await connection.fetchrow(
        """SELECT count(*) FILTER (WHERE leased) AS leased,
                  count(*) FILTER (WHERE NOT leased AND run_at <= now()) AS ready,
                  count(*) FILTER (WHERE NOT leased AND run_at > now()) AS later
             FROM (SELECT run_at, coalesce(lease_until > now(), false) AS leased FROM due_work) w"""
    )
    assert row is not None
    return dict(row)
