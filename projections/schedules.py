"""The table `schedules`: the next instant that each task's schedule names. The clock lives off it."""

from datetime import UTC, datetime
from typing import Any

from ordinaut.domain.schedules.catch_up import GRACE
from ordinaut.log.append import Connection
from projections.base import Fold, Projection, batch, last_of

DDL = """
CREATE TABLE schedules (
    task_id       uuid        PRIMARY KEY,
    space         text        NOT NULL,
    next_fire_at  timestamptz,
    since_version int         NOT NULL,
    tz            text        NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX ON schedules (next_fire_at) WHERE next_fire_at IS NOT NULL;
"""

DEFINES = frozenset({"TaskCreated", "TaskChanged"})
LIVES = frozenset({"TaskCreated", "TaskRetired"})
RETIRES = frozenset({"TaskRetired"})
OCCURS = frozenset({"RunRequested", "OccurrenceSkipped"})
PLANNED = f"""
SELECT DISTINCT ON (stream) * FROM ({batch(DEFINES)}) AS d WHERE data ? 'plan' ORDER BY stream, version DESC
"""

DROP_CHANGED = f"""
DELETE FROM schedules USING ({PLANNED}) AS e WHERE task_id = substr(e.stream, 6)::uuid
"""

PLAN = f"""
INSERT INTO schedules
SELECT substr(e.stream, 6)::uuid, e.space, (e.data#>>'{{plan,0,at}}')::timestamptz,
       (e.data->>'version')::int, e.data->>'tz'
  FROM ({PLANNED}) AS e WHERE e.data->'plan' <> '[]'
"""

# An occurrence carries the instant that follows it. One that was decided by an older schedule than
# the one in force says nothing about it. A schedule only moves on: the clock moves the row ahead of the
# projection, which must not take it back.
ADVANCE = f"""
UPDATE schedules SET next_fire_at = (e.data->>'next')::timestamptz, tz = coalesce(e.data->>'tz', tz)
  FROM (SELECT DISTINCT ON (data->>'task') data
          FROM ({batch(OCCURS)}) AS o WHERE data ? 'next'
         ORDER BY data->>'task', position DESC) AS e
 WHERE task_id = (e.data->>'task')::uuid AND since_version <= (e.data->>'task_version')::int
   AND (e.data->>'next' IS NULL OR next_fire_at < (e.data->>'next')::timestamptz)
"""

RETIRE = f"""
DELETE FROM schedules USING ({last_of(LIVES, "stream, type")}) AS e
 WHERE task_id = substr(e.stream, 6)::uuid AND e.type = 'TaskRetired'
"""

PROJECTION = Projection(
    "schedules",
    version=3,
    ddl=DDL,
    folds=[Fold(DEFINES, DROP_CHANGED), Fold(DEFINES, PLAN), Fold(OCCURS, ADVANCE), Fold(RETIRES, RETIRE)],
    notifies=True,
)

# The clock moves the row in the transaction that records the occurrence; the projection then finds it
# moved. Otherwise a clock would see the same occurrence due until the projection has caught up.
ADVANCE_NOW = """
UPDATE schedules s SET next_fire_at = m.next, tz = m.tz
  FROM unnest($1::uuid[], $2::int[], $3::timestamptz[], $4::text[]) AS m (task_id, task_version, next, tz)
 WHERE s.task_id = m.task_id AND s.since_version <= m.task_version
   AND (m.next IS NULL OR s.next_fire_at < m.next)
"""


_BEGINNING = datetime.min.replace(tzinfo=UTC)

_LOCK = """
SELECT task_id::text, space, next_fire_at, since_version FROM schedules
 WHERE next_fire_at > $1 AND next_fire_at <= $2
 ORDER BY next_fire_at, task_id LIMIT $3 FOR UPDATE SKIP LOCKED
"""


async def lock_due(connection: Connection, now: datetime, limit: int, spare: int) -> list[Any]:
    """At most `limit` schedules that are due, and up to twice `spare` more, locked until the transaction
    ends; those that another clock holds are passed over.

    First those whose next instant is on time, then those that have missed some, each oldest first: after an
    outage nobody waits until everything is caught up. A tenth is for those that have missed some, however
    many are on time. `spare` is how many the caller may have to leave alone.
    """
    late, share = now - GRACE, limit // 10
    on_time: list[Any] = await connection.fetch(_LOCK, late, now, limit - share + spare)
    missed = await connection.fetch(_LOCK, _BEGINNING, late, max(share, limit - len(on_time)) + spare)
    return on_time + missed


async def planned_at(connection: Connection, task_id: str) -> datetime | None:
    """The next instant of the task's schedule, excluded or not; None when there is none."""
    at: datetime | None = await connection.fetchval(
        "SELECT next_fire_at FROM schedules WHERE task_id = $1::uuid", task_id
    )
    return at


async def planned_with_another(
    connection: Connection, tz: str, space: str | None, after: str, limit: int
) -> list[Any]:
    """At most `limit` schedules (task_id, next_fire_at, tz) whose instant was computed with another release
    of the tz database than `tz`, of one space or of all, in the order of their task ids, behind `after`."""
    rows: list[Any] = await connection.fetch(
        """SELECT task_id::text, next_fire_at, tz FROM schedules
            WHERE next_fire_at IS NOT NULL AND tz <> $1 AND ($2::text IS NULL OR space = $2)
              AND ($3 = '' OR task_id > nullif($3, '')::uuid)
            ORDER BY task_id LIMIT $4""",
        tz, space, after, limit,
    )  # fmt: skip
    return rows


async def undecided_from(connection: Connection, task_id: str) -> datetime | None:
    """The first instant of the task's schedule that no clock has decided, which may be ahead; None when
    there is none. As fresh as the log: clocks move the row in the transaction of their verdict, and of a
    schedule that is not in the table yet it is the one it was planned with."""
    at: datetime | None = await connection.fetchval(
        """SELECT CASE WHEN s.since_version >= (p.data->>'version')::int THEN s.next_fire_at
                       ELSE (p.data#>>'{plan,0,at}')::timestamptz END
             FROM (SELECT data FROM events WHERE stream = 'task-' || $1::text AND data ? 'plan'
                    ORDER BY version DESC LIMIT 1) AS p
             LEFT JOIN schedules s ON s.task_id = $1::text::uuid""",
        task_id,
    )
    return at
