"""Playing events through windows: it comes to what intake comes to with the same events, window by window."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from ordinaut.domain.patterns import AFTER, EXPECTED, LARGEST, Drop, Held, Pattern, Start
from ordinaut.domain.playback import Playback, Played
from ordinaut.domain.windows import Window, close, collect

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(days=1)

PARTS = (AFTER, EXPECTED)

seconds = st.integers(1, 40).map(float)
patterns = st.one_of(
    st.builds(Pattern, st.just("debounce"), quiet=seconds, max_wait=seconds),
    st.builds(Pattern, st.just("batch"), size=st.integers(1, 6), time=seconds),
    st.builds(Pattern, st.just("throttle"), limit=st.integers(1, 3), window=seconds, last=st.booleans()),
    st.builds(Pattern, st.sampled_from(["sequence", "all_of"]), within=seconds, parts=st.just(PARTS)),
    st.builds(Pattern, st.just("absent"), within=seconds, parts=st.just(PARTS)),
)
"""A pattern of every kind; none waits for what is late."""

Event = tuple[str, Held]


def events_of(given_: Sequence[tuple[int, str, tuple[str, ...]]]) -> list[Event]:
    """Events in the order of their time: (seconds behind the one before, key, parts)."""
    found, at = [], NOON
    for position, (gap, key, parts) in enumerate(given_, start=1):
        at += timedelta(seconds=gap)
        found.append((key, Held(position, at, parts)))
    return found


some_events = st.lists(
    st.tuples(
        st.integers(0, 20),
        st.sampled_from("xyz"),
        st.sets(st.sampled_from(PARTS), min_size=1).map(lambda parts: tuple(sorted(parts))),
    ),
    min_size=1,
    max_size=40,
).map(events_of)

Decided = dict[str, list[tuple[str, tuple[int, ...]]]]
"""By key: the runs, by the positions of their events, and what was left out, and why."""


def note(decided: Decided, key: str, outcomes: Iterable[Start | Drop]) -> None:
    for one in outcomes:
        if isinstance(one, Start):
            decided[key].append(("run", tuple(each.position for each in one.events)))
        else:
            decided[key].append(("dropped", (one.event.position,)))


def as_intake_does(pattern: Pattern, events: Sequence[Event]) -> Decided:
    """Everything is taken in, as behind a long outage, then everything that is due ends."""
    windows: dict[str, Window | None] = {}
    decided: Decided = defaultdict(list)
    for key, event in events:
        step = collect(windows.get(key), pattern, event)
        for closing in step.closings:
            note(decided, key, closing.outcomes)
        note(decided, key, step.at_once)
        windows[key] = step.window
    for key, window in windows.items():
        while window is not None:
            closing, window = close(window)
            note(decided, key, closing.outcomes if closing else ())
    return {key: sorted(found) for key, found in decided.items()}


def play(pattern: Pattern, events: Sequence[Event], until: datetime = LATER) -> list[Played]:
    """What the windows held when each event is read at its own time, until some other time."""
    playback = Playback()
    found = [one for key, event in events for one in playback.collect(key, pattern, event, event.at)]
    return [*found, *playback.end(until)]


def decided_in(played: Iterable[Played]) -> Decided:
    decided: Decided = defaultdict(list)
    for one in played:
        note(decided, one.key, one.outcomes)
    return {key: sorted(found) for key, found in decided.items() if found}


@settings(max_examples=400)
@given(patterns, some_events)
def test_events_in_the_order_of_their_time_have_the_runs_that_intake_gives_them(
    pattern: Pattern, events: list[Event]
) -> None:
    assert decided_in(play(pattern, events)) == as_intake_does(pattern, events)


@settings(max_examples=200)
@given(patterns, some_events, st.integers(0, 800))
def test_every_event_is_in_one_window_and_windows_end_in_the_order_of_time(
    pattern: Pattern, events: list[Event], after: int
) -> None:
    until = max(events[-1][1].at, NOON + timedelta(seconds=after))
    played = play(pattern, events, until)
    positions = sorted(each.position for one in played for each in one.held)
    assert positions == [event.position for _, event in events]
    ended = [one.at for one in played if one.reason is not None]
    assert ended == sorted(ended) and all(at <= until for at in ended)
    assert all(one.at > until for one in played if one.reason is None), "what is open is due later"
    assert all(one.held for one in played)
    if not pattern.starts_at_once:
        assert not any(one.outcomes for one in played if one.reason is None)


@settings(max_examples=200)
@given(patterns, some_events, st.lists(st.floats(0, 1), min_size=40, max_size=40), st.integers(1, 20))
def test_events_that_come_late_by_no_more_than_the_lateness_come_to_the_same(
    pattern: Pattern, events: list[Event], delays: list[float], lateness: int
) -> None:
    if pattern.starts_at_once:
        return  # what has started its run cannot be taken back
    # A batch that is full does not wait.
    pattern = replace(pattern, size=LARGEST)
    in_order = decided_in(play(pattern, events))
    written = sorted(
        (
            (event.at + timedelta(seconds=delays[event.position - 1] * lateness), key, event)
            for key, event in events
        ),
        key=lambda each: (each[0], each[2].position),
    )
    playback = Playback()
    patient = replace(pattern, lateness=float(lateness))
    found = [one for at, key, event in written for one in playback.collect(key, patient, event, at)]
    assert decided_in([*found, *playback.end(LATER)]) == in_order


def test_a_window_tells_when_and_why_it_ended() -> None:
    debounce = Pattern("debounce", quiet=10.0, max_wait=60.0)
    events = [("x", Held(1, NOON)), ("y", Held(2, NOON + timedelta(seconds=5)))]
    first, second = play(debounce, events, NOON + timedelta(seconds=12))
    assert (first.key, first.reason, first.at) == ("x", "quiet", NOON + timedelta(seconds=10))
    assert first.outcomes == (Start((Held(1, NOON),)),)
    assert (second.key, second.reason, second.at) == ("y", None, NOON + timedelta(seconds=15))


def test_a_window_that_starts_runs_at_once_tells_what_it_started_and_what_it_left_out() -> None:
    throttle = Pattern("throttle", limit=1, window=10.0)
    held = [Held(n, NOON + timedelta(seconds=4 * n)) for n in range(4)]
    ended, open_ = play(throttle, [("x", one) for one in held], NOON + timedelta(seconds=13))
    assert ended.outcomes == (Start((held[0],)), Drop(held[1]), Drop(held[2]))
    assert (ended.reason, ended.at, ended.held) == ("window", NOON + timedelta(seconds=10), tuple(held[:3]))
    assert (open_.reason, open_.at) == (None, NOON + timedelta(seconds=22))
    assert open_.outcomes == (Start((held[3],)),)


def test_an_event_that_comes_when_its_time_is_over_ends_up_in_a_window_of_its_own() -> None:
    batch = Pattern("batch", size=10, time=5.0)
    playback = Playback()
    early, late = Held(1, NOON), Held(2, NOON + timedelta(seconds=1))
    minute = NOON + timedelta(minutes=1)
    assert list(playback.collect("", batch, early, NOON)) == []
    (first,) = playback.collect("", batch, late, minute)
    assert (first.held, first.at) == ((early,), NOON + timedelta(seconds=5))
    (second,) = playback.end(minute + timedelta(seconds=1))
    assert (second.held, second.at) == ((late,), minute), "it was over when it came"
