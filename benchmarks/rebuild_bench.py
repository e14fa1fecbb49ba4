"""A full rebuild of every projection over a long log: events per second, and the memory it takes.

The log is written by SQL, through `append_events` as everything else is, four events a run as a run with
one step has. What is timed is the command `ordinaut projections rebuild`, from its start to its end, and
the memory is the peak resident size of that process as the kernel counted it.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg

from benchmarks import serving
from ordinaut.domain import task
from ordinaut.domain.definition import parse_definition
from ordinaut.domain.ids import task_id

BATCH_RUNS = 2_500
PER_RUN = 4
TASK = task_id("default", "bench")

DOCUMENT = {
    "name": "bench",
    "schedule": {"on": {"stream": "bench"}},
    "pipeline": [{"id": "noop", "uses": "debug.echo", "with": {"id": "${input.id}"}}],
}

CREATE = """
SELECT append_events(ARRAY[$1::text], '{0}', '{1}', '{default}', '{key:bench}', '{bench}', '{NULL}',
                     '{1}', ARRAY[$2::text], ARRAY[$3::text], '{}', '{}', '{}')
"""

STAGES = ((0, 1), (1, 2), (2, 4))
"""A run's events as they come: requested, started, and its step with its end (behind which, up to which)."""

RUNS = """
WITH run AS (
    SELECT n, 'run-' || (lpad(to_hex(n), 12, '0') || '8000' || substr(md5(n::text), 1, 16))::uuid AS stream
      FROM generate_series($1::bigint, $2::bigint) AS n
), e AS (
    SELECT n, stream, v AS version, type, d::text AS data
      FROM run, LATERAL (VALUES
        (1, 'RunRequested', jsonb_build_object('task', $3::text, 'name', 'bench', 'task_version', 1,
            'cause', jsonb_build_object('kind', 'stream', 'stream', 'bench', 'id', n || '-0'),
            'input', jsonb_build_object('id', n), 'priority', 5, 'max_attempts', 5, 'depth', 0)),
        (2, 'RunStarted', jsonb_build_object('task', $3::text, 'attempt', 1, 'worker', 'bench')),
        (3, 'StepSucceeded', jsonb_build_object('step', 'noop', 'attempt', 1,
            'input', jsonb_build_object('id', n), 'output', jsonb_build_object('id', n),
            'started_at', '2026-01-01T00:00:00+00:00', 'finished_at', '2026-01-01T00:00:00+00:00')),
        (4, 'RunSucceeded', jsonb_build_object('task', $3::text, 'output', jsonb_build_object('id', n)))
      ) AS kind (v, type, d)
     WHERE v > $4::int AND v <= $5::int
), a AS (
    SELECT array_agg(stream ORDER BY n) AS stream, array_agg($4::int) AS expected,
           array_agg(((n - $1) * ($5::int - $4::int) + 1)::int ORDER BY n) AS first,
           array_agg('default'::text) AS space, array_agg('worker:bench'::text) AS actor,
           array_agg(substr(stream, 5) ORDER BY n) AS correlation, array_agg(NULL::text) AS causation
      FROM run
), events AS (
    SELECT array_agg((n - $1 + 1)::int ORDER BY n, version) AS append,
           array_agg(type ORDER BY n, version) AS type, array_agg(data ORDER BY n, version) AS data
      FROM e
)
SELECT x.head_after FROM a, events, LATERAL append_events(
    a.stream, a.expected, a.first, a.space, a.actor, a.correlation, a.causation,
    events.append, events.type, events.data, '{}', '{}', '{}') AS x
"""


async def fill(database: str, events: int, tell: Callable[[str], None]) -> int:
    """Writes a log of about `events` events; answers with its head."""
    connection = await asyncpg.connect(database, server_settings={"synchronous_commit": "off"})
    try:
        now = datetime.now(UTC)
        parsed = parse_definition(DOCUMENT, created_at=now, known_tools=None)
        created = task.create(task.Task(TASK), "bench", parsed.normalised(), [], "", created_at=now)[0]
        await connection.fetchrow(CREATE, task.task_stream(TASK), created.type, json.dumps(created.data))
        head = 1
        for first in range(1, events // PER_RUN + 1, BATCH_RUNS):
            last = min(first + BATCH_RUNS - 1, events // PER_RUN)
            for behind, upto in STAGES:
                head = await connection.fetchval(RUNS, first, last, TASK, behind, upto)
            if head % 100_000 <= BATCH_RUNS * PER_RUN:
                tell(f"rebuild: {head:,} of {events:,} events written")
        await connection.execute("VACUUM ANALYZE events")
    finally:
        await connection.close()
    return head


async def measured(events: int, rounds: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """`rounds` full rebuilds of one log, in the database that `serving.environment` names."""
    environment = serving.environment(0)
    serving.prepare()
    head = await fill(environment["ORDINAUT_DATABASE_URL"], events, tell)
    results = []
    for number in range(rounds):
        tell(f"rebuild: {number + 1} of {rounds}")
        seconds, peak = serving.run("projections rebuild", environment)
        results.append({"events_per_s": head / seconds, "peak_mb": peak / 1e6, "events": head})
    return results
