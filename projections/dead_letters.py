"""The table `dead_letters`: every entry and event that was rejected, and what became of it."""

from typing import Any

from ordinaut.domain.deadletter import DeadLetter
from ordinaut.log.append import Connection
from projections.base import Fold, Projection, batch

DDL = """
CREATE TABLE dead_letters (
    id              uuid        PRIMARY KEY,
    position        bigint      NOT NULL,
    space           text        NOT NULL,
    kind            text        NOT NULL,
    stream          text        NOT NULL,
    entry_id        text        NOT NULL,
    task_id         text,
    task            text,
    reason          text        NOT NULL,
    state           text        NOT NULL,
    rejections      int         NOT NULL,
    history         jsonb,
    rejected_at     timestamptz NOT NULL,
    decided_by      text,
    decision_reason text,
    decided_at      timestamptz
);
CREATE INDEX ON dead_letters (space, state, position);
CREATE INDEX ON dead_letters (space, position);
"""

REJECTS = frozenset({"EventRejected"})
DECIDES = frozenset({"EventRequeued", "EventDropped"})

# Only what is a dead letter: a rejection of something that has an id within a stream.
_LETTERS = "stream LIKE 'event-%' AND data ? 'id' AND data ? 'stream'"

ADD = f"""
INSERT INTO dead_letters
SELECT substr(stream, 7)::uuid, position, space,
       CASE WHEN causation LIKE 'redis:%' THEN 'stream' WHEN data->>'id' ~ '^[0-9]+$' THEN 'system'
            ELSE 'event' END,
       data->>'stream', data->>'id', data->>'task', data->>'name', data->>'reason', 'dead', 0,
       data->'history', at, NULL, NULL, NULL
  FROM ({batch(REJECTS)}) AS e
 WHERE version = 1 AND {_LETTERS}
ON CONFLICT (id) DO NOTHING
"""

# In the order of the versions: what was requeued may have been rejected again.
UPDATE = f"""
UPDATE dead_letters AS d SET
       state = e.state, reason = coalesce(e.reason, d.reason), rejections = d.rejections + e.rejections,
       history = coalesce(e.history, d.history), rejected_at = coalesce(e.rejected_at, d.rejected_at),
       decided_by = coalesce(e.decided_by, d.decided_by),
       decision_reason = coalesce(e.decision_reason, d.decision_reason),
       decided_at = coalesce(e.decided_at, d.decided_at)
  FROM (SELECT substr(stream, 7) AS letter,
               (array_agg(CASE type WHEN 'EventRejected' THEN 'dead' WHEN 'EventRequeued' THEN 'requeued'
                                    ELSE 'dropped' END ORDER BY version DESC))[1] AS state,
               count(*) FILTER (WHERE type = 'EventRejected')::int AS rejections,
               (array_agg(data->>'reason' ORDER BY version DESC)
                  FILTER (WHERE type = 'EventRejected'))[1] AS reason,
               (array_agg(data->'history' ORDER BY version DESC)
                  FILTER (WHERE type = 'EventRejected' AND data ? 'history'))[1] AS history,
               max(at) FILTER (WHERE type = 'EventRejected') AS rejected_at,
               (array_agg(actor ORDER BY version DESC)
                  FILTER (WHERE type <> 'EventRejected'))[1] AS decided_by,
               (array_agg(data->>'reason' ORDER BY version DESC)
                  FILTER (WHERE type <> 'EventRejected'))[1] AS decision_reason,
               max(at) FILTER (WHERE type <> 'EventRejected') AS decided_at
          FROM ({batch(REJECTS | DECIDES)}) AS b WHERE stream LIKE 'event-%' GROUP BY stream) AS e
 WHERE d.id = e.letter::uuid
"""

PROJECTION = Projection(
    "dead_letters",
    version=1,
    ddl=DDL,
    folds=[Fold(REJECTS, ADD), Fold(REJECTS | DECIDES, UPDATE)],
)


async def list_dead_letters(
    connection: Connection,
    space: str,
    *,
    before: int,
    limit: int,
    state: str | None = None,
    stream: str | None = None,
    task_id: str | None = None,
) -> list[tuple[int, dict[str, Any]]]:
    """Dead letters with their log positions, newest first, asked for before the position `before`."""
    rows = await connection.fetch(
        """SELECT * FROM dead_letters WHERE space = $1 AND position < $2
              AND ($3::text IS NULL OR state = $3) AND ($4::text IS NULL OR stream = $4)
              AND ($5::text IS NULL OR task_id = $5)
            ORDER BY position DESC LIMIT $6""",
        space, before, state, stream, task_id, limit,
    )  # fmt: skip
    return [(row["position"], public(row)) for row in rows]


async def count_dead(connection: Connection, most: int) -> int:
    """How many are dead, in all spaces; not counted further than `most`."""
    found: int = await connection.fetchval(
        "SELECT count(*) FROM (SELECT FROM dead_letters WHERE state = 'dead' LIMIT $1) AS d", most
    )
    return found


def public(row: Any) -> dict[str, Any]:
    """A row as the API shows it."""
    return {
        "id": str(row["id"]),
        "space": row["space"],
        "state": row["state"],
        "cause": {"kind": row["kind"], "stream": row["stream"], "id": row["entry_id"]},
        "task": row["task"],
        "task_id": row["task_id"],
        "reason": row["reason"],
        "rejections": row["rejections"],
        "history": row["history"],
        "rejected_at": row["rejected_at"].isoformat(),
        "decided_by": row["decided_by"],
        "decision_reason": row["decision_reason"],
        "decided_at": row["decided_at"].isoformat() if row["decided_at"] else None,
    }


def public_letter(letter: DeadLetter) -> dict[str, Any]:
    """The same of a dead letter that was read from its stream."""
    return public({name: getattr(letter, name) for name in DeadLetter.__slots__})
