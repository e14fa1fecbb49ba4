"""Ending a schedule: what was due by it and not decided yet gets its verdict together with the change."""

from dataclasses import replace
from datetime import datetime

from ordinaut.api.door import Command
from ordinaut.domain.closing import last_verdict
from ordinaut.domain.errors import VersionConflict
from ordinaut.domain.ids import scheduled_run_id
from ordinaut.domain.run import run_stream
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.spec import is_timed, rule_of
from ordinaut.domain.task import Task, task_stream
from ordinaut.log.append import Append, Appended, Connection
from projections.schedules import undecided_from


async def append_and_close(command: Command, task: Task, item: Append, reason: str) -> Appended:
    """Append `item`, which ends the schedule of `task`, and the verdict `reason` on the instants that are
    due by it: both or neither. Raises what `Appender.append` raises; a clock that decides at the same
    moment is a `VersionConflict`."""
    appender, last = command.system.appender, await _last_verdicts(command, task, reason)
    if not last:
        return await appender.append(item)
    # All stand on the same conditions, so none is written without the others.
    free = {verdict.stream: 0 for verdict in last}
    verdicts = [replace(one, requires={**one.requires, **item.requires, **free}) for one in last]
    change = replace(item, requires={**item.requires, **free})
    for outcome in (outcomes := await appender.append_all([*verdicts, change])):
        if isinstance(outcome, VersionConflict):
            raise outcome
    appended = outcomes[-1]
    assert isinstance(appended, Appended)
    return appended


async def _last_verdicts(command: Command, task: Task, reason: str) -> list[Append]:
    schedule = task.definition["schedule"]
    if not is_timed(schedule):
        return []
    rule, requires = rule_of(schedule), {task_stream(task.id): task.stream_version}
    verdicts: list[Append] = []
    async with command.system.pool.acquire() as connection:
        due = await undecided_from(connection, task.id)
        while due := await _first_without(connection, task, rule, due, command.now):
            run_id, event = last_verdict(task, rule, due, command.now, reason)
            verdicts.append(command.append(run_stream(run_id), 0, [event], requires=requires))
            due = rule.next_after(datetime.fromisoformat(event.data["to"]))
    return verdicts


async def _first_without(
    connection: Connection, task: Task, rule: Schedule, at: datetime | None, now: datetime
) -> datetime | None:
    """The first instant from `at` up to now that has no verdict (from an earlier definition)."""
    while at is not None and at <= now:
        stream = run_stream(scheduled_run_id(task.id, at))
        if not await connection.fetchval("SELECT true FROM events WHERE stream = $1 LIMIT 1", stream):
            return at
        at = rule.next_after(at)
    return None
