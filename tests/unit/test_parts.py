"""Patterns of several parts against plain models: which events belong together, and what does not come."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ordinaut.domain.patterns import MOST_WAITING, Closing, Drop, Held, Kind, Pattern, Start
from ordinaut.domain.windows import Window, close, collect

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)

PARTS = ("a", "b", "c")

Decided = list[tuple[str, tuple[int, ...], tuple[str, ...]]]
"""What is decided of events: the outcome, their positions, and of a run the parts they are."""


def held(position: int, second: float, *parts: str) -> Held:
    return Held(position, NOON + timedelta(seconds=second), parts)


def of(closing: Closing) -> Decided:
    found: Decided = []
    for one in closing.outcomes:
        if isinstance(one, Drop):
            found.append((one.reason, (one.event.position,), ()))
        else:
            found.append(
                ("run", tuple(each.position for _, each in one.parts), tuple(name for name, _ in one.parts))
            )
    told = {position for _, positions, _ in found for position in positions}
    quiet = sorted(each.position for each in closing.held if each.position not in told)
    return found + [(closing.reason, (position,), ()) for position in quiet]


def everything(pattern: Pattern, events: Sequence[Held]) -> Decided:
    """What all of it comes to, in any order of decisions, when time goes on behind the last event."""
    window: Window | None = None
    found: Decided = []
    for event in events:
        step = collect(window, pattern, event)
        found += [one for closing in step.closings for one in of(closing)]
        window = step.window
    while window is not None:
        closing, window = close(window)
        assert closing is not None
        found += of(closing)
    return sorted(found)


def some_events(names: Sequence[str]) -> st.SearchStrategy[list[Held]]:
    some = st.tuples(st.integers(0, 15), st.sets(st.sampled_from(names), min_size=1))
    return st.lists(some, min_size=1, max_size=25).map(
        lambda given: [
            held(number, sum(gap for gap, _ in given[: number + 1]), *sorted(parts))
            for number, (_, parts) in enumerate(given)
        ]
    )


def seconds(earlier: Held, later: Held) -> float:
    return (later.at - earlier.at).total_seconds()


def completing(
    kind: Kind, names: Sequence[str], open_: Sequence[Held], within: float
) -> list[tuple[Held, ...]]:
    """Every way in which the last of these events completes the pattern, tried out one by one."""
    ways = []
    for way in product(*([one for one in open_ if name in one.parts] for name in names)):
        if open_[-1] not in way or seconds(min(way, key=lambda e: e.at), open_[-1]) > within:
            continue
        rising = all(one.position < other.position for one, other in pairwise(way))
        if kind == "all_of" or rising:
            ways.append(way)
    return ways


@settings(max_examples=300)
@given(st.sampled_from(["sequence", "all_of"]), st.integers(2, 3), some_events(PARTS), st.integers(0, 40))
def test_a_run_has_an_event_of_every_part_as_soon_as_there_is_one_and_no_event_is_in_two(
    kind: Kind, number: int, events: list[Held], within: int
) -> None:
    names = PARTS[:number]
    events = [replace(one, parts=tuple(p for p in one.parts if p in names) or ("a",)) for one in events]
    decided = everything(Pattern(kind, within=within, parts=names), events)
    open_: list[Held] = []
    expected: list[set[tuple[int, ...]]] = []
    for event in events:
        open_.append(event)
        ways = completing(kind, names, open_, within)
        if ways:
            # The shortest; of those that are as short, whichever.
            starts = [min(one.at for one in way) for way in ways]
            best = max(starts)
            expected.append(
                {tuple(e.position for e in way) for way, at in zip(ways, starts, strict=True) if at == best}
            )
            open_ = []
    found = sorted((positions for what, positions, _ in decided if what == "run"), key=max)
    assert len(found) == len(expected)
    for one, possible in zip(found, expected, strict=True):
        assert one in possible
    in_runs = {position for one in found for position in one}
    dropped = [positions[0] for what, positions, _ in decided if what != "run"]
    assert sorted([*in_runs, *dropped]) == [one.position for one in events], "each event is decided on, once"
    assert {what for what, _, _ in decided} <= {"run", "incomplete", "superseded"}


@settings(max_examples=300)
@given(some_events(("after", "expected")), st.integers(0, 40))
def test_what_was_not_followed_in_time_by_what_was_expected_has_a_run(
    events: list[Held], within: int
) -> None:
    decided = everything(Pattern("absent", within=within, parts=("after", "expected")), events)
    expected = [
        one.position
        for number, one in enumerate(events)
        if "after" in one.parts
        and not any("expected" in e.parts and seconds(one, e) <= within for e in events[number + 1 :])
    ]
    assert sorted(positions[0] for what, positions, _ in decided if what == "run") == expected
    positions = sorted(position for _, positions, _ in decided for position in positions)
    assert positions == [one.position for one in events], "each event is decided on, once"
    assert {what for what, _, _ in decided} <= {"run", "arrived", "unmatched"}


@settings(max_examples=300)
@given(
    st.sampled_from(
        [
            Pattern("sequence", within=20.0, parts=PARTS),
            Pattern("all_of", within=20.0, parts=PARTS),
            Pattern("absent", within=20.0, parts=("a", "b")),
        ]
    ),
    some_events(PARTS),
    st.lists(st.floats(0, 1), min_size=25, max_size=25),
    st.integers(0, 20),
)
def test_events_that_come_late_by_no_more_than_the_lateness_come_to_the_same(
    pattern: Pattern, events: list[Held], delays: list[float], lateness: int
) -> None:
    if pattern.kind == "absent":
        pattern = replace(pattern, parts=("after", "expected"))
        names = {"a": "after", "b": "expected", "c": "after"}
        events = [replace(one, parts=tuple(sorted({names[p] for p in one.parts}))) for one in events]

    def arrival(event: Held) -> tuple[timedelta, int]:
        return event.at - NOON + timedelta(seconds=delays[event.position] * lateness), event.position

    in_order = everything(pattern, events)
    assert everything(replace(pattern, lateness=float(lateness)), sorted(events, key=arrival)) == in_order


def test_of_several_ways_to_be_complete_the_shortest_counts_and_the_rest_is_superseded() -> None:
    pattern = Pattern("sequence", within=60.0, parts=("a", "b"))
    events = [held(1, 0, "a"), held(2, 10, "a"), held(3, 20, "b"), held(4, 30, "b")]
    assert everything(pattern, events) == [
        ("incomplete", (4,), ()), ("run", (2, 3), ("a", "b")), ("superseded", (1,), ()),
    ]  # fmt: skip


def test_a_completed_window_waits_for_its_lateness_only() -> None:
    pattern = Pattern("all_of", 5.0, within=60.0, parts=("a", "b"))
    window = Window(pattern, (held(1, 0, "b"), held(2, 7, "a")))
    assert window.due_at == NOON + timedelta(seconds=12)
    closing, left = close(window)
    assert closing is not None and left is None
    assert closing.reason == "complete"
    assert closing.outcomes == (Start(window.held, (("a", window.held[1]), ("b", window.held[0]))),)


HEARTBEAT = Pattern("absent", within=30.0, parts=("after", "expected"))


def test_a_heartbeat_ends_the_wait_of_the_one_before_and_begins_its_own() -> None:
    beats = [held(n, n * 20, "after", "expected") for n in range(3)]
    window: Window | None = None
    for beat in beats:
        window = collect(window, HEARTBEAT, beat).window
    assert window is not None and window.due_at == NOON + timedelta(seconds=20), "when the second came"
    assert everything(HEARTBEAT, beats) == [
        ("arrived", (0,), ()), ("arrived", (1,), ()), ("run", (2,), ("after",)),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["sequence", "absent"])
def test_what_one_source_says_does_not_end_the_wait_for_another_that_is_behind(kind: Kind) -> None:
    names = ("after", "expected") if kind == "absent" else ("a", "b")
    pattern = Pattern(kind, within=30.0, parts=names)
    window: Window | None = None
    for event in (held(1, 0, names[0]), held(2, 3600, names[0]), held(3, 10, names[1])):
        step = collect(window, pattern, event)
        assert step.closings == (), "who ends it looks at the other source before"
        window = step.window
    assert window is not None
    closing, _ = close(window)
    assert closing is not None
    assert (closing.reason, [one.position for one in closing.held]) == (
        "arrived" if kind == "absent" else "complete",
        [1, 3],
    )


@pytest.mark.parametrize(("reason", "number"), [("too_many", MOST_WAITING), ("changed", 1)])
def test_a_wait_that_is_ended_before_its_time_starts_nothing_and_says_so(reason: str, number: int) -> None:
    window = Window(HEARTBEAT, tuple(held(n, 0, "after") for n in range(number - 1 or 1)))
    pattern = HEARTBEAT if reason == "too_many" else Pattern("sequence", within=9.0, parts=PARTS)
    step = collect(window, pattern, held(MOST_WAITING, 1, "after" if reason == "too_many" else "a"))
    (closing,) = step.closings
    assert closing.outcomes == (Drop(window.held[0], reason),)
    assert step.window is not None and held(MOST_WAITING, 1).position in {
        one.position for one in step.window.held
    }
