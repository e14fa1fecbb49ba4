"""A run's decisions, and what its events make of it."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from ordinaut.domain.errors import NotPossible, OrdinautError
from ordinaut.domain.events import NewEvent
from ordinaut.domain.run import (
    ENDED,
    RETRYABLE,
    Run,
    cancel,
    evolve,
    fold,
    hand_back,
    retry,
    run_stream,
    start,
)
from tests.support.given import NOON, Given, folded, logged


def requested(max_attempts: int = 2, **more: Any) -> NewEvent:
    data = {
        "task": "t-1",
        "name": "backup",
        "task_version": 3,
        "cause": {"kind": "manual"},
        "input": {"n": 1},
        "priority": 5,
        "max_attempts": max_attempts,
        "depth": 0,
    }
    return NewEvent("RunRequested", data | more)


def started(attempt: int = 1, worker: str = "w") -> NewEvent:
    return NewEvent("RunStarted", {"task": "t-1", "attempt": attempt, "worker": worker})


def step_done(step: str = "a", attempt: int = 1) -> NewEvent:
    data = {"step": step, "attempt": attempt, "input": None, "output": {"ok": True}}
    return NewEvent("StepSucceeded", data | {"started_at": "s", "finished_at": "f"})


def step_failed(step: str = "a", attempt: int = 1) -> NewEvent:
    data = {"step": step, "attempt": attempt, "input": None, "error": {"message": "no"}}
    return NewEvent("StepFailed", data | {"started_at": "s", "finished_at": "f"})


def put_off(seconds: int = 60) -> NewEvent:
    at = (NOON + timedelta(seconds=seconds)).isoformat()
    return NewEvent(
        "RunRetryScheduled", {"task": "t-1", "run_at": at, "step": "a", "reason": "step 'a' failed"}
    )


REOPENED = NewEvent(
    "RunRetryScheduled",
    {"task": "t-1", "run_at": NOON.isoformat(), "reason": "retry was asked for", "reopened": True},
)
SUCCEEDED = NewEvent("RunSucceeded", {"task": "t-1", "output": 7})
FAILED = NewEvent("RunFailed", {"task": "t-1", "error": {"message": "step 'a' failed: no", "step": "a"}})
CANCELED = NewEvent("RunCanceled", {"task": "t-1", "reason": "changed my mind"})
SKIPPED = NewEvent(
    "OccurrenceSkipped",
    {"task": "t-1", "name": "backup", "task_version": 3, "cause": {"kind": "schedule"}, "reason": "paused"},
)


def given(*events: NewEvent) -> Given[Run]:
    return Given(Run("r-1"), evolve, *events)


def parked(attempt: int, crashes: int, max_attempts: int) -> NewEvent:
    message = (
        f"the run was started {attempt} times and its worker was lost {crashes} times in the middle of it"
        f" (policy.max_attempts is {max_attempts}); POST /v1/runs/r-1/retry tries again"
    )
    return NewEvent("RunParked", {"task": "t-1", "error": {"message": message}, "attempt": attempt})


def test_a_request_makes_a_queued_run_that_knows_its_definition_and_cause() -> None:
    run = given(requested(simulate=True, depth=4)).state
    assert (run.state, run.task_id, run.task, run.task_version) == ("queued", "t-1", "backup", 3)
    assert (run.cause, run.input, run.simulate, run.depth) == ({"kind": "manual"}, {"n": 1}, True, 4)
    assert (run.attempt, run.crashes, run.max_attempts) == (0, 0, 2)
    assert run.requested_at == NOON + timedelta(seconds=1)


def test_leasing_a_run_starts_it() -> None:
    given(requested()).when(start, "w").then(started(1))


def test_a_lease_that_ended_without_a_word_is_a_crash_and_the_next_attempt_counts_on() -> None:
    given(requested(), started(1)).when(start, "v").then(started(2, "v"))


def test_a_run_is_parked_when_as_many_workers_were_lost_as_it_has_attempts() -> None:
    given(requested(), started(1), started(2)).when(start, "w").then(parked(2, 2, 2))


def test_a_parked_run_says_why() -> None:
    run = given(requested(1), started(1), parked(1, 1, 1)).state
    assert run.state == "parked"
    assert "its worker was lost 1 times" in run.error["message"]


def test_retries_of_a_step_do_not_use_up_the_attempts_of_the_run() -> None:
    steps = [
        event
        for attempt in range(1, 8)
        for event in (started(attempt), step_failed(attempt=attempt), put_off())
    ]
    given(requested(1), *steps).when(start, "w").then(started(8))


def test_being_handed_back_does_not_use_up_the_attempts_of_the_run() -> None:
    back = NewEvent(
        "RunRetryScheduled", {"task": "t-1", "run_at": NOON.isoformat(), "reason": "the worker is stopping"}
    )
    given(requested(1), started(1)).when(hand_back, NOON).then(back)
    given(requested(1), started(1), back, started(2), back).when(start, "w").then(started(3))


def test_a_crash_stays_counted_when_a_later_lease_ends_in_order() -> None:
    events = [requested(2), started(1), started(2), put_off(), started(3)]
    assert given(*events).state.crashes == 2
    given(*events).when(start, "w").then(parked(3, 2, 2))


def test_a_waiting_run_knows_when_it_is_due_and_a_started_one_is_due_no_more() -> None:
    run = given(requested(), started(), step_failed(), put_off(60)).state
    assert (run.state, run.run_at) == ("waiting", NOON + timedelta(seconds=60))
    assert run.finished_at is None
    evolve(run, logged(started(2), 5))
    assert (run.state, run.run_at) == ("running", None)


def test_the_first_start_is_when_the_run_started() -> None:
    run = given(requested(), started(1), put_off(), started(2)).state
    assert run.started_at == NOON + timedelta(seconds=2)


@pytest.mark.parametrize(
    "events", [(), (started(),), (started(), step_failed(), put_off())], ids=["queued", "running", "waiting"]
)
def test_a_run_that_has_not_ended_can_be_canceled(events: Any) -> None:
    given(requested(), *events).when(cancel, "changed my mind").then(CANCELED)


def test_canceling_twice_is_canceling_once() -> None:
    given(requested(), CANCELED).when(cancel, "again").then()


@pytest.mark.parametrize(
    ("end", "word"), [(SUCCEEDED, "succeeded"), (FAILED, "failed"), (parked(1, 1, 1), "parked")]
)
def test_a_run_that_has_ended_is_not_canceled(end: NewEvent, word: str) -> None:
    given(requested(), started(), end).when(cancel, None).then_refused(
        NotPossible, f"ended already: it {word}"
    )


def test_an_occurrence_that_was_skipped_can_neither_be_canceled_nor_retried() -> None:
    run = given(SKIPPED).state
    assert (run.state, run.error) == ("skipped", {"message": "skipped: paused"})
    given(SKIPPED).when(cancel, None).then_refused(NotPossible, "it skipped")
    given(SKIPPED).when(retry, NOON).then_refused(NotPossible, "only failed, canceled and parked runs")


@pytest.mark.parametrize("end", [FAILED, CANCELED, parked(1, 1, 1)], ids=["failed", "canceled", "parked"])
def test_a_run_that_came_to_a_bad_end_can_be_opened_again(end: NewEvent) -> None:
    given(requested(), started(), end).when(retry, NOON).then(REOPENED)


def test_a_run_that_succeeded_is_not_done_again() -> None:
    given(requested(), started(), SUCCEEDED).when(retry, NOON).then_refused(
        NotPossible, "the run r-1 succeeded"
    )


def test_retrying_a_run_that_is_under_way_changes_nothing() -> None:
    given(requested()).when(retry, NOON).then()
    given(requested(), started(), FAILED, REOPENED).when(retry, NOON).then()


def test_a_run_opened_again_counts_everything_anew_but_keeps_what_is_finished() -> None:
    events = [requested(1), started(1), step_done("a"), step_failed("b", 3), FAILED, REOPENED]
    run = given(*events).state
    assert (run.state, run.error, run.finished_at, run.crashes) == ("waiting", None, None, 0)
    assert list(run.steps) == ["a"], "a finished step is not done again, a failed one begins anew"
    assert run.timed_from is None
    given(*events).when(start, "w").then(started(2))
    evolve(run, logged(started(2), 7))
    assert run.started_at == NOON + timedelta(seconds=2)
    assert run.timed_from == NOON + timedelta(seconds=7), "policy.timeout runs from the new start"


def test_a_step_is_known_with_what_it_was_given_and_gave() -> None:
    run = given(requested(), started(), step_done("a", 2)).state
    assert run.steps["a"].public() == {
        "id": "a",
        "state": "succeeded",
        "attempt": 2,
        "input": None,
        "output": {"ok": True},
        "error": None,
        "started_at": "s",
        "finished_at": "f",
    }


def test_a_run_that_succeeded_has_its_output_and_its_end() -> None:
    run = given(requested(), started(), SUCCEEDED).state
    assert (run.state, run.output, run.finished_at) == ("succeeded", 7, NOON + timedelta(seconds=3))


def test_an_event_of_something_else_is_not_folded() -> None:
    with pytest.raises(ValueError, match="TaskPaused is not an event of a run"):
        folded(Run("r-1"), evolve, [NewEvent("TaskPaused", {})])


def test_the_stream_is_named_after_the_run() -> None:
    assert run_stream("0001") == "run-0001"


moves = st.sampled_from(
    ["lease", "step", "fail", "put off", "hand back", "succeed", "end", "cancel", "retry"]
)


class Model:
    """What a run should be, said another way: a count of the leases that nobody closed."""

    def __init__(self, max_attempts: int) -> None:
        self.max_attempts = max_attempts
        self.lost = 0
        self.leased = False

    def lease(self) -> bool:
        """Lease it; whether it may start."""
        self.lost += self.leased
        self.leased = self.lost < self.max_attempts
        return self.leased

    def close(self, reopened: bool = False) -> None:
        self.leased = False
        if reopened:
            self.lost = 0


@examples(st.integers(1, 4), st.lists(moves, max_size=40))
def test_a_run_is_parked_exactly_when_its_attempts_were_lost_without_a_word(
    max_attempts: int, wanted: list[str]
) -> None:
    log = [logged(requested(max_attempts), 1)]
    run, model, leases = fold("r-1", log), Model(max_attempts), 0

    def happen(*events: NewEvent) -> None:
        for event in events:
            log.append(logged(event, len(log) + 1))
            evolve(run, log[-1])

    for move in wanted:
        running = run.state == "running"
        if move == "lease" and not run.ended:
            event = start(run, "w")
            assert (event.type == "RunStarted") is model.lease()
            happen(event)
            leases += event.type == "RunStarted"
            assert run.attempt == leases
        elif move == "step" and running:
            happen(step_done())
        elif move == "fail" and running:
            happen(step_failed(), put_off())
            model.close()
        elif move == "put off" and running:
            happen(put_off())
            model.close()
        elif move == "hand back" and running:
            happen(hand_back(run, NOON))
            model.close()
        elif move in ("succeed", "end") and running:
            happen(SUCCEEDED if move == "succeed" else FAILED)
        elif move == "cancel":
            ended = run.ended and run.state != "canceled"
            try:
                happen(*cancel(run, None))
            except NotPossible:
                assert ended
        elif move == "retry":
            refused = run.ended and run.state not in RETRYABLE
            try:
                events = retry(run, NOON)
            except OrdinautError:
                assert refused
                continue
            happen(*events)
            if events:
                model.close(reopened=True)
    assert fold("r-1", log) == run
    assert run.ended is (run.state in ENDED)
    assert (run.finished_at is not None) is run.ended
    assert run.stream_version == len(log)


def test_a_run_that_is_put_off_says_until_when_as_long_as_it_waits() -> None:
    later = NOON + timedelta(minutes=5)
    asked = requested(run_at=later.isoformat())
    waiting = folded(Run("r"), evolve, [asked])
    assert (waiting.state, waiting.run_at) == ("queued", later)
    assert folded(Run("r"), evolve, [asked, started()]).run_at is None
    assert folded(Run("r"), evolve, [asked, *cancel(waiting, None)]).run_at is None
    assert folded(Run("r"), evolve, [requested()]).run_at is None
