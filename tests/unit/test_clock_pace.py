"""Which runs are spread after an outage, and how far apart."""

from datetime import UTC, datetime, timedelta
from math import ceil

import pytest

from ordinaut.clock.decide import Verdict
from ordinaut.clock.pace import is_caught_up, step
from ordinaut.domain.events import NewEvent
from tests.support.clock import most_in_a_second

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)


@pytest.mark.parametrize("rate", [0.1, 1.0, 3.0, 7.0, 99.9, 100.0, 12_345.0, 100_000.0])
def test_no_second_has_more_slots_than_the_rate_and_none_is_wasted(rate: float) -> None:
    slots = [NOW + n * step(rate) for n in range(min(40_000, int(3 * rate) + 2))]
    assert most_in_a_second(slots) <= ceil(rate)
    assert (step(rate) / TICK - 1) * rate < 1_000_000


def fired(at: datetime, **data: str) -> Verdict:
    return Verdict("run", at, 1, NewEvent("RunRequested", data))


def test_what_is_a_minute_late_is_on_time_and_what_is_later_is_caught_up() -> None:
    assert not is_caught_up(fired(NOW), NOW)
    assert not is_caught_up(fired(NOW - MINUTE), NOW)
    assert is_caught_up(fired(NOW - MINUTE - TICK), NOW)


def test_what_is_skipped_is_not_caught_up() -> None:
    skipped = Verdict("run", NOW - 9 * MINUTE, 5, NewEvent("OccurrenceSkipped", {}))
    assert not is_caught_up(skipped, NOW)


def test_what_jitter_puts_off_beyond_now_keeps_its_start() -> None:
    ahead, behind = (NOW + TICK).isoformat(), NOW.isoformat()
    assert not is_caught_up(fired(NOW - 9 * MINUTE, run_at=ahead), NOW)
    assert is_caught_up(fired(NOW - 9 * MINUTE, run_at=behind), NOW)
