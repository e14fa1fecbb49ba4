"""Recurrence rules: against python-dateutil's full expansion, at clock changes, and when they are hostile."""

import threading
from datetime import UTC, date, datetime, timedelta
from itertools import islice, takewhile
from typing import Any

import pytest
from dateutil.rrule import rrulestr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ordinaut.domain.errors import Invalid
from ordinaut.domain.schedules.budget import Budget
from ordinaut.domain.schedules.rrule_text import parse_rule
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.spec import parse_schedule
from tests.unit.schedules.rules import rules

CREATED = datetime(2026, 1, 2, 8, 41, 17, 123456, tzinfo=UTC)


def rule(text: str, timezone: str = "UTC", **more: Any) -> Schedule:
    return parse_schedule({"rrule": text, "timezone": timezone, **more}, created_at=CREATED)


def walls(schedule: Schedule, after: datetime, count: int) -> list[str]:
    """The next wall times after a UTC instant, with offset."""
    found, at = [], schedule.next_after(after.replace(tzinfo=UTC))
    while at is not None and len(found) < count:
        found.append(at.astimezone(schedule.tz).strftime("%Y-%m-%d %H:%M:%S %z"))
        at = schedule.next_after(at)
    return found


def _within(seconds: float, work: Any) -> Any:
    """What `work()` gives, or None when it is not done in time."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(work())
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return result[0] if result else None


def _plain_expansion(text: str, dtstart: datetime, start: datetime, count: int) -> list[datetime] | None:
    """dateutil from DTSTART on; None where that walk is too long to be worth it."""
    found: list[datetime] = []
    try:
        for steps, at in enumerate(rrulestr(text, dtstart=dtstart)):
            if at >= start:
                found.append(at)
            if len(found) == count:
                return found
            if steps > 3000 or at.year > dtstart.year + 30:
                return None
    except ValueError:  # dateutil's word for a rule that never fires
        return []
    return None


@settings(max_examples=150, deadline=None)
@given(
    rules(like_dateutil=True),
    st.datetimes(datetime(1998, 1, 1), datetime(2030, 1, 1)),
    st.integers(0, 3 * 366 * 24 * 60),
)
def test_starting_anywhere_agrees_with_the_plain_expansion(text: str, dtstart: datetime, later: int) -> None:
    dtstart = dtstart.replace(microsecond=0)
    recurrence = parse_rule(text, dtstart).recurrence
    start = dtstart + timedelta(
        minutes=later if "SECONDLY" not in text and "MINUTELY" not in text else later % 90
    )
    try:
        ours = list(islice(recurrence.walls(start, Budget(200_000)), 5))
    except Exception:
        ours = []
    # A rule that does not fire soon would keep dateutil walking to the year 9999.
    assume(len(ours) == 5 and ours[-1].year < dtstart.year + 25)
    theirs = _plain_expansion(text, dtstart, start, 5)
    assume(theirs is not None)
    assert ours == theirs


@given(st.integers(1, 53), st.integers(2000, 2040), st.booleans())
def test_week_numbers_are_those_of_the_iso_calendar(week: int, year: int, from_the_end: bool) -> None:
    start = datetime(year, 1, 1)
    number = week - 54 if from_the_end else week
    recurrence = parse_rule(f"FREQ=YEARLY;BYWEEKNO={number}", start).recurrence
    ours = [
        wall.date() for wall in takewhile(lambda w: w.year == year, recurrence.walls(start, Budget(40_000)))
    ]
    days = [date(year, 1, 1) + timedelta(days=n) for n in range(365)]

    def wanted(day: date) -> bool:
        iso = day.isocalendar()
        last = date(iso.year, 12, 28).isocalendar().week
        return iso.week in (number, last + 1 + number)

    assert [day for day in ours if day in days] == [day for day in days if wanted(day)]


def test_plain_and_numbered_weekdays_are_both_meant() -> None:
    schedule = rule("FREQ=MONTHLY;BYDAY=1MO,FR", dtstart="2026-05-01T09:00:00")
    found = walls(schedule, datetime(2026, 4, 30), 4)
    assert [wall[8:10] for wall in found] == ["01", "04", "08", "15"]


def test_a_weekly_bysetpos_counts_in_the_whole_week() -> None:
    schedule = rule("FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=2", dtstart="2026-05-06T09:00:00")
    assert [wall[8:10] for wall in walls(schedule, datetime(2026, 5, 1), 2)] == ["06", "13"]


def test_until_with_a_zone_is_compared_as_an_instant() -> None:
    schedule = rule("FREQ=YEARLY;UNTIL=19990902T130000Z", "America/New_York", dtstart="19970902T090000")
    found = walls(schedule, datetime(1996, 1, 1), 9)
    assert [wall[:16] for wall in found] == ["1997-09-02 09:00", "1998-09-02 09:00", "1999-09-02 09:00"]


def test_a_time_in_the_gap_is_read_with_the_offset_before_it() -> None:
    schedule = rule("FREQ=DAILY", "America/New_York", dtstart="2024-03-09T02:30:00")
    assert walls(schedule, datetime(2024, 3, 10), 2) == [
        "2024-03-10 03:30:00 -0400",
        "2024-03-11 02:30:00 -0400",
    ]


def test_a_time_in_the_overlap_is_its_first() -> None:
    schedule = rule("FREQ=DAILY", "Europe/Chisinau", dtstart="2024-10-26T03:30:00")
    assert walls(schedule, datetime(2024, 10, 26, 12), 2) == [
        "2024-10-27 03:30:00 +0300",
        "2024-10-28 03:30:00 +0200",
    ]


def test_times_moved_out_of_the_gap_stay_in_order_and_meet_only_once() -> None:
    schedule = rule(
        "FREQ=DAILY;BYHOUR=2,3;BYMINUTE=0,20,30", "America/New_York", dtstart="2024-03-01T00:00:00"
    )
    found = walls(schedule, datetime(2024, 3, 10, 5), 3)
    assert [wall[11:16] for wall in found] == ["03:00", "03:20", "03:30"]


def test_an_hourly_rule_has_the_repeated_hour_once() -> None:
    schedule = rule("FREQ=HOURLY", "America/New_York", dtstart="2024-11-01T00:30:00")
    found = walls(schedule, datetime(2024, 11, 3, 4), 4)
    assert [wall[11:16] + wall[19:] for wall in found] == [
        "00:30 -0400",
        "01:30 -0400",
        "02:30 -0500",
        "03:30 -0500",
    ]


def test_half_an_hour_of_lord_howe() -> None:
    schedule = rule("FREQ=DAILY", "Australia/Lord_Howe", dtstart="2024-10-05T02:15:00")
    assert walls(schedule, datetime(2024, 10, 5), 1) == ["2024-10-06 02:45:00 +1100"]


def test_the_day_apia_skipped_becomes_the_next() -> None:
    schedule = rule("FREQ=DAILY", "Pacific/Apia", dtstart="2011-12-28T08:00:00")
    assert [wall[:10] for wall in walls(schedule, datetime(2011, 12, 28), 5)] == [
        "2011-12-28",
        "2011-12-29",
        "2011-12-31",
        "2012-01-01",
        "2012-01-02",
    ]


def test_without_dtstart_the_creation_gives_the_rest_and_seconds_are_zero() -> None:
    schedule = rule("FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR;BYHOUR=8;BYMINUTE=30", "Europe/Chisinau")
    assert walls(schedule, datetime(2026, 1, 2, 9), 1) == ["2026-01-05 08:30:00 +0200"]
    assert walls(rule("FREQ=DAILY"), datetime(2026, 1, 2, 9), 1) == ["2026-01-03 08:41:00 +0000"]
    assert walls(rule("FREQ=DAILY;BYSECOND=5"), datetime(2026, 1, 2, 9), 1) == ["2026-01-03 08:41:05 +0000"]


def test_rdate_adds_and_exdate_takes_away() -> None:
    schedule = rule(
        "FREQ=DAILY;COUNT=3",
        "America/New_York",
        dtstart="2026-05-01T09:00:00",
        rdate=["2026-05-02T12:00:00"],
        exdate=["2026-05-02T09:00:00", "2026-05-03T13:00:00Z"],
    )
    assert [wall[:16] for wall in walls(schedule, datetime(2026, 4, 1), 9)] == [
        "2026-05-01 09:00",
        "2026-05-02 12:00",
    ]


def test_content_lines_with_tzid_are_read() -> None:
    text = (
        "DTSTART;TZID=America/New_York:19970902T090000\nRRULE:FREQ=DAILY;COUNT=3\n"
        "EXDATE;TZID=America/New_York:19970903T090000\nRDATE:19970910T130000Z"
    )
    schedule = parse_schedule({"rrule": text}, created_at=CREATED)
    found = [wall[:16] for wall in walls(schedule, datetime(1997, 1, 1), 9)]
    assert found == ["1997-09-02 09:00", "1997-09-04 09:00", "1997-09-10 09:00"]


def test_until_is_inclusive_and_a_date_means_the_whole_day() -> None:
    for until in ("20260103T090000Z", "20260103T090000", "20260103"):
        schedule = rule(f"FREQ=DAILY;UNTIL={until}", dtstart="2026-01-02T09:00:00")
        assert len(walls(schedule, datetime(2026, 1, 1), 9)) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=31", "never fires"),
        ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=31", "never fires"),
        ("FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=31", "never fires"),
        ("FREQ=SECONDLY;INTERVAL=60;BYSECOND=5", "never fires"),
        ("FREQ=DAILY;INTERVAL=7;BYDAY=MO", "never fires"),
        ("FREQ=YEARLY;BYDAY=SU;BYYEARDAY=366;BYWEEKNO=1", "never fires"),
        ("FREQ=SECONDLY;INTERVAL=86399;BYHOUR=0;BYMINUTE=0;BYSECOND=0", "too seldom"),
        ("FREQ=SECONDLY;COUNT=1000000000", "COUNT=1000000000"),
        ("FREQ=YEARLY;BYDAY=MO;BYSETPOS=1;COUNT=10000", "COUNT"),
        ("FREQ=DAILY;UNTIL=20000101T000000Z", "UNTIL is before"),
        ("FREQ=DAILY;UNTIL=20260231", "no day"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20300101", "exclude each other"),
        ("FREQ=DAILY;BYSETPOS=1", "BYSETPOS"),
        ("FREQ=DAILY;BYMONTH=13", "1 to 12"),
        ("FREQ=DAILY;BYDAY=XX", "BYDAY"),
        ("FREQ=DAILY;BYDAY=2MO", "MONTHLY or YEARLY"),
        ("FREQ=MONTHLY;BYWEEKNO=3", "YEARLY"),
        ("FREQ=FORTNIGHTLY", "allowed: YEARLY"),
        ("BYDAY=MO", "FREQ is missing"),
        ("FREQ=DAILY;FREQ=DAILY", "twice"),
        ("FREQ=DAILY;INTERVAL=0", "INTERVAL=0"),
        ("FREQ=DAILY;COLOUR=RED", "allowed"),
        ("RRULE:FREQ=DAILY\nEXRULE:FREQ=WEEKLY", "EXRULE"),
        ("", "no RRULE"),
        ("x" * 5000, "4096"),
    ],
)
def test_a_hostile_or_wrong_rule_is_refused_with_the_reason(text: str, said: str) -> None:
    outcome = _within(2, lambda: rule(text, dtstart="2026-01-06T01:02:03"))
    assert isinstance(outcome, Invalid), outcome
    assert said in outcome.message
    assert [fault.pointer for fault in outcome.faults] == ["/rrule"]


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"FREQ={freq}"
            for freq in ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")
        ),
        "FREQ=SECONDLY;INTERVAL=3599;BYHOUR=23;BYMINUTE=59;BYSECOND=59",
        "FREQ=SECONDLY;INTERVAL=7;BYHOUR=3;BYMINUTE=0;BYSECOND=0",
        "FREQ=MINUTELY;BYMONTH=2;BYMONTHDAY=29;BYHOUR=0;BYMINUTE=0",
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO",
    ],
)
def test_with_a_start_twenty_years_ago_the_next_is_found_in_few_steps(text: str) -> None:
    recurrence = parse_rule(text, datetime(2006, 2, 28, 1, 2, 3)).recurrence
    budget = Budget(10_000)
    assert next(recurrence.walls(datetime(2026, 7, 7, 23, 59, 58), budget)) > datetime(2026, 7, 7)


@settings(max_examples=200, deadline=None)
@given(rules(), st.text(alphabet="=;,0123456789MOFREQ:\n", max_size=10), st.integers(0, 60))
def test_any_text_is_read_or_refused(text: str, noise: str, place: int) -> None:
    try:
        rule(text[:place] + noise + text[place:])
    except Invalid as refused:
        assert refused.faults
