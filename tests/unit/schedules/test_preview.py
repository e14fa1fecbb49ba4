"""The preview and its notes at clock changes."""

from datetime import UTC, datetime
from typing import Any

import pytest

from ordinaut.domain.schedules.preview import preview
from ordinaut.domain.schedules.spec import parse_schedule

NEW_YORK = "America/New_York"


def notes(spec: dict[str, Any], after: datetime, count: int) -> list[str]:
    schedule = parse_schedule(spec, created_at=datetime(2024, 1, 1, tzinfo=UTC))
    return [
        f"{o.local:%d %H:%M} {o.note}".strip() for o in preview(schedule, after.replace(tzinfo=UTC), count)
    ]


@pytest.mark.parametrize(
    ("spec", "after", "expected"),
    [
        (
            {"rrule": "FREQ=DAILY", "dtstart": "2024-03-01T02:30:00", "timezone": NEW_YORK},
            datetime(2024, 3, 9),
            ["09 02:30", "10 03:30 clocks go forward: 02:30 does not exist, runs at 03:30", "11 02:30"],
        ),
        (
            {"cron": "30 2 * * *", "timezone": NEW_YORK},
            datetime(2024, 3, 9),
            ["09 02:30", "10 03:00 clocks go forward: 02:30 does not exist, runs at 03:00", "11 02:30"],
        ),
        (
            {"cron": "30 1 * * *", "timezone": NEW_YORK},
            datetime(2024, 11, 2),
            ["02 01:30", "03 01:30 clocks go back: the first 01:30", "04 01:30"],
        ),
        (
            {"every": "1h", "anchor": "2024-11-03T04:30:00Z", "timezone": NEW_YORK},
            datetime(2024, 11, 3, 5),
            [
                "03 01:30 clocks go back: the first 01:30",
                "03 01:30 clocks go back: the second 01:30",
                "03 02:30",
            ],
        ),
        (
            {"once": "2011-12-30T08:00:00", "timezone": "Pacific/Apia"},
            datetime(2011, 1, 1),
            ["31 08:00 clocks go forward: 2011-12-30 08:00 does not exist, runs at 2011-12-31 08:00"],
        ),
    ],
)
def test_a_clock_change_is_noted(spec: dict[str, Any], after: datetime, expected: list[str]) -> None:
    assert notes(spec, after, 3) == expected


def test_the_preview_ends_with_the_schedule() -> None:
    assert notes(
        {"rrule": "FREQ=DAILY;COUNT=2", "dtstart": "2024-01-01T00:00:00"}, datetime(2023, 1, 1), 9
    ) == [
        "01 00:00",
        "02 00:00",
    ]
