"""The `cron` kind: five fields as Debian's cron reads them, over the package `cronsim`.

0 and 7 are Sunday; names, lists, ranges, steps, `L` (last day of the month, or `5L` the last Friday),
`LW`, `MON#2`; when neither day field begins with a star, either may match. `cronsim` reads the
expression and says which days match. Walking the clock is done here, because its hour-wide steps lose
minutes where a zone shifts by half an hour.

Clock changes, as Debian's cron has them (its manual, section "Notes"): a job at a fixed time (neither
the minute nor the hour begins with a star) that falls into a gap runs when the gap ends, and in an
overlap runs once, at the first; a job with a star follows the clock on the wall, so it has no run in a
gap and runs in both halves of an overlap.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from itertools import takewhile
from typing import ClassVar
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from ordinaut.domain.schedules import zones
from ordinaut.domain.schedules.schedule import Schedule

HORIZON_YEARS = 50
"""The longest wait between two matches that occur at all is 40 years: the fifth Monday of a February."""

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = ("minute", "hour", "day-of-month", "month", "day-of-week")
_ALLOWED = {
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, L for the last day, LW for the last weekday",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 (0 and 7 are Sunday) or SUN-SAT, MON#2 for the second Monday, 5L for the last Friday",
}
_LONGEST_TEXT = 256
_LAST_YEAR = 9000
_NEAR = timedelta(hours=26)
_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
_TICK = timedelta(microseconds=1)
_MANY = 8
"""From so many times a day on, days are counted more quickly than times."""


class Cron(Schedule):
    """A cron expression in a zone. Raises ValueError (a sentence) when it is wrong or can never fire."""

    kind: ClassVar[str] = "cron"

    def __init__(self, expression: str, tz: ZoneInfo) -> None:
        self.expression = " ".join(expression.split())
        self.tz = tz
        self._days = _parse(self.expression)
        minute, hour = _expanded(self.expression).split()[:2]
        self._fixed = not minute.startswith("*") and not hour.startswith("*")
        self._times = [time(h, m) for h in sorted(self._days.hours) for m in sorted(self._days.minutes)]
        if next(self._walls(datetime(2000, 1, 1)), None) is None:
            raise ValueError(f"{self.expression!r} can never fire: no such day exists")

    def next_after(self, instant: datetime) -> datetime | None:
        """See `Schedule`. Looks at most `HORIZON_YEARS` ahead."""
        after = instant.astimezone(UTC)
        return self._next_fixed(after) if self._fixed else self._next_starred(after)

    def count_between(self, first: datetime, last: datetime, cap: int) -> tuple[int, bool]:
        """See `Schedule`; times are counted by whole days, except near a clock change."""
        if len(self._times) < _MANY:
            return super().count_between(first, last, cap)
        start, last = first.astimezone(UTC), last.astimezone(UTC)
        count = 0
        while start <= last and count <= cap:
            end = min(start + _DAY, last)
            # A job that a change has moved runs right behind it, and an overlap is a second pass of the same.
            if zones.offset(self.tz, start - _NEAR) == zones.offset(self.tz, end):
                count += self._count_walls(self.wall(start), self.wall(end))
            else:
                count += super().count_between(start, end, cap + 1 - count)[0]
            start = end + _TICK
        return min(count, cap), count > cap

    def describe(self) -> str:
        """One sentence for people."""
        return f"cron {self.expression} in {self.tz.key}"

    def moved_from(self, instant: datetime) -> list[datetime]:
        """The wall times of a fixed-time rule inside the gap that ends at `instant`."""
        before = zones.offset(self.tz, instant - timedelta(seconds=1))
        gap_start = (instant + before).replace(tzinfo=None)
        gap_end = self.wall(instant)
        if not self._fixed or gap_end <= gap_start:
            return []
        return list(takewhile(lambda wall: wall < gap_end, self._walls(gap_start)))

    def dropped(self, after: datetime, instant: datetime) -> list[datetime]:
        """See `Schedule`; a rule with a star has no run for a time in a gap."""
        if self._fixed:
            return []
        # What the rule names between two neighbours and does not run at can only be in a gap.
        ends = self.wall(instant)
        passed = takewhile(lambda wall: wall < ends, self._walls(_whole_minute_after(self.wall(after))))
        return [wall for wall in passed if not zones.exists(self.tz, wall)]

    def matches(self, wall: datetime) -> bool:
        """Whether a clock on the wall that shows `wall` is in a minute that the expression names."""
        if wall.month not in self._days.months or (wall.hour, wall.minute) not in self._run_ends:
            return False
        return bool(self._days.match_day(wall.date()))

    def end_of_run(self, wall: datetime) -> datetime:
        """The first minute behind `wall`, which matches, that does not match or is of another day."""
        return datetime.combine(wall.date(), time()) + self._run_ends[wall.hour, wall.minute] * _MINUTE

    @cached_property
    def _run_ends(self) -> dict[tuple[int, int], int]:
        """For each time of day that is named, the first minute of the day behind it that is not."""
        ends: dict[tuple[int, int], int] = {}
        end = begin = -1
        for at in reversed(self._times):
            minute = at.hour * 60 + at.minute
            end = end if minute + 1 == begin else minute + 1
            ends[at.hour, at.minute] = end
            begin = minute
        return ends

    def _next_fixed(self, after: datetime) -> datetime | None:
        for wall in self._walls(_whole_minute_after(self.wall(after))):
            at = zones.to_instant(self.tz, wall)
            if zones.to_wall(self.tz, at) != wall:  # it does not exist
                at = zones.gap_at(self.tz, wall)
            if at > after:
                return at
        return None

    def _next_starred(self, after: datetime) -> datetime | None:
        start = _whole_minute_after(self.wall(after))
        later = after + _NEAR
        before = zones.offset(self.tz, after)
        if zones.offset(self.tz, later) != before:
            # Until the clocks change the wall is linear; behind the change it begins anew, perhaps earlier.
            change = zones.change_between(self.tz, after, later)
            wall = next(self._walls(start), None)
            if wall is not None and wall.replace(tzinfo=UTC) - before < change:
                return wall.replace(tzinfo=UTC) - before
            start, after = self.wall(change), change - timedelta(microseconds=1)
        for wall in self._walls(start):
            if zones.exists(self.tz, wall):
                first = zones.to_instant(self.tz, wall)
                return first if first > after else wall.replace(tzinfo=self.tz, fold=1).astimezone(UTC)
        return None

    def _count_walls(self, first: datetime, last: datetime) -> int:
        """How many wall times from `first` to `last` match, both included, as if clocks never changed."""
        count, day = 0, first.date()
        while day <= last.date():
            if day.month in self._days.months and self._days.match_day(day):
                low = bisect_left(self._times, first.time()) if day == first.date() else 0
                high = bisect_right(self._times, last.time()) if day == last.date() else len(self._times)
                count += max(0, high - low)
            day += _DAY
        return count

    def _walls(self, start: datetime) -> Iterator[datetime]:
        """Every wall time at or after `start` that matches, as if clocks never changed, in order."""
        day = start.date()
        skip = bisect_left(self._times, start.time())
        last_year = min(day.year + HORIZON_YEARS, _LAST_YEAR)
        while day.year <= last_year:
            if day.month not in self._days.months:
                day = _first_of_next_month(day)
                skip = 0
                continue
            if self._days.match_day(day):
                for at in self._times[skip:]:
                    yield datetime.combine(day, at)
                    last_year = min(day.year + HORIZON_YEARS, _LAST_YEAR)
            skip = 0
            day += _DAY


def _whole_minute_after(wall: datetime) -> datetime:
    return wall.replace(second=0, microsecond=0) + _MINUTE


def _first_of_next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _expanded(expression: str) -> str:
    return MACROS.get(expression.lower(), expression)


def _parse(expression: str) -> CronSim:
    if len(expression) > _LONGEST_TEXT:
        raise ValueError(f"a cron expression has at most {_LONGEST_TEXT} characters")
    fields = _expanded(expression)
    if fields.startswith("@"):
        raise ValueError(f"{expression!r} is not known; use one of {', '.join(MACROS)}, or five fields")
    if len(fields.split()) != len(_FIELDS):
        raise ValueError(
            f"{expression!r} has {len(fields.split())} fields; five are needed: {', '.join(_FIELDS)}, "
            "as in 30 8 * * 1-5"
        )
    try:
        return CronSim(fields, datetime(2000, 1, 1))
    except CronSimError as wrong:
        name = str(wrong).removeprefix("Bad ")
        if name not in _ALLOWED:
            raise ValueError(f"{expression!r} is not a cron expression: {wrong}") from None
        text = fields.split()[_FIELDS.index(name)]
        if name == "day-of-month" and _day_field_is_well_formed(text):
            raise ValueError(f"{expression!r} can never fire: its months have no such day") from None
        raise ValueError(
            f"the {name} field {text!r} is wrong; allowed: {_ALLOWED[name]}, "
            "with lists (1,3), rising ranges (1-5) and steps (*/2)"
        ) from None


def _day_field_is_well_formed(text: str) -> bool:
    try:
        CronSim(f"0 0 {text} * *", datetime(2000, 1, 1))
    except CronSimError:
        return False
    return True
