"""Which of two measurements of the database's clock is gone by."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.runtime.time import DRIFT, Measurement, better

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def measured(monotonic: float, round_trip: float, off: float = 0.0) -> Measurement:
    """A measurement of a clock that says noon when the monotonic clock says 0, wrong by `off` seconds."""
    return Measurement(NOON + timedelta(seconds=monotonic + off), monotonic, round_trip)


def test_time_goes_on_from_what_was_measured() -> None:
    assert measured(5, 0.001).time(8.5) == NOON + timedelta(seconds=8.5)


def test_the_shorter_round_trip_is_the_better_measurement() -> None:
    quick, slow = measured(1, 0.001), measured(2, 0.2, off=0.05)
    assert better(quick, slow) is quick
    assert better(slow, measured(3, 0.001)).round_trip == 0.001


def test_an_old_measurement_gives_way_to_a_slower_one() -> None:
    quick = measured(0, 0.001)
    assert better(quick, measured(5, 0.01)) is quick
    late = measured(3600, 0.01)
    assert better(quick, late) is late


@pytest.mark.parametrize("off", [3600.0, -3600.0, 0.5])
def test_a_clock_that_was_set_is_followed_at_once(off: float) -> None:
    known, new = measured(0, 0.001), measured(10, 0.2, off=off)
    assert better(known, new) is new


def test_whatever_was_measured_is_better_than_nothing() -> None:
    guess = Measurement(NOON - timedelta(days=300), 0.0, math.inf)
    new = measured(1, 2.0)
    assert better(guess, new) is new


@given(
    st.lists(
        st.tuples(st.floats(0.001, 60), st.floats(0.0001, 2), st.floats(-1, 1)), min_size=1, max_size=20
    ),
    st.floats(0, 60),
)
def test_the_error_is_never_larger_than_what_is_said_of_it(
    samples: list[tuple[float, float, float]], later: float
) -> None:
    """Each answer is somewhere within its round trip, and the clocks run apart as fast as they may."""
    now, known = 0.0, None
    for wait, round_trip, where in samples:
        now += wait
        true = NOON + timedelta(seconds=now * (1 + DRIFT))
        new = Measurement(true + timedelta(seconds=where * round_trip / 2), now, round_trip)
        known = new if known is None else better(known, new)
    assert known is not None
    now += later
    true = NOON + timedelta(seconds=now * (1 + DRIFT))
    assert abs((known.time(now) - true).total_seconds()) <= known.error(now) + 1e-5
    assert known.error(now) <= new.error(now), "and it is no worse than the last one"
