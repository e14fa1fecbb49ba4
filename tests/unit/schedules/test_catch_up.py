"""Catching up: what fires and what is skipped after an outage, and that it stays bounded."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ordinaut.domain.policy import CatchUp
from ordinaut.domain.schedules.catch_up import COUNT_CAP, GRACE, Skipped, plan_catch_up
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.spec import parse_schedule

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICIES = [
    CatchUp("none"),
    CatchUp("latest"),
    CatchUp("all"),
    CatchUp("all", max=3),
    CatchUp("all", max=100, window=7200.0),
]


def schedule(**spec: str) -> Schedule:
    return parse_schedule(spec, created_at=START)


def every(text: str) -> Schedule:
    return schedule(every=text, anchor=START.isoformat())


def test_one_that_is_hardly_late_fires_under_every_policy() -> None:
    for policy in POLICIES:
        plan = plan_catch_up(every("1h"), START, START + GRACE, policy)
        assert (plan.fire, plan.skipped, plan.next) == ((START,), (), START + timedelta(hours=1))


def test_none_skips_all_that_was_missed_in_one_range() -> None:
    plan = plan_catch_up(every("1h"), START, START + timedelta(hours=5, minutes=30), CatchUp("none"))
    assert plan.fire == ()
    assert plan.skipped == (Skipped(START, START + timedelta(hours=5), 6, False, "missed"),)
    assert plan.next == START + timedelta(hours=6)


def test_latest_fires_the_latest_missed_one() -> None:
    plan = plan_catch_up(every("1h"), START, START + timedelta(hours=5, minutes=30), CatchUp("latest"))
    assert plan.fire == (START + timedelta(hours=5),)
    assert [skipped.count for skipped in plan.skipped] == [5]


def test_latest_fires_none_of_the_missed_when_one_is_on_time() -> None:
    plan = plan_catch_up(every("1h"), START, START + timedelta(hours=5, seconds=2), CatchUp("latest"))
    assert plan.fire == (START + timedelta(hours=5),)
    assert [skipped.count for skipped in plan.skipped] == [5]


def test_all_fires_the_newest_within_max_and_window_oldest_first() -> None:
    now = START + timedelta(hours=5, minutes=30)
    assert len(plan_catch_up(every("1h"), START, now, CatchUp("all")).fire) == 6
    newest = [START + timedelta(hours=h) for h in (3, 4, 5)]
    assert list(plan_catch_up(every("1h"), START, now, CatchUp("all", max=3)).fire) == newest
    assert list(plan_catch_up(every("1h"), START, now, CatchUp("all", window=3 * 3600.0)).fire) == newest


def test_one_that_is_not_due_yet_is_the_next() -> None:
    plan = plan_catch_up(every("1h"), START, START - timedelta(seconds=1), CatchUp("latest"))
    assert (plan.fire, plan.skipped, plan.next) == ((), (), START)


def test_a_year_of_seconds_is_counted_exactly_without_walking_it() -> None:
    plan = plan_catch_up(every("1s"), START, START + timedelta(days=365), CatchUp("none"))
    (skipped,) = plan.skipped
    assert (skipped.count, skipped.count_capped) == (365 * 86400 - 60, False)
    assert len(plan.fire) == 61


@pytest.mark.parametrize("policy", POLICIES)
def test_a_year_of_minutes_is_counted_up_to_the_cap_and_says_so(policy: CatchUp) -> None:
    now = START + timedelta(days=365, minutes=1)
    plan = plan_catch_up(schedule(cron="* * * * *"), START + timedelta(minutes=1), now, policy)
    (skipped,) = plan.skipped
    assert (skipped.count, skipped.count_capped) == (COUNT_CAP, True)
    assert skipped.last < plan.fire[0]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["7m", "1h", "30s"]).map(every)
    | st.sampled_from(["*/9 * * * *", "0 3 * * *", "15 1-5 * * 1-5"]).map(lambda text: schedule(cron=text)),
    st.sampled_from(POLICIES),
    st.integers(0, 3 * 86400),
)
def test_every_overdue_occurrence_has_exactly_one_verdict(
    rule: Schedule, policy: CatchUp, outage: int
) -> None:
    first = rule.next_after(START)
    assert first is not None
    now = first + timedelta(seconds=outage)
    plan = plan_catch_up(rule, first, now, policy)
    due, at = [], first
    while at is not None and at <= now:
        due.append(at)
        at = rule.next_after(at)
    skipped = sum(each.count for each in plan.skipped)
    assert due[skipped:] == list(plan.fire)
    assert [(each.first, each.last) for each in plan.skipped] == [(due[0], due[skipped - 1])][:skipped]
    assert plan.next == at
    assert all(instant in plan.fire for instant in due if now - instant <= GRACE)
