"""What a schedule's `exclude` leaves out: days, spans of time, minutes, and windows that a rule opens.

A *day* is a day of the schedule's zone. A *span* is from an instant up to another, not included. *Minutes*
are those a cron expression names on the wall, each whole. A *window* begins at each instant of a rule and
lasts for a duration; as in RFC 5545 (section 3.3.6) the whole days of it are days on the wall, which need not
have 24 hours, and the rest is elapsed time.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ordinaut.domain.schedules import zones
from ordinaut.domain.schedules.cron import Cron
from ordinaut.domain.schedules.schedule import Schedule

TICK = timedelta(microseconds=1)
"""How long a window lasts that is about one instant."""

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Window:
    """Leaves out what comes within `length` of an instant of `rule`, that instant included."""

    rule: Schedule
    length: timedelta

    def until(self, at: datetime) -> datetime | None:
        """None when `at` is in no window; else an instant behind it up to which all is in one."""
        days, rest = divmod(self.length, _DAY)
        tz = self.rule.tz
        since = at - rest
        if days:
            since = zones.to_instant(tz, zones.to_wall(tz, since) - days * _DAY)
        start = self.rule.next_after(since)
        if start is None or start > at:
            return None
        end = start + rest
        if days:
            # A day that begins in a gap ends at the midnight after it all the same.
            wall = zones.in_gap_before(tz, start) or zones.to_wall(tz, start)
            end = zones.to_instant(tz, wall + days * _DAY) + rest
        return max(end, at + TICK)


@dataclass(frozen=True, slots=True)
class Minutes:
    """Leaves out every minute that `cron` names. As many of them as follow on one another are passed over at
    once, so that a weekend has two stretches and not 2880."""

    cron: Cron

    def until(self, at: datetime) -> datetime | None:
        """As `Window.until`."""
        wall = zones.to_wall(self.cron.tz, at)
        if not self.cron.matches(wall):
            return None
        end = zones.to_instant(self.cron.tz, self.cron.end_of_run(wall))
        return max(_before_clocks_go_back(self.cron.tz, at, end), at + TICK)


class Exclusions:
    """Everything that one `exclude` leaves out. `days` are ranges of days of `tz`, both ends included;
    `spans` ranges of instants without their end."""

    def __init__(
        self,
        tz: ZoneInfo,
        days: Sequence[tuple[date, date]] = (),
        spans: Sequence[tuple[datetime, datetime]] = (),
        windows: Sequence[Window | Minutes] = (),
    ) -> None:
        self._tz = tz
        self._days = _merged([(first.toordinal(), last.toordinal() + 1) for first, last in days])
        self._spans = _merged([(start.timestamp(), end.timestamp()) for start, end in spans])
        self._windows = windows
        self.rules = len(windows)
        """How many rules are asked about an instant."""

    def until(self, at: datetime) -> datetime | None:
        """None when `at` is not left out; else an instant behind it up to which everything is."""
        end = _end_of(self._days, at.astimezone(self._tz).date().toordinal())
        if end is not None:
            midnight = datetime.combine(date.fromordinal(int(end)), time())
            last = _before_clocks_go_back(self._tz, at, zones.to_instant(self._tz, midnight))
            # Where clocks go back over midnight, the day ends after its first midnight.
            return max(last, at + TICK)
        end = _end_of(self._spans, at.timestamp())
        if end is not None:
            return datetime.fromtimestamp(end, UTC)
        ends = (window.until(at) for window in self._windows)
        return next((found for found in ends if found is not None), None)


def _before_clocks_go_back(tz: ZoneInfo, at: datetime, end: datetime) -> datetime:
    """`end`, or the change of clocks soon after `at` and before it: behind that the wall shows a time before
    `at` anew, which may be another day or minute."""
    soon = min(end, at + _DAY)
    if zones.offset(tz, soon - TICK) < zones.offset(tz, at):
        return zones.change_between(tz, at, soon)
    return end


def _merged(ranges: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same ranges, rising and apart from one another."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _end_of(ranges: Sequence[tuple[float, float]], value: float) -> float | None:
    """Where the range that holds `value` ends."""
    index = bisect_right(ranges, value, key=lambda each: each[0]) - 1
    if index < 0 or value >= ranges[index][1]:
        return None
    return ranges[index][1]
