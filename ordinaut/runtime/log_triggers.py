"""What an event of the log means for the tasks that listen to its type. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ordinaut.domain import ids
from ordinaut.domain.events import Event, NewEvent
from ordinaut.domain.request import MAX_DEPTH
from ordinaut.domain.run import run_stream
from ordinaut.domain.task import task_stream
from ordinaut.log.append import Append
from ordinaut.runtime.listening import Listening
from ordinaut.runtime.triggers import requires, verdicts

ACTOR = "intake"


def decide_event(event: Event, first: Event, listening: Listening, *, now: datetime) -> Iterator[Append]:
    """The verdict on an event for each of those listening tasks that it concerns; `first` is the first event
    of its stream."""
    depth = _depth(event, first)
    if depth > MAX_DEPTH + 1:
        return  # the chain was cut one event ago, and that is on record
    seen = envelope_of(event, first)
    cause = {"kind": "system", "event": event.type, "position": event.position, "stream": event.stream}
    concerned = [each for each in listening.concerned(seen) if _is_for(event, each.task)]
    for verdict in verdicts(concerned, seen, cause, now=now, depth=depth):
        task = verdict.task
        run = ids.system_run_id(int(event.at.timestamp() * 1000), event.position, task.id)
        if verdict.event is not None:
            yield Append(
                run_stream(run), 0, (verdict.event,), task.space, ACTOR, event.correlation,
                event.reference, requires(task),
            )  # fmt: skip
        else:
            about = {"task": task.id, "name": task.name}
            yield rejection(event, run, about, verdict.error or "", depth)


def envelope_of(event: Event, first: Event) -> dict[str, Any]:
    """What `where` and `input` see of an event of the log; `first` is the first one of its stream.

    `data` is the event's own. Of a run's event it also names the `run`, the `task` and the run's `cause`, of
    a task's event the `task`.
    """
    data = dict(event.data)
    if event.stream.startswith("run-"):
        data |= {
            "run": event.stream.removeprefix("run-"),
            "task": first.data["name"],
            "cause": first.data["cause"],
        }
    elif event.stream.startswith("task-"):
        data["task"] = event.data["name"]
    about = {
        "type": event.type, "position": event.position, "version": event.version, "space": event.space,
        "actor": event.actor, "correlation": event.correlation, "causation": event.causation,
    }  # fmt: skip
    return {
        "data": data, "stream": event.stream, "id": str(event.position), "time": event.at.isoformat(),
        "event": about,
    }  # fmt: skip


def _depth(event: Event, first: Event) -> int:
    """How many runs have caused one another up to what this event starts."""
    return int(first.data.get("depth", 0)) + 1


def _is_for(event: Event, task: Any) -> bool:
    """Whether the task was there already; its own beginning is not its to react to."""
    if task.created_at is None or event.at < task.created_at:
        return False
    return not (event.type == "TaskCreated" and event.stream == task_stream(task.id))


def rejection(event: Event, run: str, about: dict[str, str], reason: str, depth: int) -> Append:
    """EventRejected of an event for one task (`about`: its id and name), whose run would have been `run`."""
    data = {"stream": event.stream, "id": str(event.position), "reason": reason, "depth": depth} | about
    stream = f"event-{ids.cause_id(int(event.at.timestamp() * 1000), 'rejected', run)}"
    rejected = NewEvent("EventRejected", data)
    return Append(stream, 0, (rejected,), event.space, ACTOR, event.correlation, event.reference)
