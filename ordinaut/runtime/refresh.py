"""Schedules that were planned with another release of the tz database than the one in use here.

Clocks plan one instant ahead and record the release they did it with. When the rules of a zone change, that
instant may be another one by now; all later ones are computed when their time comes.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ordinaut.domain.schedules.spec import is_timed, rule_of
from ordinaut.domain.schedules.zones import tz_version
from ordinaut.domain.task import Task, fold, task_stream
from ordinaut.log.append import Connection
from ordinaut.log.read import read_streams
from projections.occurrences import decided_until
from projections.schedules import planned_with_another

PAGE = 500
"""Schedules looked at at once."""

_LARGEST_SHIFT = timedelta(hours=26)


@dataclass(frozen=True, slots=True)
class Move:
    """A task whose schedule was planned at `was` with the release `tz`, and is now at `at` (None: never
    again). `passed` is an instant that the rule names now, that lies behind and that had no verdict: nobody
    is going to run it. All in UTC."""

    task: Task
    was: datetime
    tz: str
    at: datetime | None
    passed: datetime | None


@dataclass(slots=True)
class Looked:
    """What a look at some schedules found: those that `moved`; how many did not (`same`) and how many are
    `due`, which the clock decides first. `after` is where to go on; None when that was all."""

    moved: list[Move] = field(default_factory=list)
    same: int = 0
    due: int = 0
    after: str | None = None


async def look(
    connection: Connection, now: datetime, *, space: str | None = None, after: str = "", limit: int = PAGE
) -> Looked:
    """Compute anew, from `now` on, what other releases planned: at most `limit` tasks (of one space, or of
    all) in the order of their ids, behind the id `after`."""
    rows = await planned_with_another(connection, tz_version(), space, after, limit)
    found = Looked(after=rows[-1]["task_id"] if len(rows) == limit else None)
    streams = await read_streams(connection, [task_stream(row["task_id"]) for row in rows])
    for row in rows:
        task = fold(row["task_id"], streams.get(task_stream(row["task_id"]), []))
        if not task.exists or not is_timed(task.definition["schedule"]):
            continue  # the table is behind the log
        was = row["next_fire_at"]
        if was <= now:
            found.due += 1
        elif (at := rule_of(task.definition["schedule"]).next_after(now)) == was:
            found.same += 1
        else:
            passed = await _passed(connection, task, now)
            found.moved.append(Move(task, was, row["tz"], at, passed))
    return found


async def _passed(connection: Connection, task: Task, now: datetime) -> datetime | None:
    """The first instant behind the last verdict, and not after `now`, that the rule names."""
    since = await decided_until(connection, task.id) or task.changed_at or now
    at = rule_of(task.definition["schedule"]).next_after(max(since, now - _LARGEST_SHIFT))
    return at if at is not None and at <= now else None
