"""A space and what is set for all of it: so far, how near to one another a task's instants may be."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ordinaut.domain.durations import format_duration, parse_duration
from ordinaut.domain.errors import Invalid
from ordinaut.domain.events import Event, NewEvent

LONGEST_MINIMUM = timedelta(days=366)


def space_stream(name: str) -> str:
    """The stream that holds a space's events."""
    return f"space-{name}"


@dataclass(slots=True)
class Space:
    """A space as its events up to `version` make it; one that nobody has set anything for is at version 0.

    `minimum_interval` is the least time between two instants of a schedule (None: any). `changed_by` is the
    actor of the last change, `reason` what they said for it.
    """

    name: str
    minimum_interval: timedelta | None = None
    version: int = 0
    changed_at: datetime | None = None
    changed_by: str | None = None
    reason: str | None = None


def evolve(space: Space, event: Event) -> None:
    """Fold one event into the space, in place."""
    if event.type == "SpaceChanged":
        minimum = event.data["minimum_interval"]
        space.minimum_interval = None if minimum is None else parse_duration(minimum)
        space.changed_at, space.changed_by = event.at, event.actor
        space.reason = event.data.get("reason")
    space.version = event.version


def fold(name: str, events: Iterable[Event]) -> Space:
    """The space that these events of its stream make."""
    space = Space(name)
    for event in events:
        evolve(space, event)
    return space


def change(space: Space, minimum_interval: timedelta | None, reason: str | None) -> list[NewEvent]:
    """Give the space another minimum interval (None: none); nothing when it has that one. Raises Invalid."""
    if minimum_interval is not None and not timedelta(0) < minimum_interval <= LONGEST_MINIMUM:
        hint = f"null for none, at most {format_duration(LONGEST_MINIMUM)}"
        raise Invalid.at("/minimum_interval", "must be more than 0 and at most a year", hint)
    if minimum_interval == space.minimum_interval:
        return []
    data: dict[str, Any] = {"minimum_interval": shown(minimum_interval), "reason": reason}
    return [NewEvent("SpaceChanged", data)]


def shown(minimum_interval: timedelta | None) -> str | None:
    """A minimum interval as events and answers have it."""
    return None if minimum_interval is None else format_duration(minimum_interval)
