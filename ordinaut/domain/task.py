"""A task: what its events make it (`evolve`), and what may happen to it next (the decisions).

A decision takes the state and what is wanted, and gives the events that make it so: none when it is
so already, an error when it cannot be. It is given the time; it never asks for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from ordinaut.domain.errors import AlreadyExists, Invalid, NotFound, NotPossible
from ordinaut.domain.events import Event, NewEvent

Status = Literal["active", "paused", "retired"]

_SHORTEST = timedelta(milliseconds=1)


def task_stream(task_id: str) -> str:
    """The stream that holds a task's events."""
    return f"task-{task_id}"


@dataclass(slots=True)
class Task:
    """A task as its events up to `stream_version` make it. `version` counts its definitions.

    `paused_until` is when the pause it is in ends by itself (None: when somebody ends it), `pause_ended`
    when its last pause was over.
    """

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
    paused_until: datetime | None = None
    pause_ended: datetime | None = None
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
        if self.pauses(at):
            return "paused"
        if self.snoozed_until is not None and at < self.snoozed_until:
            return "snoozed"
        return None

    def pauses(self, at: datetime) -> bool:
        """Whether the pause the task is in covers the instant `at`: whoever decides after `paused_until`
        need not wait for the clock to say so."""
        return self.status == "paused" and (self.paused_until is None or at < self.paused_until)

    def hold(self, at: datetime) -> tuple[str, datetime | None] | None:
        """Why a planned instant that has no verdict yet is skipped, and up to which instant (not included,
        None: for good) that holds for those after it; None when it is not.

        Unlike `skip_reason` it looks back: what a pause covered stays `paused` when the pause is over.
        """
        if self.status == "active" and self.pause_ended is not None and at < self.pause_ended:
            return "paused", self.pause_ended
        match self.skip_reason(at):
            case None:
                return None
            case "paused":
                return "paused", self.paused_until
            case "snoozed":
                return "snoozed", self.snoozed_until
            case reason:
                return reason, None


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
            task.paused_reason = task.snoozed_until = task.paused_until = task.pause_ended = None
            task.created_by_key = data.get("idempotency_key")
        case "TaskChanged":
            task.definition = data["definition"]
            task.version = data["version"]
            task.changed_at = event.at
        case "TaskPaused":
            task.status = "paused"
            task.paused_reason = data.get("reason")
            task.paused_until = _instant(data.get("until"))
        case "TaskResumed":
            if task.status == "paused":
                task.pause_ended = min(event.at, task.paused_until or event.at)
            task.status = "active"
            task.paused_reason = task.paused_until = None
            task.snoozed_until = _instant(data.get("snoozed_until"))
        case "TaskSnoozed":
            task.snoozed_until = datetime.fromisoformat(data["until"])
        case "TaskRetired":
            task.status = "retired"
        case _:
            raise ValueError(f"{event.type} is not an event of a task")
    task.stream_version = event.version


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def fold(task_id: str, events: Iterable[Event]) -> Task:
    """The task that these events of its stream, from the first on, make."""
    task = Task(task_id)
    for event in events:
        evolve(task, event)
    return task


Plan = Sequence[Mapping[str, Any]]
"""The instant a schedule is planned with, as `[{"at": RFC 3339}]`; `[]` without a schedule."""


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


def change(
    task: Task, definition: dict[str, Any], plan: Plan, tz: str, *, effective_at: datetime | None = None
) -> list[NewEvent]:
    """Give the task another definition; no event when it is the one it has.

    The plan is part of the event only when the schedule changed, so that changing a pipeline does not
    move the next fire time. `effective_at` is the instant the plan was made at: up to it (included) the old
    schedule names the instants, behind it the new one, however long the event waits to be recorded. None
    where only the order of events counts.
    """
    require_existing(task, task.name)
    if definition == task.definition:
        return []
    data: dict[str, Any] = {"name": task.name, "version": task.version + 1, "definition": definition}
    if definition["schedule"] != task.definition["schedule"]:
        data |= {"plan": plan, "tz": tz} | _effective(effective_at)
    return [NewEvent("TaskChanged", data)]


def replan(
    task: Task, at: datetime | None, tz: str, *, was: datetime, was_tz: str, effective_at: datetime
) -> list[NewEvent]:
    """Plan the schedule anew, at `at` (None: it never fires again), because the tz database is another one
    now; a version of its own, because from `effective_at` on the rule names other instants."""
    require_existing(task, task.name)
    data: dict[str, Any] = {
        "name": task.name,
        "version": task.version + 1,
        "definition": task.definition,
        "plan": [] if at is None else [{"at": at.isoformat()}],
        "tz": tz,
        "refreshed": {"at": was.isoformat(), "tz": was_tz},
    }
    return [NewEvent("TaskChanged", data | _effective(effective_at))]


def require_ahead(until: datetime | None, now: datetime) -> None:
    """Raise `Invalid` when the end of a pause or a snooze is not ahead."""
    if until is not None and until <= now:
        raise Invalid.at("/until", f"{until.isoformat()} is in the past", "an instant ahead")


def pause(task: Task, reason: str | None, until: datetime | None = None) -> list[NewEvent]:
    """No occurrence before `until` (None: before the task is resumed) fires; each gets the verdict
    skipped, paused.

    A task that is paused already is from now on paused until `until`; without a `reason` the one it has
    stays. Whether `until` is ahead is for `require_ahead` to say.
    """
    require_existing(task, task.name)
    if task.status == "paused":
        reason = task.paused_reason if reason is None else reason
        if (reason, until) == (task.paused_reason, task.paused_until):
            return []
    data = {"name": task.name, "reason": reason, "until": None if until is None else until.isoformat()}
    return [NewEvent("TaskPaused", data)]


def resume(task: Task, reason: str | None = None) -> list[NewEvent]:
    """End a pause or a snooze."""
    require_existing(task, task.name)
    if task.status == "active" and task.snoozed_until is None:
        return []
    return [NewEvent("TaskResumed", {"name": task.name, "reason": reason})]


def end_pause(task: Task, now: datetime) -> list[NewEvent]:
    """End the pause whose `paused_until` has come, as the clock does; no event when there is none.

    A snooze is not over with it.
    """
    if task.status != "paused" or task.pauses(now) or task.paused_until is None:
        return []
    reason = f"the pause was until {task.paused_until.isoformat()}"
    data: dict[str, Any] = {"name": task.name, "reason": reason}
    if task.snoozed_until is not None:
        data["snoozed_until"] = task.snoozed_until.isoformat()
    return [NewEvent("TaskResumed", data)]


def snooze(task: Task, until: datetime, now: datetime, reason: str | None) -> list[NewEvent]:
    """Skip the occurrences before `until`, which must be ahead."""
    require_existing(task, task.name)
    if task.pauses(now):
        raise NotPossible(f"the task {task.name!r} is paused; resume it before snoozing it")
    require_ahead(until, now)
    if task.snoozed_until == until:
        return []
    return [NewEvent("TaskSnoozed", {"name": task.name, "until": until.isoformat(), "reason": reason})]


def snooze_once(task: Task, due: datetime, now: datetime, reason: str | None) -> list[NewEvent]:
    """Skip the occurrence at `due`, the next one, and none after it; no event when a snooze covers it."""
    require_existing(task, task.name)
    if task.status == "active" and task.snoozed_until is not None and due < task.snoozed_until:
        return []
    return snooze(task, due + _SHORTEST, now, reason)


def retire(task: Task, reason: str | None, *, effective_at: datetime | None = None) -> list[NewEvent]:
    """Take the task out of use. Its runs and events stay; its name is free again. `effective_at`: see
    `change`; behind it no schedule names an instant."""
    require_existing(task, task.name)
    return [NewEvent("TaskRetired", {"name": task.name, "reason": reason} | _effective(effective_at))]


def _effective(at: datetime | None) -> dict[str, str]:
    return {} if at is None else {"effective_at": at.astimezone(UTC).isoformat()}
