"""Cron: against a walk over every minute, against cronsim, and at clock changes."""

import calendar
from datetime import UTC, date, datetime, timedelta

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from ordinaut.domain.schedules.cron import Cron
from ordinaut.domain.schedules.zones import exists, to_wall, zone, zone_names

ZONES = [
    "UTC",
    "America/New_York",
    "Europe/Chisinau",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/Havana",
]
MINUTE = timedelta(minutes=1)
CHANGES = [
    datetime(2024, 3, 10, 6),
    datetime(2024, 11, 3, 5),
    datetime(2024, 3, 30, 23),
    datetime(2024, 10, 26, 23),
    datetime(2024, 4, 6, 14),
    datetime(2024, 10, 5, 14),
    datetime(2011, 12, 30, 9),
    datetime(2024, 2, 28, 20),
]


def _field(low: int, high: int) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    """A field's text with the numbers it stands for, made without any cron library."""
    number = st.integers(low, high)
    star = st.just(("*", frozenset(range(low, high + 1))))
    step = st.integers(1, 20).map(lambda n: (f"*/{n}", frozenset(range(low, high + 1, n))))
    span = st.tuples(number, number).map(
        lambda pair: (f"{min(pair)}-{max(pair)}", frozenset(range(min(pair), max(pair) + 1)))
    )
    listing = st.lists(number, min_size=1, max_size=3).map(lambda ns: (",".join(map(str, ns)), frozenset(ns)))
    return st.one_of(star, step, span, listing)


FIELDS = st.tuples(
    _field(0, 59), _field(0, 23), _field(1, 31), st.just(("*", frozenset(range(1, 13)))), _field(0, 7)
)
Fields = tuple[tuple[str, frozenset[int]], ...]


def _day_matches(day: date, fields: Fields) -> bool:
    (_, _, (dom, doms), (_, months), (dow, dows)) = fields
    weekday = day.isoweekday()
    by_month_day, by_weekday = day.day in doms, weekday in dows or weekday % 7 in dows
    either = not dom.startswith("*") and not dow.startswith("*")
    return day.month in months and ((by_month_day or by_weekday) if either else (by_month_day and by_weekday))


def _walk(fields: Fields, name: str, start: datetime, end: datetime) -> list[datetime]:
    """Every instant in (start, end] at which the rule fires, by looking at every minute of the wall."""
    tz = zone(name)
    (minute, minutes), (hour, hours) = fields[0], fields[1]
    fixed = not minute.startswith("*") and not hour.startswith("*")
    fires = set()
    at, pending = start - timedelta(days=2), to_wall(tz, start - timedelta(days=2))
    while at <= end:
        wall = to_wall(tz, at)
        seen = [wall]
        if fixed:
            # The wall's own minutes since the last look: none when it was set back, many when it jumped.
            seen = []
            while pending <= wall:
                seen.append(pending)
                pending += MINUTE
        if any(w.minute in minutes and w.hour in hours and _day_matches(w.date(), fields) for w in seen):
            fires.add(at)
        at += MINUTE
    return sorted(at for at in fires if start < at)


def _expand(cron: Cron, start: datetime, end: datetime) -> list[datetime]:
    found, at = [], cron.next_after(start)
    while at is not None and at <= end:
        found.append(at)
        at = cron.next_after(at)
    return found


@settings(max_examples=120, deadline=None)
@given(FIELDS, st.sampled_from(ZONES), st.sampled_from(CHANGES), st.integers(-600, 600))
def test_cron_agrees_with_a_walk_over_every_minute(
    fields: Fields, name: str, change: datetime, shift: int
) -> None:
    start = change.replace(tzinfo=UTC) + shift * MINUTE
    end = start + timedelta(days=1, hours=6)
    cron = Cron(" ".join(text for text, _ in fields), zone(name))
    assert _expand(cron, start, end) == _walk(fields, name, start, end)


@settings(max_examples=150, deadline=None)
@given(
    FIELDS,
    st.sampled_from(["UTC", "America/New_York", "Europe/Chisinau"]),
    st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1)),
)
def test_cron_agrees_with_cronsim_where_shifts_are_whole_hours(
    fields: Fields, name: str, start: datetime
) -> None:
    text = " ".join(text for text, _ in fields)
    now = start.replace(tzinfo=UTC)
    theirs = (at.astimezone(UTC) for at in CronSim(text, now.astimezone(zone(name))))
    assert Cron(text, zone(name)).next_after(now) == next(at for at in theirs if at > now)


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


def test_every_zone_can_be_loaded() -> None:
    for name in zone_names():
        assert exists(zone(name), datetime(2026, 1, 15, 12))
