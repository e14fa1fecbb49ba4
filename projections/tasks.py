"""The table `tasks`: every task there is or was, as it is now."""

from datetime import datetime
from typing import Any

from ordinaut.domain.schedules.spec import next_kept
from ordinaut.log.append import Connection
from projections.base import Fold, Projection, last_of

DDL = """
CREATE TABLE tasks (
    id             uuid        PRIMARY KEY,
    space          text        NOT NULL,
    name           text        NOT NULL,
    title          text,
    labels         jsonb       NOT NULL,
    status         text        NOT NULL,
    definition     jsonb       NOT NULL,
    version        int         NOT NULL,
    stream_version int         NOT NULL,
    created_at     timestamptz NOT NULL,
    changed_at     timestamptz NOT NULL,
    paused_reason  text,
    snoozed_until  timestamptz,
    paused_until   timestamptz
);
CREATE UNIQUE INDEX ON tasks (space, name);
CREATE INDEX ON tasks (paused_until) WHERE status = 'paused' AND paused_until IS NOT NULL;
CREATE INDEX ON tasks ((definition #>> '{schedule,on,stream}'))
 WHERE definition #> '{schedule,on}' IS NOT NULL;
"""

DEFINES = frozenset({"TaskCreated", "TaskChanged"})
MOVES = frozenset({"TaskCreated", "TaskPaused", "TaskResumed", "TaskRetired"})
PAUSES = frozenset({"TaskCreated", "TaskPaused", "TaskResumed"})
SNOOZES = frozenset({"TaskCreated", "TaskResumed", "TaskSnoozed"})
ALL = DEFINES | MOVES | SNOOZES
CREATED = frozenset({"TaskCreated"})

# A task is four registers (definition, status, why it is paused, snooze); in each the last event wins,
# and TaskCreated sets all four. So: first the creations, then each register's last event where it is not
# a creation.
CREATE = f"""
INSERT INTO tasks AS t
SELECT substr(stream, 6)::uuid, space, data->>'name', data#>>'{{definition,title}}',
       coalesce(data#>'{{definition,labels}}', '{{}}'), 'active', data->'definition',
       (data->>'version')::int, version, least(at, (data->>'created_at')::timestamptz),
       least(at, (data->>'created_at')::timestamptz), NULL, NULL, NULL
  FROM ({last_of(CREATED, "*")}) AS e
ON CONFLICT (id) DO UPDATE SET
       title = excluded.title, labels = excluded.labels, status = excluded.status,
       definition = excluded.definition, version = excluded.version,
       stream_version = excluded.stream_version, created_at = excluded.created_at,
       changed_at = excluded.changed_at, paused_reason = NULL, snoozed_until = NULL,
       paused_until = NULL
"""

CHANGE = f"""
UPDATE tasks SET title = e.data#>>'{{definition,title}}',
       labels = coalesce(e.data#>'{{definition,labels}}', '{{}}'), definition = e.data->'definition',
       version = (e.data->>'version')::int, changed_at = e.at
  FROM ({last_of(DEFINES, "*")}) AS e
 WHERE id = substr(e.stream, 6)::uuid AND e.type = 'TaskChanged'
"""

MOVE = f"""
UPDATE tasks SET status = CASE e.type WHEN 'TaskPaused' THEN 'paused' WHEN 'TaskRetired' THEN 'retired'
                                      ELSE 'active' END
  FROM ({last_of(MOVES, "*")}) AS e
 WHERE id = substr(e.stream, 6)::uuid AND e.type <> 'TaskCreated'
"""

REASON = f"""
UPDATE tasks SET
       paused_reason = CASE e.type WHEN 'TaskPaused' THEN e.data->>'reason' END,
       paused_until = CASE e.type WHEN 'TaskPaused' THEN (e.data->>'until')::timestamptz END
  FROM ({last_of(PAUSES, "*")}) AS e
 WHERE id = substr(e.stream, 6)::uuid AND e.type <> 'TaskCreated'
"""

SNOOZE = f"""
UPDATE tasks SET snoozed_until = CASE e.type WHEN 'TaskSnoozed' THEN (e.data->>'until')::timestamptz
                                             ELSE (e.data->>'snoozed_until')::timestamptz END
  FROM ({last_of(SNOOZES, "*")}) AS e
 WHERE id = substr(e.stream, 6)::uuid AND e.type <> 'TaskCreated'
"""

COUNT = f"""
UPDATE tasks SET stream_version = e.version
  FROM ({last_of(ALL, "stream, version")}) AS e
 WHERE id = substr(e.stream, 6)::uuid AND stream_version <> e.version
"""

PROJECTION = Projection(
    "tasks",
    version=3,
    ddl=DDL,
    folds=[
        Fold(CREATED, CREATE),
        Fold(DEFINES - CREATED, CHANGE),
        Fold(MOVES - CREATED, MOVE),
        Fold(PAUSES - CREATED, REASON),
        Fold(SNOOZES - CREATED, SNOOZE),
        Fold(ALL, COUNT),
    ],
    notifies=True,
)

SELECT = """
SELECT t.*, s.next_fire_at FROM tasks t
  LEFT JOIN schedules s ON s.task_id = t.id
"""


def public(row: Any) -> dict[str, Any]:
    """A row of `SELECT` as the API shows a task."""
    definition = row["definition"]
    next_fire_at = next_kept(definition["schedule"], row["next_fire_at"])
    return {
        "id": str(row["id"]),
        "name": row["name"],
        "space": row["space"],
        "title": row["title"],
        "labels": row["labels"],
        "status": row["status"],
        "schedule": definition["schedule"],
        "params": definition["params"],
        "pipeline": definition["pipeline"],
        "policy": definition["policy"],
        "version": row["version"],
        "next_fire_at": next_fire_at.isoformat() if next_fire_at and row["status"] != "retired" else None,
        "paused_reason": row["paused_reason"],
        "paused_until": row["paused_until"].isoformat() if row["paused_until"] else None,
        "snoozed_until": row["snoozed_until"].isoformat() if row["snoozed_until"] else None,
        "created_at": row["created_at"].isoformat(),
        "changed_at": row["changed_at"].isoformat(),
    }


async def get_task(connection: Connection, space: str, task_id: str) -> dict[str, Any] | None:
    """One task by its id; None when there is none in this space."""
    row = await connection.fetchrow(SELECT + "WHERE t.space = $1 AND t.id = $2::uuid", space, task_id)
    return public(row) if row else None


async def list_tasks(
    connection: Connection,
    space: str,
    *,
    after: str,
    limit: int,
    status: str | None = None,
    labels: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Tasks in the order of their names, behind the name `after`; retired ones only when asked for."""
    rows = await connection.fetch(
        SELECT
        + """WHERE t.space = $1 AND t.name > $2
               AND ($3::text IS NULL AND t.status <> 'retired' OR t.status = $3)
               AND t.labels @> $4::jsonb ORDER BY t.name LIMIT $5""",
        space, after, status, labels or {}, limit,
    )  # fmt: skip
    return [public(row) for row in rows]


async def stream_triggers(connection: Connection) -> list[Any]:
    """Every task that listens to a stream, in all spaces: `id, space, name, status, definition,
    stream_version, created_at`. The paused ones too: their entries get a verdict as well."""
    rows: list[Any] = await connection.fetch(
        """SELECT id::text, space, name, status, definition, stream_version, created_at FROM tasks
            WHERE definition #> '{schedule,on}' IS NOT NULL AND status <> 'retired'"""
    )
    return rows


async def labelled(connection: Connection, space: str, labels: dict[str, str]) -> list[str]:
    """The ids of the tasks that may have all these labels, by the table and what is not in it yet: a task
    that was acknowledged is among them. Whether it has them, its own stream tells."""
    rows = await connection.fetch(
        """SELECT id::text FROM tasks WHERE space = $1 AND labels @> $2::jsonb AND status <> 'retired'
           UNION
           SELECT substr(stream, 6) FROM events
            WHERE space = $1 AND type IN ('TaskCreated', 'TaskChanged')
              AND position > coalesce((SELECT position FROM projection_checkpoints WHERE name = 'tasks'), 0)
            ORDER BY 1""",
        space, labels,
    )  # fmt: skip
    return [row["id"] for row in rows]


async def pauses_to_end(connection: Connection, now: datetime, limit: int) -> list[str]:
    """The ids of at most `limit` tasks whose pause was until `now` or before, the oldest first."""
    rows = await connection.fetch(
        """SELECT id::text FROM tasks WHERE status = 'paused' AND paused_until <= $1
            ORDER BY paused_until, id LIMIT $2""",
        now, limit,
    )  # fmt: skip
    return [row["id"] for row in rows]


async def next_pause_to_end(connection: Connection, now: datetime) -> datetime | None:
    """The first instant after `now` that a task is paused until."""
    at: datetime | None = await connection.fetchval(
        "SELECT min(paused_until) FROM tasks WHERE status = 'paused' AND paused_until > $1", now
    )
    return at
