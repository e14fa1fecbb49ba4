"""What a schedule will do: its next occurrences, in UTC and on the wall, with a note at clock changes."""

from dataclasses import dataclass
from datetime import datetime

from ordinaut.domain.schedules.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One instant, as `utc` and `local` (aware, in the schedule's zone); `note` is "" when all is usual."""

    utc: datetime
    local: datetime
    note: str


def preview(schedule: Schedule, after: datetime, count: int) -> list[Occurrence]:
    """The first `count` occurrences strictly after `after` (aware); fewer when the schedule ends."""
    found: list[Occurrence] = []
    at = schedule.next_after(after)
    while at is not None and len(found) < count:
        found.append(Occurrence(at, at.astimezone(schedule.tz), note(schedule, at)))
        at = schedule.next_after(at)
    return found


def note(schedule: Schedule, at: datetime) -> str:
    """What a clock change does to the occurrence at `at`, or ""."""
    local = at.astimezone(schedule.tz)
    named = schedule.moved_from(at)
    if named is not None:
        shape = "%H:%M" if named.date() == local.date() else "%Y-%m-%d %H:%M"
        return f"clocks go forward: {named:{shape}} does not exist, runs at {local:{shape}}"
    # A real instant whose wall time has two readings exists twice: the gap's readings are not real.
    if local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset():
        return f"clocks go back: the {'second' if local.fold else 'first'} {local:%H:%M}"
    return ""
