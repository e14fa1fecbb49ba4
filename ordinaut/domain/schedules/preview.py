"""What a schedule will do: its next occurrences, in UTC and on the wall, with a note at clock changes."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from ordinaut.domain.durations import format_duration
from ordinaut.domain.schedules.schedule import Schedule

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One instant, as `utc` and `local` (aware, in the zone of the rule that names it); `note` is "" when all
    is usual. Nothing happens at one that is `excluded`."""

    utc: datetime
    local: datetime
    note: str
    excluded: bool = False


def preview(schedule: Schedule, after: datetime, count: int) -> list[Occurrence]:
    """The first `count` occurrences strictly after `after` (aware), excluded ones too; fewer when the
    schedule ends."""
    return list(islice(occurrences(schedule, schedule.next_after(after), after), count))


def occurrences(
    schedule: Schedule, first: datetime | None, after: datetime | None = None
) -> Iterator[Occurrence]:
    """The occurrences from `first`, which the schedule names, on. `after` is the one before it, or a later
    instant."""
    at = first
    before: dict[int, datetime] = {}
    while at is not None:
        number, rule = schedule.naming(at)
        excluded = rule.excludes(at)
        told = note(rule, at, before.get(number, after))
        if excluded:
            told = f"excluded; {told}" if told else "excluded"
        yield Occurrence(at, at.astimezone(rule.tz), told, excluded)
        before[number] = at
        at = schedule.next_after(at)


def note(schedule: Schedule, at: datetime, after: datetime | None = None) -> str:
    """What a clock change does to the occurrence at `at`, or "". `schedule` is one rule, not several.

    With `after`, the occurrence before it or a later instant, it also tells of times between the two that
    do not exist and have no run.
    """
    local = at.astimezone(schedule.tz)
    if moved := schedule.moved_from(at):
        runs = "runs" if len(moved) == 1 else "run once"
        where = f"{local:%Y-%m-%d} " if moved[0].date() != local.date() else ""
        return f"clocks go forward: {_missing(moved, local)}, {runs} at {where}{_clock(local)}"
    if after is not None and (dropped := schedule.dropped(after, at)):
        them = "it" if len(dropped) == 1 else "them"
        return f"clocks go forward: {_missing(dropped, local)}, no run for {them}"
    # A real instant whose wall time has two readings exists twice: the gap's readings are not real.
    if local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset():
        return f"clocks go back: {_which(schedule, local)}"
    if shift := schedule.shifted_by(at):
        way = "forward" if shift > timedelta(0) else "back"
        return f"clocks went {way} by {format_duration(abs(shift))} since the one before"
    return ""


def _missing(walls: list[datetime], local: datetime) -> str:
    """The wall times of a gap, rising, with their day when `local`, at which this is said, is on another."""
    day = f"{walls[0]:%Y-%m-%d} " if walls[0].date() != local.date() else ""
    if len(walls) == 1:
        return f"{day}{_clock(walls[0])} does not exist"
    between = "and" if len(walls) == 2 else "to"
    return f"{day}{_clock(walls[0])} {between} {_clock(walls[-1])} do not exist"


def _which(schedule: Schedule, local: datetime) -> str:
    if local.fold:
        return f"the second {_clock(local)}"
    second = local.replace(fold=1).astimezone(UTC)
    # Elapsed time passes through both halves of an overlap, and passes over neither.
    both = schedule.kind == "every" or schedule.next_after(second - _TICK) == second
    return f"the first {_clock(local)}" + ("" if both else ", not the second")


def _clock(wall: datetime) -> str:
    return wall.strftime("%H:%M:%S" if wall.second else "%H:%M")
