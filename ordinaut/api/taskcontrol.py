"""Pause, resume and snooze: one task by its name, or all that have certain labels at once."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fastapi import APIRouter

from ordinaut.api import openapi
from ordinaut.api.bodies import instant_field, text_field
from ordinaut.api.door import Answer, Command, Direct, command
from ordinaut.api.taskcommands import Decide, change_task, public
from ordinaut.domain import task as decisions
from ordinaut.domain.durations import parse_duration
from ordinaut.domain.errors import Fault, Invalid, NotPossible, VersionConflict
from ordinaut.domain.jsonvalues import escape
from ordinaut.domain.schedules.spec import is_timed, rule_of
from ordinaut.domain.task import Task, fold, task_stream
from ordinaut.log.append import Append, Appended, append
from ordinaut.log.read import read_streams
from projections import tasks as tasks_table

router = APIRouter(prefix="/v1", tags=["tasks"], route_class=Direct)

_WHEN = {"until": openapi.INSTANT, "for": openapi.DURATION, "reason": openapi.TEXT}
_LABELS = {
    "labels": {
        "type": "object",
        "additionalProperties": openapi.TEXT,
        "minProperties": 1,
        "description": "A task must have all of them.",
    }
}


@router.post("/tasks/{name_or_id}/pause", openapi_extra=openapi.body(_WHEN))
@command
async def pause_task(command: Command) -> Answer:
    """Pause a task: its occurrences before `until`, or within `for`, are skipped; with neither, until it is
    resumed. Pausing a paused task again gives its pause another end or reason."""
    decide = _pause(command, command.body(("until", "for", "reason")))
    return await _changed(command, decide)


@router.post("/tasks/{name_or_id}/resume", openapi_extra=openapi.body({"reason": openapi.TEXT}))
@command
async def resume_task(command: Command) -> Answer:
    """End a pause or a snooze."""
    reason = text_field(command.body(("reason",)), "reason")
    return await _changed(command, lambda task: decisions.resume(task, reason))


@router.post("/tasks/{name_or_id}/snooze", openapi_extra=openapi.body(_WHEN))
@command
async def snooze_task(command: Command) -> Answer:
    """Skip what is due before `until`, or within `for`; with neither, the next occurrence."""
    body = command.body(("until", "for", "reason"))
    until, reason, now = _end(body, command.now), text_field(body, "reason"), command.now

    def decide(task: Task) -> Any:
        decisions.require_existing(task, task.name)
        if until is not None:
            return decisions.snooze(task, until, now, reason)
        schedule = task.definition["schedule"]
        due = rule_of(schedule).kept_after(now) if is_timed(schedule) else None
        if due is None:
            raise NotPossible(
                f"the task {task.name!r} has no next occurrence; say `until` when, or `for` how long"
            )
        return decisions.snooze_once(task, due, now, reason)

    return await _changed(command, decide)


@router.post("/tasks:pause", openapi_extra=openapi.body(_LABELS | _WHEN, required=("labels",)))
@command
async def pause_tasks(command: Command) -> Answer:
    """Pause all tasks that have the labels, or none: the answer names those that were `changed`, and those
    that were paused so `already`."""
    body = command.body(("labels", "until", "for", "reason"))
    return await _change_all(command, _labels(body), _pause(command, body))


@router.post(
    "/tasks:resume", openapi_extra=openapi.body(_LABELS | {"reason": openapi.TEXT}, required=("labels",))
)
@command
async def resume_tasks(command: Command) -> Answer:
    """End the pause or the snooze of all tasks that have the labels, or of none: the answer names those that
    were `changed`, and those that were active `already`."""
    body = command.body(("labels", "reason"))
    reason = text_field(body, "reason")
    return await _change_all(command, _labels(body), lambda task: decisions.resume(task, reason))


def _pause(command: Command, body: Mapping[str, Any]) -> Decide:
    until, reason = _end(body, command.now), text_field(body, "reason")
    decisions.require_ahead(until, command.now)
    return lambda task: decisions.pause(task, reason, until)


def _end(body: Mapping[str, Any], now: datetime) -> datetime | None:
    """The instant that `until` names, or `for` (a duration from now); None without either."""
    until, length = instant_field(body, "until"), text_field(body, "for")
    if length is None:
        return until
    if until is not None:
        raise Invalid.at("/for", "`for` does not go with `until`", "leave one out")
    try:
        return now + parse_duration(length)
    except (ValueError, OverflowError) as error:
        raise Invalid.at("/for", str(error)) from None


async def _changed(command: Command, decide: Decide) -> Answer:
    task, position = await change_task(command, command.request.path_params["name_or_id"], decide)
    return Answer(200, await public(command, task), position)


def _labels(body: Mapping[str, Any]) -> dict[str, str]:
    labels, hint = body.get("labels"), 'such as {"team": "billing"}; a task must have all of them'
    if not isinstance(labels, dict) or not labels:
        what = "must be an object of labels" if labels else "must not be left out or empty"
        raise Invalid.at("/labels", what, hint)
    faults = [
        Fault(f"/labels/{escape(name)}", "a label's value is text")
        for name, value in labels.items()
        if not isinstance(value, str)
    ]
    if faults:
        raise Invalid.all_of(faults)
    return labels


async def _change_all(command: Command, labels: dict[str, str], decide: Decide) -> Answer:
    """Append what `decide` makes of each task of the space with these labels: all of it or nothing."""
    changes: list[tuple[str, Append]] = []
    already: list[str] = []
    for task in await _tasks_with(command, labels):
        if events := decide(task):
            item = command.append(task_stream(task.id), task.stream_version, events)
            changes.append((task.name, item))
        else:
            already.append(task.name)
    body = {"changed": [name for name, _ in changes], "already": already}
    if not changes:
        return Answer(200, body)
    position = await _append_together(command, [item for _, item in changes])
    return Answer(200, body, position)


async def _tasks_with(command: Command, labels: dict[str, str]) -> list[Task]:
    """The tasks of the space that have all the labels, as the log has them, by name; no retired ones."""
    async with command.system.pool.acquire() as connection:
        ids = await tasks_table.labelled(connection, command.space, labels)
        streams = await read_streams(connection, [task_stream(task_id) for task_id in ids])
    tasks = [fold(task_id, streams[stream]) for task_id in ids if (stream := task_stream(task_id)) in streams]
    return sorted(
        (task for task in tasks if task.exists and labels.items() <= task.definition["labels"].items()),
        key=lambda task: task.name,
    )


async def _append_together(command: Command, items: list[Append]) -> int:
    """The position of the last of them. Raises `VersionConflict` when a task has changed; then nothing was
    written."""
    async with command.system.pool.acquire() as connection, connection.transaction():
        outcomes = await append(connection, items)
        for outcome in outcomes:
            if isinstance(outcome, VersionConflict):
                raise outcome
    return max(outcome.position for outcome in outcomes if isinstance(outcome, Appended))
