"""The `rrule` kind: RFC 5545 recurrence in local wall time.

The rule is expanded in wall time (`recurrence.py`) and each wall time is then read in the zone: one that
does not exist with the offset before the gap (02:30 becomes 03:30), one that exists twice as its first
(section 3.3.5). Two wall times that become one instant are one occurrence. So an HOURLY rule, too, follows
the clock on the wall; for a fixed elapsed interval there is `every`.

DTSTART only anchors the rule: it is an occurrence itself when the rule names it, and not otherwise (the
RFC leaves a DTSTART outside its rule undefined). COUNT counts what the rule names, before EXDATE.
"""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import ClassVar
from zoneinfo import ZoneInfo

from ordinaut.domain.schedules import zones
from ordinaut.domain.schedules.budget import HORIZON_YEARS, Budget, BudgetSpentError
from ordinaut.domain.schedules.rrule_text import RuleText
from ordinaut.domain.schedules.schedule import Schedule

SEARCH_STEPS = 60_000
"""What one search may spend. It is enough for `HORIZON_YEARS` of days and the times of one of them, and takes
some 20 ms at most."""

COUNT_STEPS = 40_000
"""What counting a COUNT out may spend, once, when the rule is read."""

_TICK = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_NEAR = timedelta(hours=26)
_LASTING = {
    "SECONDLY": _SECOND,
    "MINUTELY": timedelta(minutes=1),
    "HOURLY": timedelta(hours=1),
    "DAILY": timedelta(days=1),
    "WEEKLY": timedelta(weeks=1),
}
"""The frequencies whose periods are equally long in wall time."""


class RRule(Schedule):
    """A rule with added (`rdate`) and removed (`exdate`) instants. Raises ValueError when it never fires.

    `rdate_walls` are those of `rdate` that were written as wall times (naive); they only serve the notes.
    """

    kind: ClassVar[str] = "rrule"

    def __init__(
        self,
        rule: RuleText,
        text: str,
        tz: ZoneInfo,
        rdate: frozenset[datetime] = frozenset(),
        exdate: frozenset[datetime] = frozenset(),
        rdate_walls: frozenset[datetime] = frozenset(),
    ) -> None:
        self.tz = tz
        self.text = text
        self._rule = rule.recurrence
        self._rdate = sorted(rdate - exdate)
        self._exdate = exdate
        self._rdate_walls = rdate_walls
        self._until = rule.until.astimezone(UTC) if rule.until and rule.until.tzinfo else None
        self._last_wall = rule.until if rule.until and not rule.until.tzinfo else None
        self._ends = rule.count is not None or rule.until is not None
        start = zones.to_instant(tz, self._rule.dtstart)
        if (self._until or start) < start or (self._last_wall or self._rule.dtstart) < self._rule.dtstart:
            raise ValueError(f"UNTIL is before the rule begins ({self._rule.dtstart.isoformat()})")
        if rule.count is not None:
            self._last_wall = self._count_out(rule.count)
        self._refuse_if_it_never_fires(start)

    def next_after(self, instant: datetime) -> datetime | None:
        """See `Schedule`. None also when nothing comes for `HORIZON_YEARS`."""
        after = instant.astimezone(UTC)
        try:
            found = self._next_of_rule(after)
            while found is not None and found in self._exdate:
                # What is excluded counts as nothing: the horizon does not move with it.
                near = found.year <= after.year + HORIZON_YEARS
                found = self._next_of_rule(found) if near else None
        except BudgetSpentError:
            found = None
        added = next((at for at in self._rdate if at > after), None)
        return min((at for at in (found, added) if at is not None), default=None)

    def count_between(self, first: datetime, last: datetime, cap: int) -> tuple[int, bool]:
        """See `Schedule`; what a day has is counted in one walk, except near a clock change."""
        if self._rdate or self._exdate:
            return super().count_between(first, last, cap)
        count, last = 0, last.astimezone(UTC)
        at = self.next_after(first - _TICK)
        while at is not None and at <= last and count <= cap:
            end = min(at + _DAY, last)
            # Times that a change has moved or repeats are within a day of it.
            if zones.offset(self.tz, at - _NEAR) == zones.offset(self.tz, end + _NEAR):
                count += self._count_walls(at, end, cap + 1 - count)
            else:
                count += super().count_between(at, end, cap + 1 - count)[0]
            at = self.next_after(end)
        return min(count, cap), count > cap

    def _count_walls(self, first: datetime, last: datetime, most: int) -> int:
        """How many instants there are from `first`, which is one, to `last`, but not above `most`."""
        end = self.wall(last if self._until is None else min(last, self._until))
        if self._last_wall is not None:
            end = min(end, self._last_wall)
        count = 0
        with suppress(BudgetSpentError):
            for wall in self._rule.walls(self.wall(first), Budget(SEARCH_STEPS + 4 * most)):
                if wall > end or count == most:
                    break
                count += 1
        return count

    def moved_from(self, instant: datetime) -> list[datetime]:
        """The wall time in a gap that the rule names, when `instant` stands for it alone."""
        jumped = self._in_gap_before(instant)
        return jumped if jumped and not self._names(self.wall(instant)) else []

    def dropped(self, after: datetime, instant: datetime) -> list[datetime]:
        """See `Schedule`; the wall time in a gap that becomes an instant the rule names anyway."""
        jumped = self._in_gap_before(instant)
        return jumped if jumped and self._names(self.wall(instant)) else []

    def describe(self) -> str:
        """One sentence for people."""
        return f"{self.text} from {self._rule.dtstart.isoformat()} in {self.tz.key}"

    def _in_gap_before(self, instant: datetime) -> list[datetime]:
        wall = zones.in_gap_before(self.tz, instant)
        return [wall] if wall is not None and self._names(wall) else []

    def _names(self, wall: datetime) -> bool:
        try:
            return wall in self._rdate_walls or self._first_wall(wall) == wall
        except BudgetSpentError:  # the next one is far away
            return False

    def _count_out(self, count: int) -> datetime | None:
        """The wall time of the last of `count` occurrences; None when the calendar ends before."""
        if self._rule.is_plain and self._rule.freq in _LASTING:
            try:
                return self._rule.dtstart + (count - 1) * self._rule.interval * _LASTING[self._rule.freq]
            except OverflowError:
                return None
        last = None
        try:
            for wall in islice(self._rule.walls(self._rule.dtstart, Budget(COUNT_STEPS)), count):
                last = wall
        except BudgetSpentError:
            if last is not None:
                raise ValueError("COUNT takes too long to count out for this rule; use UNTIL") from None
        return last

    def _refuse_if_it_never_fires(self, start: datetime) -> None:
        try:
            first = self._next_of_rule(start - _SECOND)
        except BudgetSpentError:
            first = None
        if first is None and not self._rdate:
            raise ValueError(f"this rule never fires: it names no instant within {HORIZON_YEARS} years")
        if first is not None and not self._ends and self._second_is_too_far(first):
            # Otherwise it would fire once and then stop, silently, for want of a longer search.
            raise ValueError("this rule fires too seldom to be followed; name its instants in rdate")
        if self._exdate and not self._rdate and self.next_after(start - _SECOND) is None:
            raise ValueError("this rule never fires: EXDATE takes every occurrence away")

    def _second_is_too_far(self, first: datetime) -> bool:
        try:
            return self._next_of_rule(first) is None
        except BudgetSpentError:
            return True

    def _next_of_rule(self, after: datetime) -> datetime | None:
        own = zones.fold_end(self.tz, after) or self.wall(after).replace(microsecond=0) + _SECOND
        found = [self._read_from(own, after)]
        jumped = zones.in_gap_before(self.tz, after)
        if jumped is not None:
            # Later wall times of the same gap come after `after` too, though the wall shows more already.
            found.append(self._read_from(jumped.replace(microsecond=0) + _SECOND, after))
        return min((at for at in found if at is not None), default=None)

    def _read_from(self, start: datetime, after: datetime) -> datetime | None:
        """The earliest instant after `after` among the first wall time at or after `start` and, when that
        lies in a gap, the first one behind the gap."""
        wall = self._first_wall(start)
        if wall is None:
            return None
        found = [zones.to_instant(self.tz, wall)]
        if not zones.exists(self.tz, wall):
            # Moved behind the gap, it may have been overtaken by one that was there already.
            behind = self._first_wall(self.wall(zones.gap_at(self.tz, wall)))
            if behind is not None:
                found.append(zones.to_instant(self.tz, behind))
        ends = self._until
        return min((at for at in found if at > after and (ends is None or at <= ends)), default=None)

    def _first_wall(self, start: datetime) -> datetime | None:
        wall = next(self._rule.walls(start, Budget(SEARCH_STEPS)), None)
        if wall is None or (self._last_wall is not None and wall > self._last_wall):
            return None
        return wall
