"""Cron: what an expression means, at clock changes too, and what is refused."""

import calendar
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ordinaut.domain.schedules.cron import Cron
from ordinaut.domain.schedules.zones import zone


def _firsts(
    expression: str, count: int, name: str = "UTC", start: datetime = datetime(2026, 1, 1)
) -> list[datetime]:
    cron, at, found = Cron(expression, zone(name)), start.replace(tzinfo=UTC), []
    for _ in range(count):
        following = cron.next_after(at)
        assert following is not None
        found.append(following.astimezone(zone(name)).replace(tzinfo=None))
        at = following
    return found


def test_weekdays_one_to_five_are_monday_to_friday() -> None:
    days = [at.strftime("%a") for at in _firsts("30 8 * * 1-5", 5, start=datetime(2026, 1, 4))]
    assert days == ["Mon", "Tue", "Wed", "Thu", "Fri"]


@pytest.mark.parametrize("sunday", ["0", "7", "SUN", "sun"])
def test_zero_and_seven_are_sunday(sunday: str) -> None:
    assert {at.weekday() for at in _firsts(f"0 0 * * {sunday}", 3)} == {calendar.SUNDAY}


def test_when_both_day_fields_are_given_either_may_match() -> None:
    assert [at.day for at in _firsts("0 0 13 * 5", 5)] == [2, 9, 13, 16, 23]


def test_l_is_the_last_day_and_hash_the_nth_weekday() -> None:
    assert [(at.month, at.day) for at in _firsts("0 0 L * *", 3)] == [(1, 31), (2, 28), (3, 31)]
    assert [at.day for at in _firsts("0 0 * * MON#2", 2)] == [12, 9]
    assert [at.day for at in _firsts("0 0 * * 5L", 2)] == [30, 27]


@pytest.mark.parametrize(
    ("macro", "same"),
    [("@daily", "0 0 * * *"), ("@Weekly", "0 0 * * 0"), ("@yearly", "0 0 1 1 *"), ("@hourly", "0 * * * *")],
)
def test_a_macro_is_its_five_fields(macro: str, same: str) -> None:
    assert _firsts(macro, 4) == _firsts(same, 4)


def test_the_29th_of_february_waits_for_a_leap_year() -> None:
    assert _firsts("0 0 29 2 *", 2) == [datetime(2028, 2, 29), datetime(2032, 2, 29)]


def test_a_fixed_time_in_the_gap_runs_when_the_gap_ends() -> None:
    assert _firsts("30 2 * * *", 2, "America/New_York", datetime(2024, 3, 9, 12)) == [
        datetime(2024, 3, 10, 3, 0),
        datetime(2024, 3, 11, 2, 30),
    ]


def test_a_fixed_time_in_the_overlap_runs_once() -> None:
    assert _firsts("30 1 * * *", 2, "America/New_York", datetime(2024, 11, 2, 12)) == [
        datetime(2024, 11, 3, 1, 30),
        datetime(2024, 11, 4, 1, 30),
    ]


def test_half_an_hour_of_lord_howe_loses_no_minute() -> None:
    walls = _firsts("*/10 2 * * *", 9, "Australia/Lord_Howe", datetime(2024, 4, 6, 15, 0))
    assert [at.strftime("%d %H:%M") for at in walls][:6] == [f"07 02:{m:02}" for m in (0, 10, 20, 30, 40, 50)]


def test_on_the_day_apia_skipped_a_daily_job_runs_at_the_end_of_the_gap() -> None:
    walls = _firsts("0 8 * * *", 3, "Pacific/Apia", datetime(2011, 12, 29, 17, 0))
    assert walls == [datetime(2011, 12, 29, 8), datetime(2011, 12, 31, 0), datetime(2011, 12, 31, 8)]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("61 * * * *", "minute field '61'.*0-59"),
        ("* 24 * * *", "hour field"),
        ("* * * * 6-1", "day-of-week field"),
        ("* * * FOO *", "month field"),
        ("* * * *", "five are needed"),
        ("0 * * * * *", "five are needed"),
        ("@reboot", "@daily"),
        ("", "five are needed"),
        ("0 0 31 2 *", "can never fire"),
        ("0 0 */30 2 MON#5", "can never fire"),
        ("9" * 300, "256"),
        ("1/0 * * * *", "minute"),
        ("*/ * * * *", "minute"),
    ],
)
def test_a_wrong_expression_is_refused_naming_the_field(expression: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Cron(expression, zone("UTC"))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789*/,-#LWMONSUN @?\x00é", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        Cron(text, zone("UTC"))
    except ValueError as refused:
        assert str(refused)
