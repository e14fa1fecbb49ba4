"""Cron over all zones, 2000 to 2040: against a walk over every minute of the wall, and against cronsim."""

from datetime import UTC, datetime, timedelta

import pytest
from cronsim import CronSim
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ordinaut.domain.schedules.cron import Cron
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.zones import zone, zone_names
from tests.unit.schedules.cron_walk import FIELDS, Fields, expand, walk
from tests.unit.schedules.transitions import QUIET, Change, changes, different_zones, near_changes, offset

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
EVERY_DAY, EVERY_MONTH, EVERY_WEEKDAY = range(1, 32), range(1, 13), range(8)


def fields(minute: str, minutes: range, hour: str, hours: range) -> Fields:
    days = ("*", frozenset(EVERY_DAY)), ("*", frozenset(EVERY_MONTH)), ("*", frozenset(EVERY_WEEKDAY))
    return (minute, frozenset(minutes)), (hour, frozenset(hours)), *days


STARRED = fields("*/20", range(0, 60, 20), "0-23", range(24))
FIXED = fields("17-59", range(17, 60), "0-23", range(24))
"""The two ways to pass a clock change, each with so many times that every change meets some."""


def of_each_zone() -> list[Change]:
    """The latest change of each size of every zone."""
    latest = {(name, change.by): change for name in different_zones() for change in changes(name)}
    return list(latest.values())


def test_at_the_changes_of_every_zone_cron_agrees_with_a_walk_over_every_minute() -> None:
    seen = of_each_zone()
    assert {change.by for change in seen} >= {HOUR, -HOUR, HOUR / 2, -HOUR / 2, DAY}
    for change in seen:
        tz = zone(change.zone)
        start, end = change.at - HOUR, change.at + 3 * HOUR
        for each in (STARRED, FIXED):
            cron = Cron(" ".join(text for text, _ in each), tz)
            assert expand(cron, start, end) == walk(each, tz, start, end), (change, cron.expression)


APIA = "Pacific/Apia", datetime(2011, 12, 30, 9, tzinfo=UTC)
LORD_HOWE = "Australia/Lord_Howe", datetime(2024, 4, 6, 14, tzinfo=UTC)
NOON = fields("0", range(1), "12", range(12, 13))


@settings(max_examples=150, deadline=None)
@given(FIELDS, near_changes())
@example(NOON, APIA)
@example(STARRED, APIA)
@example(FIXED, LORD_HOWE)
@example(STARRED, LORD_HOWE)
def test_any_expression_agrees_with_a_walk_over_every_minute(
    each: Fields, where: tuple[str, datetime]
) -> None:
    name, start = where
    end = start + timedelta(days=1, hours=6)
    cron = Cron(" ".join(text for text, _ in each), zone(name))
    assert expand(cron, start, end) == walk(each, zone(name), start, end)


def theirs_after(expression: str, name: str, now: datetime) -> datetime:
    found = (at.astimezone(UTC) for at in CronSim(expression, now.astimezone(zone(name))))
    return next(at for at in found if at > now)


@settings(max_examples=400, deadline=None)
@given(FIELDS, near_changes())
def test_cron_agrees_with_cronsim_where_clocks_change_by_an_hour(
    each: Fields, where: tuple[str, datetime]
) -> None:
    """Elsewhere it errs: it loses minutes where clocks change by half an hour, loses a run where they skip a
    day, and for `0 */2 * * SUN` gives one at 01:00 when the hour from midnight on is skipped."""
    name, now = where
    assume(all(abs(change.by) == HOUR and change.at.minute == 0 for change in changes(name)))
    assume(not any(change.skips_midnight for change in changes(name)))
    text = " ".join(field for field, _ in each)
    assert Cron(text, zone(name)).next_after(now) == theirs_after(text, name, now)


SPECIAL = ["0 12 L * *", "0 12 LW * *", "0 12 * * 5L", "0 12 * * MON#2", "0 12 L * 1#1", "5 4 1,L * sun"]


@pytest.mark.parametrize("expression", [*SPECIAL, "0 0 29 2 *", "0 0 13 * 5", "59 23 31 12 7", "0 0 */2 * 1"])
@pytest.mark.parametrize("name", QUIET)
def test_forty_years_of_days_are_those_of_cronsim(expression: str, name: str) -> None:
    start, end = datetime(2000, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
    theirs = []
    for at in CronSim(expression, start.astimezone(zone(name))):
        if at > end:
            break
        theirs.append(at.astimezone(UTC))
    assert expand(Cron(expression, zone(name)), start, end) == theirs


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(zone_names())), st.datetimes(datetime(2000, 1, 1), datetime(2039, 12, 1)))
def test_the_next_is_later_and_shows_the_time_that_was_asked_for(name: str, start: datetime) -> None:
    """In all zones, at any time: where no clock changes within the day, on the day too."""
    now = start.replace(tzinfo=UTC)
    at = Cron("30 12 * * *", zone(name)).next_after(now)
    assert at is not None and now < at <= now + 2 * DAY
    if offset(zone(name), at - DAY) == offset(zone(name), at):
        assert at.astimezone(zone(name)).strftime("%H:%M") == "12:30"
        assert at <= now + DAY


@settings(max_examples=250, deadline=None)
@given(FIELDS, near_changes(hours=80), st.integers(0, 6 * 1440), st.integers(0, 59), st.integers(0, 3000))
@example(NOON, APIA, 3000, 0, 10)
@example(FIXED, LORD_HOWE, 3000, 30, 3000)
@example(STARRED, APIA, 6000, 0, 100)
def test_counting_by_days_is_counting_one_by_one(
    each: Fields, where: tuple[str, datetime], minutes: int, seconds: int, cap: int
) -> None:
    name, first = where[0], where[1] + timedelta(seconds=seconds)
    last = first + timedelta(minutes=minutes, seconds=60 - seconds)
    cron = Cron(" ".join(text for text, _ in each), zone(name))
    assert cron.count_between(first, last, cap) == Schedule.count_between(cron, first, last, cap)
    at = cron.next_after(first)
    if at is not None:
        assert cron.count_between(at, at, 1) == (1, False)
