"""A run: what its events make it (`evolve`), and what may happen to it next (the decisions).

The first event of a run's stream is the verdict on an occurrence: RunRequested, or
OccurrenceSkipped and then nothing more. Both compete for version 1, so there is one verdict (I7, I8).
An event that a task collects (domain/windows.py) has such a stream too, which begins with EventCollected.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from ordinaut.domain.errors import NotPossible
from ordinaut.domain.events import Event, NewEvent

State = Literal["queued", "running", "waiting", "succeeded", "failed", "canceled", "parked", "skipped"]

ENDED: frozenset[str] = frozenset({"succeeded", "failed", "canceled", "parked", "skipped"})
FINISHED: frozenset[str] = frozenset({"succeeded", "skipped"})
RETRYABLE: frozenset[str] = frozenset({"failed", "canceled", "parked"})


def run_stream(run_id: str) -> str:
    """The stream that holds a run's events."""
    return f"run-{run_id}"


@dataclass(slots=True)
class StepRecord:
    """What the log knows of one step of a run. `attempt` counts from 1; instants are UTC."""

    id: str
    state: Literal["running", "succeeded", "failed", "skipped"]
    attempt: int = 1
    input: Any = None
    output: Any = None
    error: Any = None
    started_at: str | None = None
    finished_at: str | None = None

    def public(self) -> dict[str, Any]:
        """The step as the API shows it."""
        return {
            "id": self.id, "state": self.state, "attempt": self.attempt, "input": self.input,
            "output": self.output, "error": self.error, "started_at": self.started_at,
            "finished_at": self.finished_at,
        }  # fmt: skip


@dataclass(slots=True)
class Run:
    """A run as its events up to `stream_version` make it.

    `attempt` counts leases. `crashes` counts those that ended without a word (the worker died or lost
    its lease): only they use up `max_attempts`; a step's retries are counted by the step. `timed_from`
    is when policy.timeout began to run: the first start, or the first after the run was opened again.
    """

    id: str
    space: str = "default"
    task_id: str = ""
    task: str = ""
    task_version: int = 0
    state: State = "queued"
    attempt: int = 0
    crashes: int = 0
    max_attempts: int = 5
    cause: dict[str, Any] = field(default_factory=dict)
    input: Any = None
    output: Any = None
    error: Any = None
    simulate: bool = False
    limited: bool = False
    depth: int = 0
    correlation: str = ""
    requested_at: datetime | None = None
    started_at: datetime | None = None
    timed_from: datetime | None = None
    finished_at: datetime | None = None
    run_at: datetime | None = None
    steps: dict[str, StepRecord] = field(default_factory=dict)
    stream_version: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state in ENDED


def evolve(run: Run, event: Event) -> None:
    """Fold one event into the run, in place."""
    data = event.data
    match event.type:
        case "RunRequested":
            run.space = event.space
            run.task_id, run.task, run.task_version = data["task"], data["name"], data["task_version"]
            run.cause, run.input = data["cause"], data["input"]
            run.max_attempts = data["max_attempts"]
            run.simulate = data.get("simulate", False)
            run.limited = "concurrency" in data
            run.depth = data["depth"]
            run.correlation = event.correlation
            run.requested_at = event.at
            run.run_at = datetime.fromisoformat(data["run_at"]) if data.get("run_at") else None
        case "OccurrenceSkipped" | "EventCollected":
            run.space = event.space
            run.task_id, run.task, run.task_version = data["task"], data["name"], data["task_version"]
            run.cause, run.correlation = data["cause"], event.correlation
            why = f"skipped: {data['reason']}" if "reason" in data else "collected with others in a window"
            run.state, run.error = "skipped", {"message": why}
            run.requested_at = run.finished_at = event.at
        case _:
            go_on(run, event, event.at)
    run.stream_version = event.version


def go_on(run: Run, event: Event | NewEvent, at: datetime) -> None:
    """Fold an event of `at` that does not begin the run's stream; the version is left to the caller."""
    data = event.data
    match event.type:
        case "RunStarted":
            run.state = "running"
            run.attempt = data["attempt"]
            run.crashes += 1  # taken back by whichever event ends the lease in an orderly way
            run.started_at = run.started_at or at
            run.timed_from = run.timed_from or at
            run.run_at = None
        case "StepStarted":
            run.steps[data["step"]] = StepRecord(
                data["step"], "running", data["attempt"], data.get("input"), started_at=data["started_at"]
            )
        case "StepSucceeded" | "StepFailed" | "StepSkipped":
            run.steps[data["step"]] = step_record(event.type, data)
        case "RunRetryScheduled" | "RunWaiting":
            run.state = "waiting"
            run.crashes = 0 if data.get("reopened") else max(0, run.crashes - 1)
            run.run_at = datetime.fromisoformat(data["run_at"])
            if data.get("reopened"):
                run.finished_at = run.error = run.timed_from = None
                # A failed step begins again with its first attempt; a finished one stays finished (I9).
                run.steps = {id: step for id, step in run.steps.items() if step.state in FINISHED}
        case "RunResumed":
            run.state = "queued"
        case "RunSucceeded":
            run.state, run.output, run.finished_at = "succeeded", data.get("output"), at
        case "RunFailed":
            run.state, run.error, run.finished_at = "failed", data["error"], at
        case "RunCanceled":
            run.state, run.finished_at, run.run_at = "canceled", at, None
            run.error = {"message": data.get("reason") or "canceled"}
        case "RunParked":
            run.state, run.error, run.finished_at = "parked", data["error"], at
        case _:
            raise ValueError(f"{event.type} is not an event of a run")


def step_record(kind: str, data: Mapping[str, Any]) -> StepRecord:
    """What a StepSucceeded, StepFailed or StepSkipped says of its step."""
    state: Literal["succeeded", "failed", "skipped"] = (
        "succeeded" if kind == "StepSucceeded" else "failed" if kind == "StepFailed" else "skipped"
    )
    return StepRecord(
        data["step"], state, data.get("attempt", 1), data.get("input"), data.get("output"),
        data.get("error"), data.get("started_at"), data.get("finished_at"),
    )  # fmt: skip


def fold(run_id: str, events: Iterable[Event]) -> Run:
    """The run that these events of its stream, from the first on, make."""
    run = Run(run_id)
    for event in events:
        evolve(run, event)
    return run


def start(run: Run, worker: str) -> NewEvent:
    """What leasing the run means: it starts, or it is parked because its attempts are spent.

    The caller has checked that the run has not ended and is due.
    """
    if run.crashes >= run.max_attempts:
        message = (
            f"the run was started {run.attempt} times and its worker was lost {run.crashes} times in the"
            f" middle of it (policy.max_attempts is {run.max_attempts});"
            f" POST /v1/runs/{run.id}/retry tries again"
        )
        return NewEvent(
            "RunParked", {"task": run.task_id, "error": {"message": message}, "attempt": run.attempt}
        )
    return NewEvent("RunStarted", {"task": run.task_id, "attempt": run.attempt + 1, "worker": worker})


def cancel(run: Run, reason: str | None) -> list[NewEvent]:
    """End a run that has not ended; no event when it is canceled already."""
    if run.state == "canceled":
        return []
    if run.ended:
        raise NotPossible(f"the run {run.id} has ended already: it {run.state}")
    return [NewEvent("RunCanceled", {"task": run.task_id, "reason": reason})]


def retry(run: Run, now: datetime) -> list[NewEvent]:
    """Open a run that failed, was canceled or parked again: it goes on behind its last finished step
    (I9), with its attempts, those of its steps and its timeout counted anew. No event when it is under
    way already."""
    if run.state not in RETRYABLE:
        if not run.ended:
            return []
        raise NotPossible(
            f"the run {run.id} {run.state}; only failed, canceled and parked runs can be retried"
        )
    return [
        NewEvent(
            "RunRetryScheduled",
            {
                "task": run.task_id,
                "run_at": now.isoformat(),
                "reason": "retry was asked for",
                "reopened": True,
            },
        )
    ]


def hand_back(run: Run, now: datetime) -> NewEvent:
    """A worker that is stopping gives the run to the next one, at once and without counting it."""
    return NewEvent(
        "RunRetryScheduled",
        {"task": run.task_id, "run_at": now.isoformat(), "reason": "the worker is stopping"},
    )
