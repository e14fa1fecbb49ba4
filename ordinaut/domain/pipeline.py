"""How a run goes through its pipeline: which step is next, what it sees, and what its outcome means.

Pure: the worker calls the tools and brings the outcome and the time here.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ordinaut.domain.definition import CompiledStep, Definition
from ordinaut.domain.definition_checks import STEP_ROOTS
from ordinaut.domain.events import NewEvent
from ordinaut.domain.expressions import truthy
from ordinaut.domain.jsonvalues import rfc3339
from ordinaut.domain.redact import redacted
from ordinaut.domain.run import FINISHED, Run


def remaining_steps(definition: Definition, run: Run) -> Iterator[CompiledStep]:
    """The steps that have neither succeeded nor been skipped, in order (I9)."""
    for step in definition.steps:
        record = run.steps.get(step.id)
        if record is None or record.state not in FINISHED:
            yield step


def scope(
    definition: Definition, run: Run, now: datetime, roots: Collection[str] = STEP_ROOTS
) -> dict[str, Any]:
    """What a step's expressions see: `params`, `input`, `steps`, `run` and `now` (RFC 3339). What is not
    among `roots`, the names they use, may be missing: a batch of runs should not pay for what nobody asks."""
    seen: dict[str, Any] = {"params": definition.params, "input": run.input}
    if "steps" in roots:
        seen["steps"] = outputs = {}
        for step in definition.steps:
            record = run.steps.get(step.id)
            if record is not None and record.state in FINISHED:
                for name in step.names:
                    outputs[name] = record.output
    if "run" in roots:
        seen["run"] = {
            "id": run.id, "task": run.task, "attempt": run.attempt, "cause": run.cause,
            "requested_at": run.requested_at.isoformat() if run.requested_at else None,
            "simulate": run.simulate,
        }  # fmt: skip
    if "now" in roots:
        seen["now"] = now.isoformat()
    return seen


def step_attempt(run: Run, step: CompiledStep) -> int:
    """Which attempt at the step comes next, from 1: one more than were recorded to have failed."""
    record = run.steps.get(step.id)
    return record.attempt + 1 if record is not None and record.state == "failed" else 1


def wanted(step: CompiledStep, seen: Mapping[str, Any]) -> bool:
    """Whether the step's `if` lets it run; raises ExpressionError."""
    return step.condition is None or truthy(step.condition.evaluate(seen))


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt at a step failed. `retry_after` is the seconds the other side asked for."""

    message: str
    retryable: bool
    details: Mapping[str, Any]
    retry_after: float | None = None


def skipped(step: CompiledStep) -> NewEvent:
    """The step's `if` was not true; its output is null."""
    return NewEvent("StepSkipped", {"step": step.id, "reason": "if is not true"})


def succeeded(
    step: CompiledStep, attempt: int, given: Any, output: Any, started: datetime, finished: datetime
) -> NewEvent:
    """The step is done and will not be done again (I9)."""
    data = {
        "step": step.id, "attempt": attempt, "input": redacted(given), "output": output,
        "started_at": rfc3339(started), "finished_at": rfc3339(finished),
    }  # fmt: skip
    return NewEvent("StepSucceeded", data)


def run_succeeded(run: Run, output: Any) -> NewEvent:
    """Every step is done or skipped; the run's output is that of its last step that was not skipped."""
    return NewEvent("RunSucceeded", {"task": run.task_id, "output": output})


def run_failed(run: Run, message: str, step: str | None = None) -> NewEvent:
    """The run ends here, with the reason."""
    return NewEvent("RunFailed", {"task": run.task_id, "error": {"message": message, "step": step}})


def failed(
    run: Run,
    step: CompiledStep,
    attempt: int,
    given: Any,
    failure: Failure,
    started: datetime,
    finished: datetime,
    random: float,
) -> tuple[list[NewEvent], datetime | None]:
    """What a failed attempt means: the events, and when the run is due again (None: it has ended).

    `random`, in [0, 1), decides the jitter; it ends up in the event, so that reading the log again
    needs none.
    """
    error = {
        "message": failure.message,
        "retryable": failure.retryable,
        **({"details": dict(failure.details)} if failure.details else {}),
    }
    data = {
        "step": step.id, "attempt": attempt, "input": redacted(given), "error": error,
        "started_at": started.isoformat(), "finished_at": finished.isoformat(),
    }  # fmt: skip
    event = NewEvent("StepFailed", data)
    if not failure.retryable or attempt >= step.retry.max_attempts:
        spent = f" (attempt {attempt} of {step.retry.max_attempts})" if step.retry.max_attempts > 1 else ""
        return [event, run_failed(run, f"step {step.id!r} failed{spent}: {failure.message}", step.id)], None
    wait = max(step.retry.delay(attempt, random), failure.retry_after or 0.0)
    run_at = finished + timedelta(seconds=wait)
    tried = f"attempt {attempt} of {step.retry.max_attempts}"
    retry = {
        "task": run.task_id, "run_at": run_at.isoformat(), "step": step.id,
        "reason": f"step {step.id!r} failed ({tried}): {failure.message}",
    }  # fmt: skip
    return [event, NewEvent("RunRetryScheduled", retry)], run_at
