"""How near to one another a schedule's instants come: found where it is so, and never searched for ever."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.spacing import LOOKED_AT, first_nearer_than
from ordinaut.domain.schedules.spec import parse_schedule

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def rule(spec: Any) -> Schedule:
    return parse_schedule(spec, created_at=START)


@pytest.mark.parametrize(
    ("spec", "minimum", "pair"),
    [
        ({"every": "10s"}, 10 * SECOND, None),
        ({"every": "10s"}, 11 * SECOND, ("2026-01-01T00:00:10", "2026-01-01T00:00:20")),
        ({"cron": "0,50 8 * * *"}, 50 * MINUTE, None),
        ({"cron": "0,49 8 * * *"}, 50 * MINUTE, ("2026-01-01T08:00:00", "2026-01-01T08:49:00")),
        ({"cron": "59 23 31 12 *"}, timedelta(days=364), None),
        ({"once": "2026-05-01T00:00:00Z"}, timedelta(days=366), None),
        # The clocks go forward: 02:30 happens at 03:00, half an hour before 03:30.
        (
            {"cron": "30 2,3 * * *", "timezone": "Europe/Berlin"},
            60 * MINUTE,
            ("2026-03-29T01:00:00", "2026-03-29T01:30:00"),
        ),
        (
            {"rrule": "FREQ=DAILY;BYHOUR=8", "rdate": ["2026-02-03T08:00:10Z"]},
            20 * SECOND,
            ("2026-02-03T08:00:00", "2026-02-03T08:00:10"),
        ),
        # One instant that two rules name is one.
        ([{"cron": "0 8 * * *"}, {"cron": "0 8,12 * * *"}], 4 * 60 * MINUTE, None),
        (
            [{"cron": "0 8 * * *"}, {"cron": "0 12 * * *"}, {"once": "2026-01-03T11:59:59Z"}],
            60 * MINUTE,
            ("2026-01-03T11:59:59", "2026-01-03T12:00:00"),
        ),
        # What is excluded does not fire, so it is near to nothing.
        ({"cron": "0,1 8 * * *", "exclude": [{"cron": "1 8 * * *"}]}, 60 * MINUTE, None),
        (
            {"cron": "0,1 8 * * *", "exclude": ["2026-01-01"]},
            60 * MINUTE,
            ("2026-01-02T08:00:00", "2026-01-02T08:01:00"),
        ),
    ],
)  # fmt: skip
def test_the_first_two_instants_that_are_too_near_are_named(
    spec: Any, minimum: timedelta, pair: tuple[str, str] | None
) -> None:
    expected = None if pair is None else tuple(datetime.fromisoformat(at).replace(tzinfo=UTC) for at in pair)
    assert first_nearer_than(rule(spec), minimum, START) == expected


@given(
    st.lists(st.integers(0, 59), min_size=1, max_size=6, unique=True),
    st.lists(st.integers(0, 23), min_size=1, max_size=4, unique=True),
    st.integers(1, 1500),
)
def test_a_pair_is_found_exactly_when_there_is_one(minutes: list[int], hours: list[int], least: int) -> None:
    at = sorted(60 * hour + minute for hour in hours for minute in minutes)
    gaps = [later - earlier for earlier, later in zip(at, [*at[1:], at[0] + 1440], strict=True)]
    cron = f"{','.join(map(str, sorted(minutes)))} {','.join(map(str, sorted(hours)))} * * *"
    found = first_nearer_than(rule({"cron": cron}), least * MINUTE, START)
    assert (found is not None) == (min(gaps) < least)
    assert found is None or found[1] - found[0] < least * MINUTE


class Counting(Schedule):
    """Every second, and it counts how often it is asked."""

    kind = "counting"

    def __init__(self) -> None:
        self.asked = 0

    def next_after(self, instant: datetime) -> datetime:
        self.asked += 1
        return instant + SECOND

    def describe(self) -> str:
        return "every second"


def test_a_rule_without_end_is_looked_at_for_a_bounded_stretch() -> None:
    endless = Counting()
    assert first_nearer_than(endless, SECOND, START) is None
    assert endless.asked == LOOKED_AT


def test_the_search_ends_when_it_is_told_to() -> None:
    endless = Counting()
    assert first_nearer_than(endless, SECOND, START, lambda: endless.asked >= 5) is None
    assert endless.asked == 5
