"""Patterns of events: what a task with one collects, and what becomes of it.

A task's events with one key are collected in a *window* (domain/windows.py). Time is event time: the instants
that the events carry, not those they were read at.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self

Kind = Literal["debounce", "batch", "throttle", "sequence", "all_of", "absent"]

Reason = Literal[
    "quiet", "max_wait", "size", "time", "window",
    "complete", "incomplete", "superseded", "absent", "arrived", "unmatched", "changed",
]  # fmt: skip
"""Why a window ended, or some of its events left it."""

LARGEST = 10_000
"""The most events a window holds; it ends with that many."""

MOST_BYTES = 8 * 1024 * 1024
"""The most that the inputs of a batch have together, as JSON; it ends before one that would be too much."""

LATEST = datetime(9000, 1, 1, tzinfo=UTC)
"""Events from behind that instant count as from then: their windows have to end in the calendar, too."""

MOST_WAITING = 1000
"""The most it holds where the pattern has parts: each event that leaves it is looked for among the others."""

AFTER, EXPECTED = "after", "expected"
"""The parts of `absent`: what opens the wait, and what does not come."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A task's pattern; durations are in seconds. What its kind does not have is 0, False or empty.

    `parts` are the names of the kinds of event that it is made of, `sources` the streams and types of events
    that they come from (see domain/trigger.py).
    """

    kind: Kind
    lateness: float = 0.0
    quiet: float = 0.0
    max_wait: float = 0.0
    size: int = LARGEST
    time: float = 0.0
    limit: int = 0
    window: float = 0.0
    last: bool = False
    within: float = 0.0
    parts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def starts_at_once(self) -> bool:
        """Whether events start their runs when they come, and none is held."""
        return self.kind == "throttle" and not self.last

    @property
    def most(self) -> int:
        """The most events a window holds."""
        return MOST_WAITING if self.parts else LARGEST

    def continues(self, other: "Pattern") -> bool:
        """Whether events that were collected under `other` mean the same under this one."""
        return (self.kind, self.last, self.parts) == (other.kind, other.last, other.parts)

    def as_data(self) -> dict[str, Any]:
        """As EventCollected carries it: without what it does not have."""
        plain = Pattern(self.kind)
        return {
            name: value
            for name, value in asdict(self).items()
            if name == "kind" or value != getattr(plain, name)
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """The pattern as EventCollected carries it."""
        lists = {name: tuple(data[name]) for name in ("parts", "sources") if name in data}
        return cls(**{**data, **lists})


@dataclass(frozen=True, slots=True)
class Held:
    """A collected event: the position in the log it was collected at, its own time, which parts of the
    pattern it is, and how many bytes its input has."""

    position: int
    at: datetime
    parts: tuple[str, ...] = ()
    size: int = 0

    @classmethod
    def from_data(cls, position: int, data: Mapping[str, Any], size: int) -> Self:
        """The event that EventCollected put by, with so many bytes of input."""
        at = min(datetime.fromisoformat(data["at"]), LATEST)
        return cls(position, at, tuple(data.get("parts", ())), size)


@dataclass(frozen=True, slots=True)
class Start:
    """A run for these events, in the order of their time; it is about the last, or about all. `parts` says
    which of them is which part of the pattern."""

    events: tuple[Held, ...]
    parts: tuple[tuple[str, Held], ...] = ()


def input_of(start: Start, collected: Mapping[int, Mapping[str, Any]]) -> Any:
    """The input of the run, from what EventCollected says of its events, by their positions."""
    given = [collected[held.position] for held in start.events]
    match given[-1]["pattern"]["kind"]:
        case "batch":
            return [one["input"] for one in given]
        case "sequence" | "all_of":
            return {name: collected[held.position]["input"][name] for name, held in start.parts}
        case "absent":
            return given[-1]["input"][AFTER]
    return given[-1]["input"]


@dataclass(frozen=True, slots=True)
class Drop:
    """No run for this event, and why."""

    event: Held
    reason: str = "throttled"


@dataclass(frozen=True, slots=True)
class Closing:
    """The events of a window that ended, in the order of their time, why, and what becomes of each. Those
    that nothing is said of started no run, and needed none."""

    pattern: Pattern
    held: tuple[Held, ...]
    reason: Reason
    outcomes: tuple[Start | Drop, ...]
