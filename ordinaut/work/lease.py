"""Leasing: runs that are due become this worker's, and their log says so before anything is done.

The lease itself is a change to `due_work` alone. What counts is RunStarted, appended at the version the run's
stream was read at (I4): it fences off whoever had the run before, and it counts the attempt, before the first
step begins. Most runs are leased once, when they have just been requested: theirs is appended by the server
with the lease (migrations/0011_lease_with_request.sql). What leasing any other means is decided here.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files

import asyncpg

from ordinaut.domain.errors import VersionConflict
from ordinaut.domain.events import NewEvent, reference
from ordinaut.domain.run import Run, evolve, go_on, run_stream, start
from ordinaut.log.append import Append, Connection
from ordinaut.log.read import to_event
from ordinaut.runtime.metrics import RUNS
from ordinaut.runtime.system import System

ANSWER_SECONDS = 60.0
"""How long PostgreSQL may take over a lease."""

LEASE = "SELECT * FROM lease_due_work($1, $2, $3, $4)"
# Both pass over rows that somebody holds (see renew_leases.sql): an append that is putting them right.
RELEASE = """
UPDATE due_work d SET leased_by = NULL, lease_until = NULL, run_at = coalesce(m.run_at, d.run_at)
  FROM unnest($2::uuid[], $3::timestamptz[]) AS m (run_id, run_at)
  JOIN LATERAL (SELECT run_id FROM due_work
                 WHERE run_id = m.run_id AND leased_by = $1 FOR UPDATE SKIP LOCKED) AS mine ON true
 WHERE d.run_id = mine.run_id
"""
DROP = """
DELETE FROM due_work d
 USING (SELECT run_id FROM due_work
         WHERE leased_by = $1 AND run_id = ANY($2::uuid[]) FOR UPDATE SKIP LOCKED) AS mine
 WHERE d.run_id = mine.run_id
"""

_SQL = files("ordinaut.work")
RENEW_LEASES = (_SQL / "renew_leases.sql").read_text()
NEXT_RUN_AT = (_SQL / "next_run_at.sql").read_text()


@dataclass(frozen=True, slots=True)
class Leased:
    """What a round of leasing gave: runs to carry out, and how many rows were dealt with otherwise
    (parked, or put right)."""

    runs: list[Run]
    others: int


async def lease_due_work(
    system: System, worker: str, limit: int, seconds: float, connection: Connection | None = None
) -> Leased:
    """Lease at most `limit` runs for `seconds` and record that they start. `connection` is the caller's own
    to lease on; else one of the pool's is.

    Runs whose attempts are spent are parked; rows that the log says are done with, or not due yet, are put
    right; a run whose stream moved in between (it was canceled) is let go. Raises what asking the database
    raises; what was leased then waits for its lease to run out.
    """
    asked = connection or system.pool
    rows = await asked.fetch(
        LEASE, worker, float(seconds), limit, random.getrandbits(1), timeout=ANSWER_SECONDS
    )
    begun, others = folded(rows, worker)
    if not others:
        return Leased(begun, 0)
    again = await settle(system, worker, others)
    return Leased(begun + again, len(others) - len(again))


async def settle(system: System, worker: str, others: Sequence[Run]) -> list[Run]:
    """What leasing runs means that did not begin with their lease: they start again, and are the answer; or
    they are parked, put right, or let go. Raises what asking the database raises."""
    now = system.time.now()
    due = [run for run in others if not run.ended and (run.run_at is None or run.run_at <= now)]
    if len(due) < len(others):
        over = [run.id for run in others if run.ended]
        later = [run for run in others if not run.ended and run.run_at is not None and run.run_at > now]
        await system.pool.execute(DROP, worker, over)
        await system.pool.execute(RELEASE, worker, [run.id for run in later], [run.run_at for run in later])
    again, lost = await _start(system, worker, due)
    if lost:
        await system.pool.execute(RELEASE, worker, lost, [None] * len(lost))
    return again


def folded(rows: Sequence[asyncpg.Record], worker: str) -> tuple[list[Run], list[Run]]:
    """The runs of a lease's answer: those that began with it, and the others."""
    begun: list[Run] = []
    others: dict[str, Run] = {}
    for row in rows:
        event = to_event(row)
        run = others.get(event.stream)
        if run is None:
            run = Run(event.stream.removeprefix("run-"))
        evolve(run, event)
        if row["begun_at"] is None:
            others[event.stream] = run
        else:
            # The server has appended this very event (test_lease.py holds the two together).
            apply(run, [start(run, worker)], row["begun_at"])
            begun.append(run)
    return begun, list(others.values())


async def _start(system: System, worker: str, runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Record that the runs start, or are parked; those that started, and the ids of those that somebody
    else changed meanwhile."""
    actor = f"worker:{worker}"
    events = [start(run, worker) for run in runs]
    appends = []
    for run, event in zip(runs, events, strict=True):
        stream = run_stream(run.id)
        appends.append(
            Append(
                stream,
                run.stream_version,
                [event],
                run.space,
                actor,
                run.correlation,
                reference(stream, run.stream_version),
            )
        )
    started: list[Run] = []
    lost: list[str] = []
    outcomes = await system.appender.append_all(appends)
    for run, event, outcome in zip(runs, events, outcomes, strict=True):
        if isinstance(outcome, VersionConflict):
            lost.append(run.id)
        elif event.type == "RunStarted":
            apply(run, [event], outcome.at)
            started.append(run)
        else:
            RUNS.labels("parked").inc()
    return started, lost


def apply(run: Run, events: Sequence[NewEvent], at: datetime) -> None:
    """Fold what was just appended to the run's stream, at `at`, into the run."""
    for event in events:
        go_on(run, event, at)
    run.stream_version += len(events)
