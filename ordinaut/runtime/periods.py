"""Since when and until when each rule of a task was in force: read from the tasks' own streams, never from a
read table, for whoever looks back at a task's instants (the ledger's checker, backfills)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ordinaut.domain.schedules.ledger import Period
from ordinaut.domain.schedules.spec import parse_schedule
from ordinaut.log.append import Connection

GRACE = timedelta(seconds=60)
"""How long a schedule that is not in the table (any more) may be without a verdict."""

HANDOVER = timedelta(seconds=5)
"""How long after its end a schedule's instants may still get a verdict: from a clock that decided before the
end was recorded."""

_TICK = timedelta(microseconds=1)

_HISTORY = """
SELECT stream, type, at, position, (data->>'version')::int AS version, data->'plan' AS plan,
       coalesce((data->>'effective_at')::timestamptz, at) AS effective_at, data->>'tz' AS tz,
       data#>'{definition,schedule}' AS schedule
  FROM events WHERE stream = ANY ($1) AND type IN ('TaskCreated', 'TaskChanged', 'TaskRetired')
 ORDER BY stream, events.version
"""

_PLANNED = """
SELECT task_id::text, since_version, next_fire_at FROM schedules
 WHERE task_id = ANY ($1::text[]::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Histories:
    """Some tasks' schedules as the log and the table `schedules` had them at `now` (UTC)."""

    now: datetime
    _folded: int
    _events: dict[str, list[Any]]
    _planned: dict[str, Any]

    def periods(self, task_id: str) -> list[Period]:
        """The periods of a task, oldest first. Raises Invalid when a schedule cannot be read."""
        planned = self._planned.get(task_id)
        periods: list[Period] = []
        current: Period | None = None
        for event in self._events.get(f"task-{task_id}", []):
            ends = event["type"] == "TaskRetired" or event["plan"] is not None
            if current is not None and ends:
                end, following = event["effective_at"], current.versions[-1][1] + 1
                upto = max(end, event["at"]) + HANDOVER
                periods.append(replace(current, due_before=end + _TICK, upto=upto, ends=following))
                current = None
            if event["type"] == "TaskRetired":
                continue
            version = (event["at"], event["version"])
            if event["plan"]:
                rule = parse_schedule(event["schedule"], created_at=event["at"])
                first = datetime.fromisoformat(event["plan"][0]["at"]).astimezone(UTC)
                due_before = self._decided_before(event, first, planned)
                upto = self.now + HANDOVER
                current = Period(rule, first, due_before, upto, [version], tz=event["tz"] or "")
            elif current is not None:
                current = replace(current, versions=[*current.versions, version])
        return [*periods, current] if current is not None else periods

    def _decided_before(self, event: Any, first: datetime, planned: Any) -> datetime:
        """Up to where clocks have decided a schedule, if it is the one in force."""
        overdue = self.now - GRACE
        if planned is None or planned["since_version"] < event["version"]:
            # The table has not heard of it yet, or has lost it.
            return first if self._folded < event["position"] else overdue
        following: datetime | None = planned["next_fire_at"]
        return overdue if following is None else min(following, self.now)


async def read_histories(connection: Connection, task_ids: Sequence[str]) -> Histories:
    """The histories of these tasks.

    In a snapshot of the database (`repeatable_read`) every instant before the one a schedule is due at next
    has its verdict, whatever time it is: clocks move a schedule on in the transaction of its verdicts.
    """
    events: dict[str, list[Any]] = {}
    for row in await connection.fetch(_HISTORY, [f"task-{task_id}" for task_id in task_ids]):
        events.setdefault(row["stream"], []).append(row)
    planned = {row["task_id"]: row for row in await connection.fetch(_PLANNED, list(task_ids))}
    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    folded: int | None = await connection.fetchval(
        "SELECT position FROM projection_checkpoints WHERE name = 'schedules'"
    )
    return Histories(now, folded or 0, events, planned)
