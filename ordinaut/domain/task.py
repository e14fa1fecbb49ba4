"""A task: what its events make it (`evolve`), and what may happen to it next (the decisions).

A decision takes the state and what is wanted, and gives the events that make it so: none when it is
so already, an error when it cannot be. It is given the time; it never asks for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from ordinaut.domain.errors import AlreadyExists, Invalid, NotFound, NotPossible
from ordinaut.domain.events import Event, NewEvent

Status = Literal["active", "paused", "retired"]


def task_stream(task_id: str) -> str:
    """The stream that holds a task's events."""
    return f"task-{task_id}"


@dataclass(slots=True)
class Task:
    """A task as its events up to `stream_version` make it. `version` counts its definitions."""

    id: str
    space: str = "default"
    name: str = ""
    status: Status = "retired"
    definition: dict[str, Any] = field(default_factory=dict)
    version: int = 0
    stream_version: int = 0
    created_at: datetime | None = None
    changed_at: datetime | None = None
    paused_reason: str | None = None
    snoozed_until: datetime | None = None
    created_by_key: str | None = None

    @property
    def exists(self) -> bool:
        """Whether the name is in use; a retired task's name is free again."""
        return self.status != "retired"

    @property
    def overlap(self) -> str:
        """What happens when an occurrence comes due while a run of the task is not finished."""
        return str(self.definition["policy"]["overlap"])

    def skip_reason(self, at: datetime) -> str | None:
        """Why an occurrence at the instant `at` would not run now; None when it would."""
        if self.status == "retired":
            return "retired"
        if self.status == "paused":
            return "paused"
        if self.snoozed_until is not None and at < self.snoozed_until:
            return "snoozed"
        return None


def evolve(task: Task, event: Event) -> None:
    """Fold one event into the task, in place."""
    data = event.data
    match event.type:
        case "TaskCreated":
            task.space = event.space
            task.name = data["name"]
            task.status = "active"
            task.definition = data["definition"]
            task.version = data["version"]
            # Never behind the event: what a stream gets after the task was acknowledged is the task's.
            task.created_at = task.changed_at = min(datetime.fromisoformat(data["created_at"]), event.at)
            task.paused_reason = task.snoozed_until = None
            task.created_by_key = data.get("idempotency_key")
        case "TaskChanged":
            task.definition = data["definition"]
            task.version = data["version"]
            task.changed_at = event.at
        case "TaskPaused":
            task.status = "paused"
            task.paused_reason = data.get("reason")
        case "TaskResumed":
            task.status = "active"
            task.paused_reason = task.snoozed_until = None
        case "TaskSnoozed":
            task.snoozed_until = datetime.fromisoformat(data["until"])
        case "TaskRetired":
            task.status = "retired"
        case _:
            raise ValueError(f"{event.type} is not an event of a task")
    task.stream_version = event.version


def fold(task_id: str, events: Iterable[Event]) -> Task:
    """The task that these events of its stream, from the first on, make."""
    task = Task(task_id)
    for event in events:
        evolve(task, event)
    return task


Plan = Sequence[Mapping[str, Any]]
"""The planned instants: `{"index": number of the schedule, "at": RFC 3339 | None}`, one a schedule."""


def require_existing(task: Task, name: str) -> None:
    """Raise `NotFound` unless there is such a task that is not retired."""
    if not task.exists:
        raise NotFound(f"there is no task {name!r}" if task.version == 0 else f"the task {name!r} is retired")


def create(
    task: Task,
    name: str,
    definition: dict[str, Any],
    plan: Plan,
    tz: str,
    key: str | None = None,
    *,
    created_at: datetime,
) -> list[NewEvent]:
    """Create the task. `key` is the Idempotency-Key of the request, so that its repetition is known.

    `created_at` is the instant the schedule was completed with: the same document, completed with it
    again, gives the same definition.
    """
    if task.exists:
        if key is not None and task.created_by_key == key:
            return []
        raise AlreadyExists(f"a task named {name!r} exists already; PUT /v1/tasks/{name} changes it")
    data = {
        "name": name,
        "version": task.version + 1,
        "definition": definition,
        "plan": plan,
        "tz": tz,
        "created_at": created_at.astimezone(UTC).isoformat(),
    }
    if key is not None:
        data["idempotency_key"] = key
    return [NewEvent("TaskCreated", data)]


def change(task: Task, definition: dict[str, Any], plan: Plan, tz: str) -> list[NewEvent]:
    """Give the task another definition; no event when it is the one it has.

    The plan is part of the event only when the schedule changed, so that changing a pipeline does not
    move the next fire time.
    """
    require_existing(task, task.name)
    if definition == task.definition:
        return []
    data: dict[str, Any] = {"name": task.name, "version": task.version + 1, "definition": definition}
    if definition["schedule"] != task.definition["schedule"]:
        data |= {"plan": plan, "tz": tz}
    return [NewEvent("TaskChanged", data)]


def pause(task: Task, reason: str | None) -> list[NewEvent]:
    """No occurrence fires until the task is resumed; each gets the verdict skipped, paused."""
    require_existing(task, task.name)
    if task.status == "paused":
        return []
    return [NewEvent("TaskPaused", {"name": task.name, "reason": reason})]


def resume(task: Task) -> list[NewEvent]:
    """End a pause or a snooze."""
    require_existing(task, task.name)
    if task.status == "active" and task.snoozed_until is None:
        return []
    return [NewEvent("TaskResumed", {"name": task.name})]


def snooze(task: Task, until: datetime, now: datetime, reason: str | None) -> list[NewEvent]:
    """Skip the occurrences before `until`, which must be ahead."""
    require_existing(task, task.name)
    if task.status == "paused":
        raise NotPossible(f"the task {task.name!r} is paused; resume it before snoozing it")
    if until <= now:
        raise Invalid.at("/until", f"{until.isoformat()} is in the past", "an instant ahead")
    if task.snoozed_until == until:
        return []
    return [NewEvent("TaskSnoozed", {"name": task.name, "until": until.isoformat(), "reason": reason})]


def retire(task: Task, reason: str | None) -> list[NewEvent]:
    """Take the task out of use. Its runs and events stay; its name is free again."""
    require_existing(task, task.name)
    return [NewEvent("TaskRetired", {"name": task.name, "reason": reason})]
