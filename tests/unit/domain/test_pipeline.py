"""What becomes of a run, step by step: which comes next, what it sees, what its outcome means."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from ordinaut.domain import pipeline
from ordinaut.domain.definition import CompiledStep, Definition, parse_definition
from ordinaut.domain.events import NewEvent
from ordinaut.domain.expressions import ExpressionError
from ordinaut.domain.jsonvalues import rfc3339
from ordinaut.domain.pipeline import Failure
from ordinaut.domain.redact import MARK
from ordinaut.domain.run import Run, evolve
from tests.support.given import NOON, folded, logged
from tests.unit.domain.test_run import requested, started

BEGAN = NOON + timedelta(seconds=10)
ENDED = NOON + timedelta(seconds=11)


def define(*steps: dict[str, Any], **more: Any) -> Definition:
    document = {"name": "backup", "pipeline": [{"uses": "debug.echo", **step} for step in steps], **more}
    return parse_definition(document, created_at=NOON, known_tools=None)


def running(*events: NewEvent) -> Run:
    return folded(Run("r-1"), evolve, [requested(), started(), *events])


def done(step: CompiledStep, output: Any = None, given: Any = None, attempt: int = 1) -> NewEvent:
    return pipeline.succeeded(step, attempt, given, output, BEGAN, ENDED)


def fail(
    step: CompiledStep, run: Run, attempt: int = 1, given: Any = None, random: float = 0.0, **failure: Any
) -> tuple[list[NewEvent], datetime | None]:
    told = Failure(**{"message": "no", "retryable": True, "details": {}} | failure)
    return pipeline.failed(run, step, attempt, given, told, BEGAN, ENDED, random)


def names(steps: Any) -> list[str]:
    return [step.id for step in steps]


def test_steps_come_in_their_order_and_finished_ones_not_again() -> None:
    definition = define({"id": "a"}, {"id": "b"}, {"id": "c"})
    a, b, _ = definition.steps
    assert names(pipeline.remaining_steps(definition, running())) == ["a", "b", "c"]
    assert names(pipeline.remaining_steps(definition, running(done(a), pipeline.skipped(b)))) == ["c"]


def test_a_failed_step_is_still_to_be_done() -> None:
    definition = define({"id": "a", "retry": {"max_attempts": 2}}, {"id": "b"})
    events, _ = fail(definition.steps[0], running())
    run = running(*events)
    assert names(pipeline.remaining_steps(definition, run)) == ["a", "b"]
    assert pipeline.step_attempt(run, definition.steps[0]) == 2
    assert pipeline.step_attempt(run, definition.steps[1]) == 1


def test_a_step_sees_params_input_the_run_and_what_came_before() -> None:
    definition = define(
        {"id": "a", "save_as": "first"}, {"id": "b"}, {"id": "c"}, params={"city": "Chisinau"}
    )
    a, b, _ = definition.steps
    seen = pipeline.scope(definition, running(done(a, {"n": 1}), pipeline.skipped(b)), BEGAN)
    assert seen["params"] == {"city": "Chisinau"}
    assert seen["input"] == {"n": 1}
    assert seen["steps"] == {"a": {"n": 1}, "first": {"n": 1}, "b": None}
    assert seen["now"] == BEGAN.isoformat()
    assert seen["run"] == {
        "id": "r-1",
        "task": "backup",
        "attempt": 1,
        "cause": {"kind": "manual"},
        "requested_at": (NOON + timedelta(seconds=1)).isoformat(),
        "simulate": False,
    }


@pytest.mark.parametrize(
    "expression",
    ["input", "run.cause.kind", "steps.a.n", "now", "@", "@.run.id", "keys(@)", "*.id", "[run, now][0].task",
     "input.no || steps.a.n", "{at: now, n: steps.*.n}", "@ | run.requested_at", "!(steps.a)",
     "map(&n, [steps.a, input])"],
)  # fmt: skip
def test_a_step_sees_all_that_its_expressions_name(expression: str) -> None:
    definition = define({"id": "a"}, {"id": "b", "if": expression, "with": {"x": f"${{{expression}}}"}})
    a, b = definition.steps
    run = running(done(a, {"n": 1}))
    seen, everything = (pipeline.scope(definition, run, BEGAN, *roots) for roots in ((b.roots,), ()))
    assert b.with_template.render(seen) == b.with_template.render(everything)
    assert pipeline.wanted(b, seen) is pipeline.wanted(b, everything)


def test_a_failed_step_has_no_output_to_see() -> None:
    definition = define({"id": "a", "retry": {"max_attempts": 2}})
    events, _ = fail(definition.steps[0], running())
    assert pipeline.scope(definition, running(*events), BEGAN)["steps"] == {}


@pytest.mark.parametrize(
    ("condition", "is_wanted"),
    [
        ("input.n == `1`", True),
        ("input.n == `2`", False),
        ("input.nothing", False),
        ("input", True),
        ("`0`", True),
        ("`[]`", False),
        ("''", False),
    ],
)
def test_a_step_is_wanted_when_its_if_is_true_as_jmespath_has_it(condition: str, is_wanted: bool) -> None:
    definition = define({"id": "a", "if": condition})
    seen = pipeline.scope(definition, running(), BEGAN)
    assert pipeline.wanted(definition.steps[0], seen) is is_wanted


def test_a_step_without_if_is_wanted() -> None:
    definition = define({"id": "a"})
    assert pipeline.wanted(definition.steps[0], {})


def test_an_if_that_cannot_be_told_is_an_error() -> None:
    definition = define({"id": "a", "if": "length(input.n) > `1`"})
    with pytest.raises(ExpressionError):
        pipeline.wanted(definition.steps[0], pipeline.scope(definition, running(), BEGAN))


@examples(st.datetimes(timezones=st.just(UTC)))
def test_instants_are_recorded_as_python_writes_them(at: datetime) -> None:
    assert rfc3339(at) == at.isoformat()
    assert datetime.fromisoformat(rfc3339(at)) == at


def test_success_is_recorded_without_the_secrets_it_was_given() -> None:
    (step,) = define({"id": "a"}).steps
    assert done(step, 7, {"password": "hush", "user": "me"}, 2) == NewEvent(
        "StepSucceeded",
        {
            "step": "a",
            "attempt": 2,
            "input": {"password": MARK, "user": "me"},
            "output": 7,
            "started_at": BEGAN.isoformat(),
            "finished_at": ENDED.isoformat(),
        },
    )


def test_a_failure_is_recorded_without_the_secrets_it_was_given() -> None:
    (step,) = define({"id": "a"}).steps
    events, _ = fail(step, running(), given={"headers": {"Authorization": "Bearer hush"}})
    assert "hush" not in str(events)
    assert events[0].data["input"] == {"headers": {"Authorization": MARK}}


def test_a_failure_without_retry_ends_the_run_and_names_the_step() -> None:
    (step,) = define({"id": "a"}).steps
    events, run_at = fail(step, running(), details={"status": 500})
    assert run_at is None
    assert [event.type for event in events] == ["StepFailed", "RunFailed"]
    assert events[0].data["error"] == {"message": "no", "retryable": True, "details": {"status": 500}}
    assert events[1].data["error"] == {"message": "step 'a' failed: no", "step": "a"}


def test_a_failure_that_will_not_go_away_is_not_retried() -> None:
    (step,) = define({"id": "a", "retry": {"max_attempts": 5}}).steps
    events, run_at = fail(step, running(), retryable=False)
    assert run_at is None
    assert events[-1].data["error"]["message"] == "step 'a' failed (attempt 1 of 5): no"


def test_a_retry_is_put_off_by_the_backoff_and_says_what_happened() -> None:
    (step,) = define({"id": "a", "retry": {"max_attempts": 3, "base": "4s", "jitter": False}}).steps
    events, run_at = fail(step, running(), attempt=2)
    assert run_at == ENDED + timedelta(seconds=8)
    assert events[1] == NewEvent(
        "RunRetryScheduled",
        {
            "task": "t-1",
            "run_at": run_at.isoformat(),
            "step": "a",
            "reason": "step 'a' failed (attempt 2 of 3): no",
        },
    )


def test_the_last_attempt_ends_the_run() -> None:
    (step,) = define({"id": "a", "retry": {"max_attempts": 3}}).steps
    events, run_at = fail(step, running(), attempt=3)
    assert run_at is None
    assert events[-1].data["error"]["message"] == "step 'a' failed (attempt 3 of 3): no"


def test_the_other_side_may_ask_for_a_longer_wait_but_not_for_a_shorter_one() -> None:
    (step,) = define({"id": "a", "retry": {"max_attempts": 3, "base": "10s", "jitter": False}}).steps
    assert fail(step, running(), retry_after=30.0)[1] == ENDED + timedelta(seconds=30)
    assert fail(step, running(), retry_after=1.0)[1] == ENDED + timedelta(seconds=10)


@examples(
    st.sampled_from(["exponential", "linear", "constant"]),
    st.integers(1, 60),
    st.integers(1, 600),
    st.booleans(),
    st.integers(1, 19),
    st.floats(0, 1, exclude_max=True),
)
def test_a_wait_is_never_longer_than_max_nor_shorter_than_half_of_what_the_backoff_says(
    backoff: str, base: int, longest: int, jitter: bool, attempt: int, random: float
) -> None:
    retry = {
        "max_attempts": 20, "backoff": backoff, "base": f"{base}s",
        "max": f"{max(base, longest)}s", "jitter": jitter,
    }  # fmt: skip
    (step,) = define({"id": "a", "retry": retry}).steps
    events, run_at = fail(step, running(), attempt=attempt, random=random)
    assert run_at is not None
    assert datetime.fromisoformat(events[1].data["run_at"]) == run_at
    factor = {"exponential": 2 ** (attempt - 1), "linear": attempt, "constant": 1}[backoff]
    whole = min(base * factor, max(base, longest))
    wait = (run_at - ENDED).total_seconds()
    assert (whole / 2 if jitter else whole) - 1e-5 <= wait <= whole + 1e-5


def test_the_runs_end_carries_its_output_or_its_reason() -> None:
    run = running()
    assert pipeline.run_succeeded(run, [1]) == NewEvent("RunSucceeded", {"task": "t-1", "output": [1]})
    assert pipeline.run_failed(run, "why") == NewEvent(
        "RunFailed", {"task": "t-1", "error": {"message": "why", "step": None}}
    )


outcomes = st.lists(st.sampled_from(["succeed", "skip", "fail", "crash"]), max_size=40)


@examples(outcomes, st.integers(1, 3))
def test_however_often_a_run_is_taken_up_each_step_finishes_once_and_in_order(
    wanted: list[str], max_attempts: int
) -> None:
    retry = {"max_attempts": max_attempts}
    definition = define(*[{"id": name, "retry": retry} for name in "abc"])
    run, version, finished = running(), 2, []
    for outcome in wanted:
        step = next(pipeline.remaining_steps(definition, run), None)
        if step is None or run.ended:
            break
        attempt = pipeline.step_attempt(run, step)
        events: list[NewEvent] = []
        match outcome:
            case "succeed":
                events = [done(step, attempt=attempt)]
                finished.append(step.id)
            case "skip":
                events = [pipeline.skipped(step)]
                finished.append(step.id)
            case "fail":
                events, run_at = fail(step, run, attempt)
                assert (run_at is None) is (attempt == max_attempts)
                if run_at is not None:
                    events = [*events, started(run.attempt + 1)]
            case "crash":
                events = [started(run.attempt + 1)]
        for event in events:
            version += 1
            evolve(run, logged(event, version))
    assert finished == list("abc")[: len(finished)]
