"""A pause with an end: what it covers, how it is changed, and how it ends by itself."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from ordinaut.domain.closing import last_verdict
from ordinaut.domain.errors import Invalid, NotFound, NotPossible
from ordinaut.domain.events import NewEvent
from ordinaut.domain.schedules.spec import parse_schedule
from ordinaut.domain.task import (
    Task,
    end_pause,
    evolve,
    pause,
    require_ahead,
    resume,
    snooze,
    snooze_once,
)
from tests.support.given import NOON, Given, logged
from tests.unit.domain.test_task import LATER, PAUSED, RESUMED, RETIRED, SNOOZED, created

TICK = timedelta(microseconds=1)
EVENING = NOON + timedelta(hours=6)


def paused(until: datetime | None = LATER, reason: str | None = "holidays") -> NewEvent:
    end = until.isoformat() if until else None
    return NewEvent("TaskPaused", {"name": "backup", "reason": reason, "until": end})


def given(*events: NewEvent) -> Given[Task]:
    return Given(Task("t-1"), evolve, *events)


def ended(**more: Any) -> NewEvent:
    reason = f"the pause was until {LATER.isoformat()}"
    return NewEvent("TaskResumed", {"name": "backup", "reason": reason} | more)


def test_a_pause_may_say_when_it_ends() -> None:
    given(created()).when(pause, "holidays", LATER).then(paused())
    state = given(created(), paused()).state
    assert (state.status, state.paused_reason, state.paused_until) == ("paused", "holidays", LATER)


def test_pausing_again_with_another_end_or_reason_changes_the_pause() -> None:
    given(created(), paused()).when(pause, "holidays", EVENING).then(paused(EVENING))
    given(created(), paused()).when(pause, "illness", LATER).then(paused(reason="illness"))
    given(created(), paused()).when(pause, None).then(paused(None))
    assert given(created(), paused(), paused(EVENING)).state.paused_until == EVENING


def test_pausing_again_with_the_same_end_and_reason_changes_nothing() -> None:
    given(created(), paused()).when(pause, "holidays", LATER).then()
    given(created(), paused()).when(pause, None, LATER).then()


def test_the_end_of_a_pause_is_ahead() -> None:
    require_ahead(None, NOON)
    require_ahead(NOON + TICK, NOON)
    for until in (NOON, NOON - TICK):
        with pytest.raises(Invalid, match=r"/until: .* is in the past"):
            require_ahead(until, NOON)


def test_a_pause_covers_what_is_before_its_end_whoever_decides() -> None:
    state = given(created(), paused()).state
    assert state.skip_reason(LATER - TICK) == "paused"
    assert state.skip_reason(LATER) is None
    assert state.hold(LATER - TICK) == ("paused", LATER)
    assert state.hold(LATER) is None


def test_a_pause_without_an_end_covers_everything() -> None:
    assert given(created(), PAUSED).state.hold(EVENING) == ("paused", None)


def test_the_clock_ends_a_pause_at_its_end_and_not_before() -> None:
    given(created(), paused()).when(end_pause, LATER - TICK).then()
    given(created(), paused()).when(end_pause, LATER).then(ended())
    given(created(), PAUSED).when(end_pause, EVENING).then()


def test_the_clock_ends_no_pause_that_is_over() -> None:
    given(created(), paused(), RESUMED).when(end_pause, LATER).then()
    given(created(), paused(), RETIRED).when(end_pause, LATER).then()
    given().when(end_pause, LATER).then()


def test_a_snooze_outlives_the_pause_that_the_clock_ends() -> None:
    snoozed = NewEvent("TaskSnoozed", {"name": "backup", "until": EVENING.isoformat(), "reason": None})
    end = ended(snoozed_until=EVENING.isoformat())
    given(created(), snoozed, paused()).when(end_pause, LATER).then(end)
    state = given(created(), snoozed, paused(), end).state
    assert (state.status, state.skip_reason(LATER)) == ("active", "snoozed")
    assert given(created(), snoozed, paused(), RESUMED).state.snoozed_until is None


def test_what_a_pause_covered_stays_paused_when_it_is_over() -> None:
    """What comes in now is another matter: the task is active."""
    resumed_at = NOON + timedelta(seconds=3)  # the third event of the stream
    for pausing in (paused(), PAUSED):
        state = given(created(), pausing, RESUMED).state
        assert (state.pause_ended, state.paused_until) == (resumed_at, None)
        assert state.hold(resumed_at - TICK) == ("paused", resumed_at)
        assert state.hold(resumed_at) is None
        assert state.skip_reason(resumed_at - TICK) is None


def test_a_pause_that_is_ended_late_was_over_at_its_end() -> None:
    until = NOON + timedelta(seconds=2)
    state = given(created(), paused(until), RESUMED).state
    assert state.pause_ended == until


def test_a_task_created_again_has_no_pause_behind_it() -> None:
    state = given(created(), paused(), RESUMED, RETIRED, created(version=2)).state
    assert (state.paused_until, state.pause_ended) == (None, None)
    state = given(created(), paused(), RETIRED, created(version=2)).state
    assert (state.paused_until, state.hold(NOON)) == (None, None)


def test_resuming_says_why() -> None:
    given(created(), paused()).when(resume, "back early").then(
        NewEvent("TaskResumed", {"name": "backup", "reason": "back early"})
    )


def test_a_task_whose_pause_is_over_can_be_snoozed_before_the_clock_has_said_so() -> None:
    given(created(), paused()).when(snooze, EVENING, LATER - TICK, None).then_refused(NotPossible, "paused")
    given(created(), paused()).when(snooze, EVENING, LATER, None).then(
        NewEvent("TaskSnoozed", {"name": "backup", "until": EVENING.isoformat(), "reason": None})
    )


def test_snoozing_once_covers_the_next_occurrence_and_not_the_one_a_second_later() -> None:
    (event,) = snooze_once(given(created()).state, LATER, NOON, "lunch")
    state = given(created(), event).state
    assert state.skip_reason(LATER) == "snoozed"
    assert state.skip_reason(LATER + timedelta(seconds=1)) is None
    assert event.data["reason"] == "lunch"


def test_snoozing_once_does_not_shorten_a_snooze_that_covers_the_next_occurrence() -> None:
    given(created(), SNOOZED).when(snooze_once, LATER - TICK, NOON, None).then()
    assert len(snooze_once(given(created(), SNOOZED).state, LATER, NOON, None)) == 1


def test_snoozing_once_is_refused_where_snoozing_is() -> None:
    given(created(), PAUSED).when(snooze_once, LATER, NOON, None).then_refused(NotPossible, "paused")
    given(created(), RETIRED).when(snooze_once, LATER, NOON, None).then_refused(NotFound, "retired")


def test_what_ends_a_schedule_leaves_to_a_pause_what_was_its_own() -> None:
    task = given(created(), paused()).state
    rule = parse_schedule({"every": "10m", "anchor": NOON.isoformat()}, created_at=NOON)
    _, event = last_verdict(task, rule, NOON, EVENING, "retired")
    last = LATER - timedelta(minutes=10)
    assert (event.data["reason"], event.data["to"], event.data["count"]) == ("paused", last.isoformat(), 6)
    _, event = last_verdict(task, rule, LATER, EVENING, "retired")
    assert (event.data["reason"], event.data["from"], event.data["count"]) == (
        "retired",
        LATER.isoformat(),
        31,
    )


@examples(st.integers(-100, 100), st.integers(1, 100), st.integers(-100, 200))
def test_one_pause_covers_the_same_instants_before_and_after_the_clock_ends_it(
    at: int, length: int, late: int
) -> None:
    """Hours past NOON; the clock may come late."""
    until = NOON + timedelta(hours=length)
    instant = NOON + timedelta(hours=at)
    before = given(created(), paused(until)).state
    now = until + timedelta(hours=max(0, late))
    assert before.hold(instant) == (("paused", until) if instant < until else None)
    (event,) = end_pause(before, now)
    task = given(created(), paused(until)).state
    evolve(task, logged(event, 3, at=now))
    assert task.hold(instant) == before.hold(instant)
    assert end_pause(task, now) == []
