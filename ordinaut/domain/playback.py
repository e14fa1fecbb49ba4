"""Playing events of the past through the windows of a task, as if each had been read the moment it was
written. Pure.

Between two events time passes: the windows that are due by then end, as their timers would have ended them.
An event that comes at the very instant at which a window is due still finds it open.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import heappop, heappush

from ordinaut.domain.patterns import Closing, Drop, Held, Pattern, Reason, Start
from ordinaut.domain.windows import Window, close, collect


@dataclass(frozen=True, slots=True)
class Played:
    """What a window of the key `key` held, in the order of time, and what became of it. It ended `at` that
    instant for the `reason`, or (None) is open still and due then."""

    key: str
    pattern: Pattern
    held: tuple[Held, ...]
    at: datetime
    reason: Reason | None
    outcomes: tuple[Start | Drop, ...] = ()


@dataclass(slots=True)
class _Running:
    """A window that holds nothing, because its events start their runs when they come."""

    held: list[Held] = field(default_factory=list)
    outcomes: list[Start | Drop] = field(default_factory=list)


class Playback:
    """The windows of one task, by key."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[Window, datetime]] = {}
        self._running: dict[str, _Running] = {}
        self._due: list[tuple[datetime, str]] = []
        self._now = datetime.min.replace(tzinfo=UTC)

    def collect(self, key: str, pattern: Pattern, event: Held, now: datetime) -> Iterator[Played]:
        """Take an event in that was written at `now`; the windows that ended up to then, in the order they
        did. Time does not go back: one written before another that was taken in comes right behind it."""
        if now > self._now:
            yield from self._pass_time(now, inclusive=False)
            self._now = now
        before, due = self._windows.get(key, (None, now))
        step = collect(before, pattern, event)
        for closing in step.closings:
            yield _closed(key, closing, self._now)
        if before is not None and key in self._running and _is_another(before, step.window):
            yield self._stopped(key, before, min(self._now, due))
        if step.at_once:
            running = self._running.setdefault(key, _Running())
            running.held.append(event)
            running.outcomes += step.at_once
        self._set(key, step.window)

    def end(self, now: datetime) -> Iterator[Played]:
        """Let time pass up to `now` without another event; the windows that end, then those that are open
        still, by the instants at which they are due."""
        yield from self._pass_time(now, inclusive=True)
        for key, (window, due) in sorted(self._windows.items(), key=lambda item: (item[1][1], item[0])):
            running = self._running.get(key)
            if running is None:
                yield Played(key, window.pattern, window.held, due, None)
            else:
                yield Played(key, window.pattern, tuple(running.held), due, None, tuple(running.outcomes))

    def _pass_time(self, now: datetime, *, inclusive: bool) -> Iterator[Played]:
        while self._due and (self._due[0][0] < now or (inclusive and self._due[0][0] == now)):
            due, key = heappop(self._due)
            window, known = self._windows.get(key, (None, None))
            if window is None or known != due:
                continue  # it has ended, or is due at another time by now
            # What was late already when it came waits for nothing.
            at = max(due, self._now)
            if key in self._running:
                yield self._stopped(key, window, at)
            del self._windows[key]
            closing, left = close(window)
            if closing is not None:
                yield _closed(key, closing, at)
            self._set(key, left)

    def _set(self, key: str, window: Window | None) -> None:
        if window is None:
            self._windows.pop(key, None)
            return
        due = window.due_at
        if self._windows.get(key, (None, None))[1] != due:
            heappush(self._due, (due, key))
        self._windows[key] = window, due

    def _stopped(self, key: str, window: Window, at: datetime) -> Played:
        running = self._running.pop(key)
        return Played(key, window.pattern, tuple(running.held), at, "window", tuple(running.outcomes))


def _is_another(before: Window, window: Window | None) -> bool:
    return window is None or window.opened_at != before.opened_at


def _closed(key: str, closing: Closing, at: datetime) -> Played:
    return Played(key, closing.pattern, closing.held, at, closing.reason, closing.outcomes)
