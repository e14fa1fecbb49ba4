"""How lists and `task show` put a schedule in a few words."""

from typing import Any

import pytest

from ordinaut.cli.tasks import when

NINE = {"cron": "0 9 * * *", "timezone": "Europe/Chisinau"}


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (None, "by hand"),
        (NINE, "cron 0 9 * * * Europe/Chisinau"),
        (
            NINE | {"start": "2027-01-01", "end": "2027-06-30", "exclude": ["2027-01-07"]},
            "cron 0 9 * * * Europe/Chisinau from 2027-01-01 until 2027-06-30 (with exclusions)",
        ),
        ([{"every": "5m", "timezone": "UTC"}, NINE], "every 5m | cron 0 9 * * * Europe/Chisinau"),
        ({"on": {"stream": "orders"}}, "on orders"),
    ],
)
def test_a_schedule_is_told_with_its_zone_and_its_limits(schedule: Any, words: str) -> None:
    assert when(schedule) == words
