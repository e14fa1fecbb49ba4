"""The schedule object: what is accepted, what is filled in, and how each mistake is named."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.errors import Invalid
from ordinaut.domain.schedules.spec import normalise_schedule, parse_schedule
from ordinaut.domain.schedules.zones import tz_version

CREATED = datetime(2026, 1, 2, 8, 41, 17, 123456, tzinfo=UTC)
LATER = CREATED + timedelta(days=400)

GOOD: list[dict[str, Any]] = [
    {"cron": " 30 8  * * 1-5 ", "timezone": "Europe/Chisinau"},
    {"cron": "@daily"},
    {"rrule": "freq=weekly;byday=mo", "timezone": "Europe/Chisinau", "exdate": ["2026-05-04T08:41:00"]},
    {
        "rrule": "DTSTART;TZID=America/New_York:20260101T090000\nRRULE:FREQ=DAILY",
        "rdate": ["2026-06-01T00:00:00Z"],
    },
    {"once": "2026-05-04T08:30:00", "timezone": "Europe/Chisinau"},
    {"once": "2026-05-04T08:30:00+02:00"},
    {"every": "PT90M"},
    {"every": "1d", "anchor": "2026-02-01T00:00:00", "timezone": "Asia/Tokyo"},
]


@pytest.mark.parametrize("spec", GOOD)
def test_normalising_twice_changes_nothing_and_keeps_the_meaning(spec: dict[str, Any]) -> None:
    normal = normalise_schedule(spec, CREATED)
    assert normalise_schedule(normal, LATER) == normal
    said, stored = parse_schedule(spec, created_at=CREATED), parse_schedule(normal, created_at=LATER)
    at = CREATED
    for _ in range(5):
        following = said.next_after(at)
        assert following == stored.next_after(at)
        if following is None:
            break
        assert following > at and following.utcoffset() == timedelta(0)
        at = following
    assert stored.kind in spec and stored.describe()


def test_what_creation_decides_is_stored() -> None:
    assert normalise_schedule({"rrule": "FREQ=DAILY", "timezone": "Europe/Chisinau"}, CREATED) == {
        "rrule": "FREQ=DAILY",
        "timezone": "Europe/Chisinau",
        "dtstart": "2026-01-02T10:41:00",
    }
    assert normalise_schedule({"every": "90m"}, CREATED) == {
        "every": "1h30m",
        "timezone": "UTC",
        "anchor": "2026-01-02T08:41:17Z",
    }


@pytest.mark.parametrize(
    ("spec", "pointer", "said"),
    [
        ({}, "", "exactly one of cron, rrule, once, every"),
        ({"cron": "@daily", "every": "1h"}, "/every", "cron and every"),
        ({"cron": "@daily", "tz": "UTC"}, "/tz", "allowed: cron, timezone"),
        ({"cron": "@daily", "a/b": 1}, "/a~1b", "allowed"),
        ({"cron": 5}, "/cron", "must be text, not a number"),
        ({"cron": "61 * * * *"}, "/cron", "0-59"),
        ({"cron": "@daily", "timezone": "Europe/Chisinaw"}, "/timezone", "did you mean Europe/Chisinau?"),
        ({"cron": "@daily", "timezone": "new york"}, "/timezone", "did you mean America/New_York?"),
        ({"cron": "@daily", "timezone": "../../etc/passwd"}, "/timezone", "IANA"),
        ({"cron": "@daily", "timezone": ""}, "/timezone", "not a time zone"),
        ({"rrule": "FREQ=DAILY", "dtstart": "yesterday"}, "/dtstart", "2026-05-04T08:30:00"),
        (
            {"rrule": "DTSTART:20260101T000000\nRRULE:FREQ=DAILY", "dtstart": "2026-01-01T00:00:00"},
            "/dtstart",
            "keep one",
        ),
        ({"rrule": "FREQ=DAILY", "exdate": ["2026-05-01"]}, "/exdate/0", "time of day"),
        ({"rrule": "FREQ=DAILY", "exdate": "2026-05-01"}, "/exdate", "list"),
        (
            {
                "rrule": "FREQ=DAILY;COUNT=1",
                "dtstart": "2026-05-01T00:00:00",
                "exdate": ["2026-05-01T00:00:00"],
            },
            "/rrule",
            "EXDATE",
        ),
        (
            {"rrule": "DTSTART;TZID=Asia/Tokyo:20260101T000000\nRRULE:FREQ=DAILY", "timezone": "UTC"},
            "/timezone",
            "Asia/Tokyo",
        ),
        ({"once": "2026-05-04"}, "/once", "time of day"),
        ({"once": "2026-02-30T00:00:00"}, "/once", "not a date"),
        ({"once": "9999-12-31T23:59:59-12:00"}, "", "calendar"),
        ({"every": "10"}, "/every", "15m"),
        ({"every": "100ms"}, "/every", "shortest"),
        ({"every": "P1M"}, "/every", "no fixed length"),
        ({"every": "1h", "anchor": "noon"}, "/anchor", "not a date"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_would_be_right(
    spec: dict[str, Any], pointer: str, said: str
) -> None:
    with pytest.raises(Invalid) as caught:
        parse_schedule(spec, created_at=CREATED)
    assert caught.value.faults[0].pointer == pointer
    assert said in str(caught.value.faults[0])


def test_every_unknown_field_is_named_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        parse_schedule({"once": 1, "x": 1, "y": 2}, created_at=CREATED)
    assert [fault.pointer for fault in caught.value.faults] == ["/x", "/y", "/once"]


def test_every_counts_elapsed_time_from_its_anchor() -> None:
    spec = {"every": "6h", "anchor": "2024-03-09T12:00:00", "timezone": "America/New_York"}
    schedule = parse_schedule(spec, created_at=CREATED)
    anchor = datetime(2024, 3, 9, 17, tzinfo=UTC)
    assert schedule.next_after(anchor - timedelta(days=9)) == anchor
    assert schedule.next_after(anchor) == anchor + timedelta(hours=6)
    assert schedule.next_after(anchor + timedelta(days=1, seconds=1)) == anchor + timedelta(hours=30)


@given(st.integers(1, 10**6), st.integers(-(10**9), 10**9))
def test_every_next_is_on_the_grid_and_within_one_interval(seconds: int, offset: int) -> None:
    schedule = parse_schedule({"every": f"{seconds}s", "anchor": "2026-01-01T00:00:00Z"}, created_at=CREATED)
    anchor = datetime(2026, 1, 1, tzinfo=UTC)
    now = anchor + timedelta(seconds=offset)
    at = schedule.next_after(now)
    assert at is not None and at > now and at >= anchor
    assert (at - anchor) % timedelta(seconds=seconds) == timedelta(0)
    assert at == anchor or at - now <= timedelta(seconds=seconds)


def test_once_fires_once() -> None:
    schedule = parse_schedule(
        {"once": "2026-03-08T02:30:00", "timezone": "America/New_York"}, created_at=CREATED
    )
    at = datetime(2026, 3, 8, 7, 30, tzinfo=UTC)
    assert (schedule.next_after(CREATED), schedule.next_after(at)) == (at, None)


def test_a_trigger_is_what_apscheduler_takes() -> None:
    trigger = parse_schedule({"cron": "0 9 * * *"}, created_at=CREATED).trigger()
    nine = datetime(2026, 1, 2, 9, tzinfo=UTC)
    assert trigger.get_next_fire_time(None, nine) == nine
    assert trigger.get_next_fire_time(nine, nine + timedelta(days=3)) == nine + timedelta(days=1)
    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.start(paused=True)
    try:
        assert scheduler.add_job(print, trigger).next_run_time.hour == 9
    finally:
        scheduler.shutdown()


def test_the_tz_version_is_a_release_of_the_database() -> None:
    assert tz_version()[:4].isdigit() and tz_version()[4:].isalpha()
