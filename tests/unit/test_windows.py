"""Windows of events against plain models: what starts a run, what does not, and when."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ordinaut.domain.patterns import LARGEST, MOST_BYTES, Drop, Held, Pattern, Start
from ordinaut.domain.windows import Window, close, collect

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def held(position: int, second: float) -> Held:
    return Held(position, NOON + timedelta(seconds=second))


def play(pattern: Pattern, events: Sequence[Held]) -> tuple[list[tuple[int, ...]], list[int], Window | None]:
    """(the events of each run, those without one, the window that is open at the end), in order."""
    window: Window | None = None
    runs: list[tuple[int, ...]] = []
    dropped: list[int] = []

    def note(outcomes: Sequence[Start | Drop]) -> None:
        for one in outcomes:
            if isinstance(one, Start):
                runs.append(tuple(each.position for each in one.events))
            else:
                dropped.append(one.event.position)

    for event in events:
        step = collect(window, pattern, event)
        for closing in step.closings:
            note(closing.outcomes)
        note(step.at_once)
        window = step.window
    return runs, dropped, window


rising = st.lists(st.integers(0, 30), min_size=1, max_size=40).map(
    lambda gaps: [held(n, sum(gaps[: n + 1])) for n in range(len(gaps))]
)


@settings(max_examples=150)
@given(rising, st.integers(1, 20), st.integers(1, 60))
def test_a_debounced_run_is_for_what_came_without_a_pause_and_within_the_longest_wait(
    events: list[Held], quiet: int, longest: int
) -> None:
    pattern = Pattern("debounce", quiet=quiet, max_wait=longest)
    runs, dropped, window = play(pattern, events)
    expected: list[list[Held]] = []
    for event in events:
        last = expected[-1] if expected else []
        open_ = last and (event.at - last[-1].at).total_seconds() <= quiet
        if open_ and (event.at - last[0].at).total_seconds() <= longest:
            last.append(event)
        else:
            expected.append([event])
    left = [tuple(each.position for each in window.held)] if window else []
    assert runs + left == [tuple(each.position for each in one) for one in expected]
    assert dropped == []


@settings(max_examples=150)
@given(rising, st.integers(1, 6), st.integers(1, 60))
def test_a_batch_ends_by_its_size_or_its_time(events: list[Held], size: int, time: int) -> None:
    runs, _, window = play(Pattern("batch", size=size, time=time), events)
    left = [tuple(each.position for each in window.held)] if window else []
    assert [n for one in runs + left for n in one] == [each.position for each in events], "each is in one"
    for one in runs + left:
        assert len(one) <= size
        assert (events[one[-1]].at - events[one[0]].at).total_seconds() <= time
    for one, following in zip(runs, (runs + left)[1:], strict=False):
        gone_by = (events[following[0]].at - events[one[0]].at).total_seconds()
        assert len(one) == size or gone_by > time, "no run comes before it has to"
    assert window is None or len(window.held) < size


@settings(max_examples=150)
@given(st.lists(st.integers(0, MOST_BYTES + 1), min_size=1, max_size=20))
def test_a_batch_ends_before_its_inputs_are_too_much_for_a_run(sizes: list[int]) -> None:
    events = [replace(held(number, number), size=size) for number, size in enumerate(sizes)]
    runs, _, window = play(Pattern("batch", time=60.0), events)
    left = [tuple(each.position for each in window.held)] if window else []
    assert [n for one in runs + left for n in one] == list(range(len(sizes)))
    for one in runs + left:
        assert len(one) == 1 or sum(sizes[n] for n in one) <= MOST_BYTES
    for one, following in zip(runs, (runs + left)[1:], strict=False):
        assert sum(sizes[n] for n in one) + sizes[following[0]] > MOST_BYTES, "no run comes before it has to"


@settings(max_examples=150)
@given(rising, st.integers(1, 4), st.integers(1, 60), st.booleans())
def test_a_throttled_window_starts_at_most_its_limit_and_decides_on_every_event(
    events: list[Held], limit: int, length: int, last: bool
) -> None:
    pattern = Pattern("throttle", limit=limit, window=length, last=last)
    runs, dropped = everything(pattern, events)
    started = [one[0] for one in runs]
    assert sorted(started + dropped) == [each.position for each in events]
    windows: list[list[int]] = []
    for event in events:
        if windows and (event.at - events[windows[-1][0]].at).total_seconds() <= length:
            windows[-1].append(event.position)
        else:
            windows.append([event.position])
    expected = [n for one in windows for n in (one[-limit:] if last else one[:limit])]
    assert started == expected


@settings(max_examples=150)
@given(
    rising,
    st.lists(st.floats(0, 1), min_size=40, max_size=40),
    st.integers(0, 20),
    st.sampled_from(
        [
            Pattern("batch", time=10.0),
            Pattern("debounce", quiet=7.0, max_wait=25.0),
            Pattern("throttle", limit=2, window=15.0, last=True),
        ]
    ),
)
def test_events_that_come_late_by_no_more_than_the_lateness_make_the_same_windows(
    events: list[Held], delays: list[float], lateness: int, pattern: Pattern
) -> None:
    def arrival(event: Held) -> tuple[timedelta, int]:
        return event.at - NOON + timedelta(seconds=delays[event.position] * lateness), event.position

    in_order = everything(pattern, events)
    assert everything(replace(pattern, lateness=float(lateness)), sorted(events, key=arrival)) == in_order


def everything(pattern: Pattern, events: Sequence[Held]) -> tuple[list[tuple[int, ...]], list[int]]:
    """What all of it comes to when time goes on behind the last event."""
    runs, dropped, window = play(pattern, events)
    while window is not None:
        closing, window = close(window)
        for one in closing.outcomes if closing else ():
            if isinstance(one, Start):
                runs.append(tuple(each.position for each in one.events))
            else:
                dropped.append(one.event.position)
    return runs, dropped


def test_a_window_holds_no_more_than_it_may() -> None:
    pattern = Pattern("debounce", quiet=100.0, max_wait=1e6)
    window = Window(pattern, tuple(held(n, 0) for n in range(LARGEST - 1)))
    step = collect(window, pattern, held(LARGEST, 1))
    assert step.window is None and step.closings[0].reason == "size"


DEBOUNCE = Pattern("debounce", 2.0, quiet=10.0, max_wait=60.0)


@pytest.mark.parametrize(
    ("pattern", "reason", "second"),
    [
        (DEBOUNCE, "quiet", 17),
        (replace(DEBOUNCE, lateness=0.0, max_wait=12.0), "max_wait", 12),
        (Pattern("batch", 1.0, time=30.0), "time", 31),
        (Pattern("throttle", limit=1, window=60.0, last=True), "window", 60),
    ],
)
def test_a_window_says_when_it_is_due_and_why_it_ended(pattern: Pattern, reason: str, second: int) -> None:
    window = Window(pattern, (held(1, 0), held(2, 5)))
    assert window.due_at == NOON + timedelta(seconds=second)
    closing, left = close(window)
    assert closing is not None and left is None
    assert (closing.reason, closing.held) == (reason, window.held)


def test_a_pattern_that_changes_its_kind_ends_the_window_and_new_times_hold_at_once() -> None:
    first = collect(None, Pattern("batch", time=60.0), held(1, 0)).window
    longer = collect(first, Pattern("batch", time=600.0), held(2, 100))
    assert longer.closings == () and longer.window is not None and len(longer.window.held) == 2
    other = collect(longer.window, DEBOUNCE, held(3, 101))
    assert [one.outcomes for one in other.closings] == [(Start((held(1, 0), held(2, 100))),)]
    assert other.window is not None and other.window.held == (held(3, 101),)
