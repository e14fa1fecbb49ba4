"""Windows: the events of one key that a task collects instead of starting a run for each. Pure.

Time is event time (domain/patterns.py).

- `debounce`: one run when nothing has come for `quiet`, or `max_wait` after the first; for the last event.
- `batch`: one run for all, when there are `size` of them, or as many bytes as a run takes, or `time` after
  the first.
- `throttle`: at most `limit` runs in a window that the first event opens; for the first ones, each at once,
  or for the last ones, when the window ends.
- `sequence`, `all_of`, `absent`: see domain/parts.py.

A window ends `lateness` after its deadline, so that events out of order find it open. One that comes later
belongs to the next window.
"""

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import accumulate

from ordinaut.domain.parts import decide
from ordinaut.domain.patterns import MOST_BYTES, Closing, Drop, Held, Pattern, Reason, Start


@dataclass(frozen=True, slots=True)
class Window:
    """The events of a task and a key that are waiting, in the order of their time. Those behind the deadline
    are there already for the next window, while this one waits for what is late. (Where a pattern has parts,
    a window ends with each decision on some of its events.)

    A pattern that starts runs at once holds none: `started` counts its runs, and `opened_at` is the first
    event's time. `known` is how many events a debounced window is known to begin with, and their deadline.
    """

    pattern: Pattern
    held: tuple[Held, ...] = ()
    opened_at: datetime | None = None
    started: int = 0
    known: tuple[int, datetime] | None = field(default=None, compare=False, repr=False)

    def first(self) -> tuple[tuple[Held, ...], datetime]:
        """The events of this window, and its deadline: the instant, in event time, behind which nothing
        belongs to it."""
        if not self.held:
            assert self.opened_at is not None
            return (), self.opened_at + timedelta(seconds=self.pattern.window)
        if self.pattern.parts:
            decision = decide(self.pattern, self.held)
            return decision.members, decision.deadline
        opened = self.held[0].at
        if self.pattern.kind != "debounce":
            length = self.pattern.time if self.pattern.kind == "batch" else self.pattern.window
            deadline = opened + timedelta(seconds=length)
            number = bisect_right(self.held, deadline, key=lambda each: each.at)
            members = self.held[: min(number, self.pattern.size)]
            return (_fitting(members) if self.pattern.kind == "batch" else members), deadline
        quiet, longest = timedelta(seconds=self.pattern.quiet), timedelta(seconds=self.pattern.max_wait)
        number, deadline = self.known or (0, opened)
        for each in self.held[number:]:
            if number and each.at > deadline:
                break
            deadline, number = min(each.at + quiet, opened + longest), number + 1
        return self.held[:number], deadline

    def is_full(self) -> bool:
        """Whether it ends, though its time has not come."""
        members, deadline = self.first()
        if len(members) >= self.pattern.size or len(self.held) >= self.pattern.most:
            return True
        behind = self.held[len(members) : len(members) + 1]
        return self.pattern.kind == "batch" and any(one.at <= deadline for one in behind)

    @property
    def due_at(self) -> datetime:
        """When it ends, if nothing comes."""
        return self.first()[1] + timedelta(seconds=self.pattern.lateness)


@dataclass(frozen=True, slots=True)
class Step:
    """What one event does: the windows that end with it, runs at once, the window that is open then (None:
    none)."""

    window: Window | None
    closings: tuple[Closing, ...] = ()
    at_once: tuple[Start | Drop, ...] = ()


def collect(window: Window | None, pattern: Pattern, event: Held) -> Step:
    """Take one event in. A `pattern` that the task has got since takes the place of the window's; one of
    another kind ends it."""
    closings: list[Closing] = []
    if window is not None and not pattern.continues(window.pattern):
        while window is not None:
            window = _end(window, closings, "changed" if window.pattern.parts else None)
    if pattern.starts_at_once:
        return replace(_at_once(window, pattern, event), closings=tuple(closings))
    held = window.held if window else ()
    at = bisect_right(held, (event.at, event.position), key=lambda each: (each.at, each.position))
    # Most events come last: the thousands before need not be looked at for each.
    known = window.known if window is not None and window.pattern == pattern and at == len(held) else None
    left: Window | None = Window(pattern, (*held[:at], event, *held[at:]), known=known)
    while left is not None:
        full, (members, deadline) = left.is_full(), left.first()
        # Time goes by the latest event there is: what is late by more has its window behind it. Where there
        # are parts, another source may be behind this one, and who ends windows when they are due asks it.
        over = left.held[-1].at > deadline + timedelta(seconds=pattern.lateness)
        if not full and (pattern.parts or not over):
            if pattern.kind == "debounce":
                left = replace(left, known=(len(members), deadline))
            break
        left = _end(left, closings, "size" if full and not (pattern.parts and over) else None)
    return Step(left, tuple(closings))


def close(window: Window, reason: Reason | None = None) -> tuple[Closing | None, Window | None]:
    """End a window whose time has come, or for another `reason`: what that does (None: nothing, it held
    nothing), and the next window, which events wait for already."""
    pattern = window.pattern
    if pattern.parts:
        return _close_first(window, reason)
    members, deadline = window.first()
    if not members:
        return None, None
    rest = window.held[len(members) :]
    left = Window(pattern, rest) if rest else None
    if pattern.kind == "throttle":
        outcomes: tuple[Start | Drop, ...] = tuple(
            Start((each,)) if number >= len(members) - pattern.limit else Drop(each)
            for number, each in enumerate(members)
        )
        return Closing(pattern, members, reason or "window", outcomes), left
    if reason is None and pattern.kind == "debounce":
        waited = deadline - members[0].at >= timedelta(seconds=pattern.max_wait)
        reason = "max_wait" if waited else "quiet"
    return Closing(pattern, members, reason or "time", (Start(members),)), left


def _close_first(window: Window, reason: Reason | None) -> tuple[Closing, Window | None]:
    """End what is decided first in a window of a pattern with parts."""
    pattern, decision = window.pattern, decide(window.pattern, window.held)
    leaving = {one.position for one in decision.members}
    rest = tuple(one for one in window.held if one.position not in leaving)
    outcomes = decision.outcomes
    if reason is not None and decision.reason == "absent":
        # Ended before its time, nobody knows whether what was expected would have come.
        outcomes = tuple(
            Drop(event, "too_many" if reason == "size" else reason) for event in decision.members
        )
    closing = Closing(pattern, decision.members, reason or decision.reason, outcomes)
    return closing, Window(pattern, rest) if rest else None


def _fitting(events: tuple[Held, ...]) -> tuple[Held, ...]:
    """As many of the first of these as one run takes, and one at least."""
    if sum(one.size for one in events) <= MOST_BYTES:
        return events
    number = bisect_right(list(accumulate(one.size for one in events)), MOST_BYTES)
    return events[: max(1, number)]


def _at_once(window: Window | None, pattern: Pattern, event: Held) -> Step:
    opened = window.opened_at if window else None
    if opened is None or event.at > opened + timedelta(seconds=pattern.window):
        window, opened = None, event.at
    started = window.started if window else 0
    if started < pattern.limit:
        return Step(Window(pattern, (), opened, started + 1), (), (Start((event,)),))
    return Step(Window(pattern, (), opened, started), (), (Drop(event),))


def _end(window: Window, closings: list[Closing], reason: Reason | None = None) -> Window | None:
    closing, left = close(window, reason)
    if closing is not None:
        closings.append(closing)
    return left
