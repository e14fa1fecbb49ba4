"""Asking for a run: the event that begins one, made from the task in force and the cause."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ordinaut.domain.definition import Definition
from ordinaut.domain.events import NewEvent
from ordinaut.domain.expressions import ExpressionError, Template
from ordinaut.domain.patterns import Pattern
from ordinaut.domain.task import Task

MAX_DEPTH = 16
"""How many runs may cause one another in a chain (a step publishes an event that triggers a task whose
step …); the next one is not started, so that a loop of tasks ends."""


def concurrency(definition: Definition, space: str, payload: Any) -> dict[str, Any] | None:
    """The key the run counts under and its limit. Keys are the space's: two tasks may share one."""
    policy = definition.policy.concurrency
    if policy is None:
        return None
    try:
        key = policy.key.render({"params": definition.params, "input": payload})
    except ExpressionError as error:
        # A run must not be lost because its key cannot be told: it then counts under its own word.
        key = f"unrenderable: {error}"
    return {"key": f"{space}/{key if isinstance(key, str) else repr(key)}", "limit": policy.limit}


def request_run(
    task: Task,
    definition: Definition,
    cause: Mapping[str, Any],
    payload: Any,
    *,
    depth: int = 0,
    simulate: bool = False,
    run_at: datetime | None = None,
    extra: Mapping[str, Any] | None = None,
) -> NewEvent:
    """RunRequested for `task`. `payload` becomes the run's input, `run_at` puts it off; `extra` is what
    an occurrence of a schedule adds (`next`, `tz`) or has instead."""
    data: dict[str, Any] = {
        "task": task.id,
        "name": task.name,
        "task_version": task.version,
        "cause": dict(cause),
        "input": payload,
        "priority": definition.policy.priority,
        "max_attempts": definition.policy.max_attempts,
        "depth": depth,
    }
    if limit := concurrency(definition, task.space, payload):
        data["concurrency"] = limit
    if simulate:
        data["simulate"] = True
    if run_at is not None:
        data["run_at"] = run_at.isoformat()
    if extra:
        data.update(extra)
    return NewEvent("RunRequested", data)


def one_at_a_time(task: Task, definition: Definition) -> dict[str, Any]:
    """What a run for an instant of the task's schedule adds where its runs queue up (`policy.overlap`): a
    concurrency limit of one, unless the task says how many may run at once."""
    queues = definition.policy.overlap in ("queue_one", "queue_all")
    if not queues or definition.policy.concurrency is not None:
        return {}
    return {"concurrency": {"key": f"task/{task.id}", "limit": 1}}


MAX_KEY = 512
"""The longest key of a window, in characters."""


def key_of(key: Template | None, seen: Mapping[str, Any]) -> str:
    """The key an event is collected under; "" without one. Raises ExpressionError."""
    if key is None:
        return ""
    value = key.render(seen)
    if value is None:
        raise ExpressionError(f"the key {key.value!r} names nothing")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    if len(text) > MAX_KEY:
        raise ExpressionError(f"the key has {len(text)} characters; at most {MAX_KEY} are allowed")
    return text


def collect_event(
    task: Task,
    cause: Mapping[str, Any],
    pattern: Pattern,
    key: str,
    at: str,
    payload: Any,
    *,
    depth: int = 0,
    parts: Sequence[str] = (),
) -> NewEvent:
    """EventCollected: the event waits in the task's window `key`. `at` is its own time (RFC 3339), no later
    than now, `payload` what a run for it gets as input; where it is `parts` of the pattern, an object with
    one for each."""
    data: dict[str, Any] = {
        "task": task.id,
        "name": task.name,
        "task_version": task.version,
        "cause": dict(cause),
        "pattern": pattern.as_data(),
        "key": key,
        "at": at,
        "input": payload,
        "depth": depth,
    }
    if parts:
        data["parts"] = list(parts)
    return NewEvent("EventCollected", data)


def skip_occurrence(
    task: Task, cause: Mapping[str, Any], reason: str, extra: Mapping[str, Any] | None = None
) -> NewEvent:
    """OccurrenceSkipped: the verdict on an occurrence that does not run, and why.

    `extra` holds what a scheduled one adds: `next`, `tz`, and for a range `from`, `to`, `count`.
    """
    return NewEvent(
        "OccurrenceSkipped",
        {
            "task": task.id,
            "name": task.name,
            "task_version": task.version,
            "cause": dict(cause),
            "reason": reason,
        }
        | dict(extra or {}),
    )
