"""Ending a schedule: what was due by it and not decided yet gets its verdict together with the change."""

from dataclasses import replace
from datetime import datetime

from ordinaut.api.door import Command
from ordinaut.api.taskcommands import rule_of
from ordinaut.domain.closing import last_verdict
from ordinaut.domain.errors import VersionConflict
from ordinaut.domain.ids import scheduled_run_id
from ordinaut.domain.run import run_stream
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.task import Task, task_stream
from ordinaut.log.append import Append, Appended, Connection
from projections.schedules import undecided_from


async def append_and_close(command: Command, task: Task, item: Append, reason: str) -> Appended:
    """Append `item`, which ends the schedule of `task`, and the verdict `reason` on the instants that are
    due by it: both or neither. Raises what `Appender.append` raises; a clock that decides at the same
    moment is a `VersionConflict`."""
    appender, last = command.system.appender, await _last_verdict(command, task, reason)
    if last is None:
        return await appender.append(item)
    # The two stand on the same conditions, so neither is written without the other.
    change = replace(item, requires={**item.requires, last.stream: 0})
    for outcome in (outcomes := await appender.append_all([last, change])):
        if isinstance(outcome, VersionConflict):
            raise outcome
    appended = outcomes[1]
    assert isinstance(appended, Appended)
    return appended


async def _last_verdict(command: Command, task: Task, reason: str) -> Append | None:
    schedule = task.definition["schedule"]
    if schedule is None or "on" in schedule:
        return None
    rule = rule_of(schedule)
    async with command.system.pool.acquire() as connection:
        due = await undecided_from(connection, task.id)
        due = await _first_without(connection, task, rule, due, command.now)
    if due is None:
        return None
    run_id, event = last_verdict(task, rule, 0, due, command.now, reason)
    requires = {task_stream(task.id): task.stream_version}
    return command.append(run_stream(run_id), 0, [event], requires=requires)


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
