"""The last verdict of a schedule that ends, because its task is retired or given another one. Pure.

Instants that came due and that no clock has decided yet would otherwise never be heard of again (I8).
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from ordinaut.domain import ids
from ordinaut.domain.events import NewEvent
from ordinaut.domain.request import skip_occurrence
from ordinaut.domain.schedules.catch_up import whole_range
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.task import Task

_TICK = timedelta(microseconds=1)


def last_verdict(
    task: Task, rule: Schedule, due: datetime, now: datetime, reason: str
) -> tuple[str, NewEvent]:
    """The id of the run there will not be, and OccurrenceSkipped for the instants of `rule` from `due`
    (itself one, and not after `now`) up to `now`. What a pause covers is skipped as that, and the verdict
    goes to the end of the pause only."""
    upto, hold = now, task.hold(due)
    if hold is not None and hold[0] == "paused":
        reason = "paused"
        upto = now if hold[1] is None else min(now, hold[1] - _TICK)
    found = whole_range(rule, due, upto, reason)
    first, last = (instant.astimezone(UTC).isoformat() for instant in (found.first, found.last))
    cause = {
        "kind": "schedule",
        "at": first,
        "index": rule.naming(found.first)[0],
        "lateness": max(0.0, round((now - found.first).total_seconds(), 3)),
    }
    extra: dict[str, Any] = {"next": None, "from": first, "to": last, "count": found.count}
    if found.count_capped:
        extra["count_capped"] = True
    return ids.scheduled_run_id(task.id, found.first), skip_occurrence(task, cause, reason, extra)
