"""The preview and its notes at clock changes: every kind, in zones whose clocks change differently."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.schedules.preview import preview
from ordinaut.domain.schedules.spec import normalise_schedule, parse_schedule
from ordinaut.domain.schedules.zones import exists, zone

CREATED = datetime(2011, 1, 1, tzinfo=UTC)

# Clocks go from 02:00 to 03:00 on 29 March 2026, and from 03:00 back to 02:00 on 25 October.
BERLIN = [
    (
        {"cron": "30 2 * * *"},
        "2026-03-28",
        "28 02:30",
        "29 03:00 + 02:30 does not exist, runs at 03:00",
        "30 02:30",
    ),
    (
        {"cron": "0,30 2 * * *"},
        "2026-03-29",
        "29 03:00 + 02:00 and 02:30 do not exist, run once at 03:00",
        "30 02:00",
    ),
    (
        {"cron": "0,20,40 2,3 * * *"},
        "2026-03-29",
        "29 03:00 + 02:00 to 02:40 do not exist, run once at 03:00",
        "29 03:20",
    ),
    (
        {"cron": "*/20 2 * * *"},
        "2026-03-29",
        "30 02:00 + 2026-03-29 02:00 to 02:40 do not exist, no run for them",
        "30 02:20",
    ),
    (
        {"cron": "30 * * * *"},
        "2026-03-29",
        "29 01:30",
        "29 03:30 + 02:30 does not exist, no run for it",
        "29 04:30",
    ),
    ({"cron": "30 2 * * *"}, "2026-10-25", "25 02:30 - the first 02:30, not the second", "26 02:30"),
    (
        {"cron": "30 * * * *"},
        "2026-10-25",
        "25 02:30 - the first 02:30",
        "25 02:30 - the second 02:30",
        "25 03:30",
    ),
    (
        {"rrule": "FREQ=DAILY", "dtstart": "2026-03-01T02:30:00"},
        "2026-03-28",
        "28 02:30",
        "29 03:30 + 02:30 does not exist, runs at 03:30",
        "30 02:30",
    ),
    (
        {"rrule": "FREQ=HOURLY", "dtstart": "2026-03-01T02:30:00"},
        "2026-03-29",
        "29 01:30",
        "29 03:30 + 02:30 does not exist, no run for it",
        "29 04:30",
    ),
    (
        {"rrule": "FREQ=DAILY;BYSECOND=15", "dtstart": "2026-03-01T02:30:00"},
        "2026-03-29",
        "29 03:30 + 02:30:15 does not exist, runs at 03:30:15",
    ),
    (
        {"rrule": "FREQ=YEARLY", "dtstart": "2026-01-01T08:00:00", "rdate": ["2026-03-29T02:30:00"]},
        "2026-03-28",
        "29 03:30 + 02:30 does not exist, runs at 03:30",
    ),
    (
        {"rrule": "FREQ=YEARLY", "dtstart": "2026-01-01T08:00:00", "rdate": ["2026-03-29T03:30:00"]},
        "2026-03-28",
        "29 03:30",
    ),
    (
        {"rrule": "FREQ=HOURLY", "dtstart": "2026-10-01T00:30:00"},
        "2026-10-25",
        "25 02:30 - the first 02:30, not the second",
        "25 03:30",
    ),
    (
        {"every": "1h", "anchor": "2026-03-29T00:30:00Z"},
        "2026-03-29",
        "29 01:30",
        "29 03:30 > 1h",
        "29 04:30",
    ),
    ({"every": "1d", "anchor": "2026-03-01T08:00:00"}, "2026-03-29", "29 09:00 > 1h", "30 09:00"),
    ({"every": "1d", "anchor": "2026-10-01T08:00:00"}, "2026-10-25", "25 07:00 < 1h", "26 07:00"),
    (
        {"every": "1h", "anchor": "2026-10-24T22:30:00Z"},
        "2026-10-25",
        "25 02:30 - the first 02:30",
        "25 02:30 - the second 02:30",
        "25 03:30",
    ),
    ({"every": "1d", "anchor": "2026-03-29T08:00:00"}, "2026-03-29", "29 08:00", "30 08:00"),
    ({"once": "2026-03-29T02:30:00"}, "2026-01-01", "29 03:30 + 02:30 does not exist, runs at 03:30"),
    ({"once": "2026-03-29T03:30:00"}, "2026-01-01", "29 03:30"),
    ({"once": "2026-10-25T02:30:00"}, "2026-01-01", "25 02:30 - the first 02:30, not the second"),
    ({"once": "2026-10-25T02:30:00+01:00"}, "2026-01-01", "25 02:30 - the second 02:30"),
]

# Half an hour: from 02:00 to 02:30 on 6 October 2024, and from 02:00 back to 01:30 on 7 April.
LORD_HOWE = [
    ({"cron": "15 2 * * *"}, "2024-10-05", "06 02:30 + 02:15 does not exist, runs at 02:30", "07 02:15"),
    (
        {"cron": "*/10 2 * * *"},
        "2024-10-05",
        "06 02:30 + 02:00 to 02:20 do not exist, no run for them",
        "06 02:40",
    ),
    ({"cron": "45 1 * * *"}, "2024-04-06", "07 01:45 - the first 01:45, not the second", "08 01:45"),
    (
        {"cron": "45 * * * *"},
        "2024-04-06",
        "07 01:45 - the first 01:45",
        "07 01:45 - the second 01:45",
        "07 02:45",
    ),
    (
        {"rrule": "FREQ=DAILY", "dtstart": "2024-10-01T02:15:00"},
        "2024-10-05",
        "06 02:45 + 02:15 does not exist, runs at 02:45",
        "07 02:15",
    ),
    (
        {"rrule": "FREQ=DAILY", "dtstart": "2024-04-01T01:45:00"},
        "2024-04-06",
        "07 01:45 - the first 01:45, not the second",
        "08 01:45",
    ),
    ({"every": "1d", "anchor": "2024-10-01T08:00:00"}, "2024-10-05", "06 08:30 > 30m", "07 08:30"),
    ({"every": "1d", "anchor": "2024-04-01T08:00:00"}, "2024-04-06", "07 07:30 < 30m", "08 07:30"),
    ({"once": "2024-10-06T02:15:00"}, "2024-01-01", "06 02:45 + 02:15 does not exist, runs at 02:45"),
    ({"once": "2024-04-07T01:45:00"}, "2024-01-01", "07 01:45 - the first 01:45, not the second"),
]

# The whole of 30 December 2011 was left out.
APIA = [
    (
        {"cron": "0 8 * * *"},
        "2011-12-29",
        "29 08:00",
        "31 00:00 + 2011-12-30 08:00 does not exist, runs at 2011-12-31 00:00",
        "31 08:00",
    ),
    (
        {"cron": "0 */6 * * *"},
        "2011-12-30T06:00",
        "31 00:00 + 2011-12-30 00:00 to 18:00 do not exist, no run for them",
        "31 06:00",
    ),
    (
        {"rrule": "FREQ=WEEKLY", "dtstart": "2011-12-23T08:00:00"},
        "2011-12-29",
        "31 08:00 + 2011-12-30 08:00 does not exist, runs at 2011-12-31 08:00",
        "06 08:00",
    ),
    (
        {"rrule": "FREQ=DAILY", "dtstart": "2011-12-23T08:00:00"},
        "2011-12-29",
        "29 08:00",
        "31 08:00 + 2011-12-30 08:00 does not exist, no run for it",
        "01 08:00",
    ),
    ({"every": "6h", "anchor": "2011-12-29T20:00:00"}, "2011-12-29", "29 20:00", "31 02:00 > 1d", "31 08:00"),
    (
        {"once": "2011-12-30T08:00:00"},
        "2011-01-01",
        "31 08:00 + 2011-12-30 08:00 does not exist, runs at 2011-12-31 08:00",
    ),
]

CASES = {"Europe/Berlin": BERLIN, "Australia/Lord_Howe": LORD_HOWE, "Pacific/Apia": APIA}
GAPS = [
    ("Europe/Berlin", datetime(2026, 3, 29)),
    ("Australia/Lord_Howe", datetime(2024, 10, 6)),
    ("Pacific/Apia", datetime(2011, 12, 30)),
    ("America/Sao_Paulo", datetime(2018, 11, 4)),
]
SIGNS = {
    "+": "clocks go forward:",
    "-": "clocks go back:",
    ">": "clocks went forward by",
    "<": "clocks went back by",
}


def notes(spec: dict[str, Any], after: str, count: int) -> list[str]:
    """The first occurrences, from the stored form of the schedule, as day, time and note."""
    schedule = parse_schedule(normalise_schedule(spec, CREATED), created_at=CREATED)
    start = datetime.fromisoformat(after).replace(tzinfo=UTC if "T" in after else schedule.tz)
    return [f"{o.local:%d %H:%M} {o.note}".strip() for o in preview(schedule, start, count)]


def spelled(short: str) -> str:
    """`29 03:30 > 1h`, with the sign written out."""
    for sign, words in SIGNS.items():
        short = short.replace(f" {sign} ", f" {words} ")
    return f"{short} since the one before" if "clocks went" in short else short


@pytest.mark.parametrize(("zone", "case"), [(zone, case) for zone in CASES for case in CASES[zone]])
def test_a_clock_change_is_noted(zone: str, case: tuple[Any, ...]) -> None:
    spec, after, *expected = case
    found = notes({**spec, "timezone": zone}, after, 50)
    first = next((index for index, one in enumerate(found) if one == spelled(expected[0])), 0)
    assert found[first : first + len(expected)] == [spelled(short) for short in expected]


@given(
    st.sampled_from(GAPS),
    st.integers(1, 59),
    st.lists(st.integers(0, 23), min_size=1, max_size=5, unique=True),
)
def test_every_time_in_a_gap_that_has_no_run_is_told_of_once(
    gap: tuple[str, datetime], step: int, hours: list[int]
) -> None:
    name, day = gap
    tz = zone(name)
    cron = f"*/{step} {','.join(map(str, hours))} * * *"
    schedule = parse_schedule({"cron": cron, "timezone": name}, created_at=CREATED)
    walk = (day - timedelta(days=1) + timedelta(minutes=minute) for minute in range(3 * 1440))
    missing = [w for w in walk if w.hour in hours and w.minute % step == 0 and not exists(tz, w)]
    told: list[datetime] = []
    before = (day - timedelta(days=1)).replace(tzinfo=tz).astimezone(UTC)
    while schedule.wall(before) < day + timedelta(days=3):
        at = schedule.next_after(before)
        assert at is not None
        told += schedule.dropped(before, at)
        before = at
    assert told == missing


def test_the_preview_ends_with_the_schedule() -> None:
    spec = {"rrule": "FREQ=DAILY;COUNT=2", "dtstart": "2024-01-01T00:00:00"}
    assert notes(spec, "2023-01-01", 9) == ["01 00:00", "02 00:00"]
