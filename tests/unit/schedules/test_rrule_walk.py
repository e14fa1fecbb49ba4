"""Recurrence rules against the plain walk of a calendar, and over all zones against python-dateutil."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile

import pytest
from dateutil.rrule import rrulestr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ordinaut.domain.errors import Invalid
from ordinaut.domain.schedules.budget import Budget, BudgetSpentError
from ordinaut.domain.schedules.recurrence import Recurrence
from ordinaut.domain.schedules.rrule_text import parse_rule
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.spec import parse_schedule
from ordinaut.domain.schedules.zones import zone
from tests.unit.schedules.calendar_walk import UNITS, walk
from tests.unit.schedules.rules import COARSE, FINE, rules
from tests.unit.schedules.transitions import near_changes, one_of_each_kind

CREATED = datetime(2026, 1, 2, tzinfo=UTC)
PLENTY = 500_000
SECOND = timedelta(seconds=1)
STARTS = st.datetimes(datetime(2000, 1, 1), datetime(2038, 1, 1)).map(lambda at: at.replace(microsecond=0))


def parsed(text: str, dtstart: datetime) -> Recurrence:
    return parse_rule(text, dtstart).recurrence


def expanded(text: str, dtstart: datetime, start: datetime, end: datetime) -> list[datetime]:
    """What the rule names in [start, end]; behind that it may find nothing until the budget is spent."""
    found = []
    with suppress(BudgetSpentError):
        for wall in takewhile(lambda at: at <= end, parsed(text, dtstart).walls(start, Budget(PLENTY))):
            found.append(wall)
    return found


@settings(max_examples=80, deadline=None)
@given(rules(freqs=COARSE), STARTS, st.integers(0, 3 * 366))
@example("FREQ=YEARLY;BYWEEKNO=-1,1;WKST=SU", datetime(2011, 1, 1, 9), 0)
@example("FREQ=WEEKLY;BYDAY=MO,WE,SU;BYSETPOS=-1,1;WKST=SU;INTERVAL=2", datetime(2012, 2, 29, 9), 3)
@example("FREQ=MONTHLY;BYDAY=1MO,FR;BYSETPOS=2", datetime(2012, 2, 29, 9), 100)
def test_days_are_those_of_a_plain_walk_over_the_calendar(text: str, dtstart: datetime, later: int) -> None:
    end = dtstart + timedelta(days=3 * 366)
    start = dtstart + timedelta(days=later)
    assert expanded(text, dtstart, start, end) == [at for at in walk(text, dtstart, end) if at >= start]


@settings(max_examples=80, deadline=None)
@given(rules(freqs=FINE, most=100), STARTS, st.integers(0, 400))
@example("FREQ=SECONDLY;INTERVAL=59;BYSECOND=58;BYMINUTE=0,30", datetime(2024, 2, 28, 23, 59, 59), 7)
@example("FREQ=MINUTELY;INTERVAL=61;BYHOUR=3,4;BYSECOND=5,6;BYSETPOS=-1", datetime(2024, 2, 28, 23), 400)
@example("FREQ=HOURLY;INTERVAL=25;BYMINUTE=1,2;BYSETPOS=1", datetime(2024, 2, 28, 23), 400)
def test_times_are_those_of_a_plain_walk_over_every_unit(text: str, dtstart: datetime, later: int) -> None:
    unit = next(lasting for freq, lasting in UNITS.items() if freq in text)
    interval = int(text.split("INTERVAL=")[1].split(";")[0])
    end = dtstart + 3000 * interval * unit
    start = dtstart + later * interval * unit
    assert expanded(text, dtstart, start, end) == [at for at in walk(text, dtstart, end) if at >= start]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(FINE), st.integers(1, 100_000), st.sets(st.integers(0, 23), max_size=2),
    st.sets(st.integers(0, 59), max_size=2), st.sets(st.integers(0, 59), max_size=2), STARTS,
)  # fmt: skip
def test_a_time_that_is_far_away_is_where_counting_units_one_by_one_meets_it(
    freq: str, interval: int, hours: set[int], minutes: set[int], seconds: set[int], dtstart: datetime
) -> None:
    named = {"hour": hours, "minute": minutes, "second": seconds}
    fixed = {"HOURLY": ("hour",), "MINUTELY": ("hour", "minute"), "SECONDLY": ("hour", "minute", "second")}
    by = {unit: named[unit] for unit in fixed[freq] if named[unit]}
    parts = [f"BY{unit.upper()}={','.join(map(str, numbers))}" for unit, numbers in by.items()]
    text = ";".join([f"FREQ={freq}", f"INTERVAL={interval}", *parts])
    # Up to as many units as there are in the years within which an occurrence is looked for.
    steps = min(5000, timedelta(days=90 * 365) // (interval * UNITS[freq]))
    met = (dtstart + n * interval * UNITS[freq] for n in range(1, steps + 1))
    expected = [at for at in met if all(getattr(at, unit) in numbers for unit, numbers in by.items())]
    found = expanded(text, dtstart, dtstart + SECOND, dtstart + steps * interval * UNITS[freq])
    assert found == expected


AT_CHANGES = (
    "FREQ=MINUTELY;INTERVAL=7",
    "FREQ=HOURLY;BYMINUTE=0,10,50",
    "FREQ=DAILY;BYHOUR=0,1,2,3,23;BYMINUTE=5,30",
    "FREQ=WEEKLY;BYDAY=SA,SU;BYHOUR=2",
)


def whole_expansion(text: str, name: str, dtstart: datetime) -> list[datetime]:
    """All instants that python-dateutil names in the ten days from DTSTART on, read in the zone; rising."""
    plain = rrulestr(text, dtstart=dtstart).between(dtstart, dtstart + timedelta(days=10), inc=True)
    return sorted({wall.replace(tzinfo=zone(name)).astimezone(UTC) for wall in plain})


def next_after(text: str, name: str, dtstart: datetime, now: datetime) -> datetime | None:
    spec = {"rrule": text, "timezone": name, "dtstart": dtstart.isoformat()}
    return parse_schedule(spec, created_at=CREATED).next_after(now)


@settings(max_examples=150, deadline=None)
@given(near_changes(), st.sampled_from(AT_CHANGES))
@example(("Pacific/Apia", datetime(2011, 12, 30, 9, 59, tzinfo=UTC)), AT_CHANGES[2])
@example(("Australia/Lord_Howe", datetime(2024, 10, 5, 15, 29, tzinfo=UTC)), AT_CHANGES[0])
def test_near_the_changes_of_all_zones_the_next_is_the_earliest_of_the_whole_expansion(
    where: tuple[str, datetime], text: str
) -> None:
    name, now = where
    dtstart = now.replace(tzinfo=None, second=0) - timedelta(days=3)
    expected = next(at for at in whole_expansion(text, name, dtstart) if at > now)
    assert next_after(text, name, dtstart, now) == expected


@pytest.mark.parametrize("text", AT_CHANGES)
def test_at_every_kind_of_change_there_is_the_next_is_the_earliest_of_the_whole_expansion(text: str) -> None:
    for change in one_of_each_kind():
        dtstart = change.at.replace(tzinfo=None, second=0) - timedelta(days=3)
        instants = whole_expansion(text, change.zone, dtstart)
        for minutes in (-61, -31, -1, 0, 1, 29, 59, 61, 119):
            now = change.at + timedelta(minutes=minutes)
            expected = next(at for at in instants if at > now)
            assert next_after(text, change.zone, dtstart, now) == expected, (change, now)


@settings(max_examples=60, deadline=None)
@given(rules(most=30), STARTS, st.integers(1, 400))
def test_count_ends_with_the_last_that_is_counted(text: str, dtstart: datetime, count: int) -> None:
    """For rules without a BY part the last one is computed; it is counted here."""
    spec = {"rrule": f"{text};COUNT={count}", "timezone": "UTC", "dtstart": dtstart.isoformat()}
    try:
        schedule = parse_schedule(spec, created_at=CREATED)
    except Invalid:
        return  # never fires, or takes too long to be counted out
    walls = islice(parsed(text, dtstart).walls(dtstart, Budget(PLENTY)), count)
    last = list(walls)[-1].replace(tzinfo=UTC)
    assert schedule.next_after(last - SECOND) == last
    assert schedule.next_after(last) is None


@pytest.mark.parametrize("freq", [*FINE, "DAILY", "WEEKLY"])
@pytest.mark.parametrize(("interval", "count"), [(1, 1), (3, 5), (7, 999), (12, 20)])
def test_the_computed_end_of_a_plain_count_is_the_counted_one(freq: str, interval: int, count: int) -> None:
    text, dtstart = f"FREQ={freq};INTERVAL={interval};COUNT={count}", datetime(2004, 2, 28, 23, 59, 58)
    last = list(rrulestr(text, dtstart=dtstart))[-1].replace(tzinfo=UTC)
    assert next_after(text, "UTC", dtstart, last - SECOND) == last
    assert next_after(text, "UTC", dtstart, last) is None


COUNTED = (*AT_CHANGES, "FREQ=SECONDLY;INTERVAL=11;BYHOUR=1,2,3", "FREQ=HOURLY;BYMONTH=3,10", "FREQ=MINUTELY")
ENDS = ("", ";COUNT=500", ";UNTIL=20240331T013000Z", ";UNTIL=20241006T021500")


@settings(max_examples=200, deadline=None)
@given(
    near_changes(hours=80), st.sampled_from(COUNTED) | rules(most=40), st.sampled_from(ENDS),
    st.integers(0, 4 * 86_400), st.integers(0, 2000),
)  # fmt: skip
@example(("Pacific/Apia", datetime(2011, 12, 29, 9, 59, tzinfo=UTC)), "FREQ=MINUTELY", "", 200_000, 2000)
@example(("Australia/Lord_Howe", datetime(2024, 10, 3, tzinfo=UTC)), "FREQ=MINUTELY", ENDS[3], 345_600, 9000)
def test_counting_a_day_at_once_is_counting_one_by_one(
    where: tuple[str, datetime], text: str, ends: str, seconds: int, cap: int
) -> None:
    name, first = where
    dtstart = (first - timedelta(days=2)).replace(tzinfo=None)
    spec = {"rrule": text + ends, "timezone": name, "dtstart": dtstart.isoformat()}
    try:
        schedule = parse_schedule(spec, created_at=CREATED)
    except Invalid:
        return
    last = first + timedelta(seconds=seconds)
    expected = Schedule.count_between(schedule, first, last, cap)
    assert schedule.count_between(first, last, cap) == expected
