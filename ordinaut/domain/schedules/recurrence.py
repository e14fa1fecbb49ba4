"""RFC 5545 recurrence rules (section 3.3.10) expanded in wall time, from any moment, with bounded work.

Whether a day or a time of day belongs to a rule follows from DTSTART by arithmetic alone, so the
expansion begins at the moment asked for and never walks there from DTSTART. Every BY part is read as a
filter: the days of a month that satisfy all of them are computed together, INTERVAL keeps those of every
n-th period, and BYSETPOS chooses within one period.

Every walk spends from a `Budget`, counted in steps and not in seconds, so that the same question has the
same answer on every machine.
"""

import calendar
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

from ordinaut.domain.schedules.budget import Budget
from ordinaut.domain.schedules.units import PER_DAY, Units, positions

FREQUENCIES = ("SECONDLY", "MINUTELY", "HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")

_LONGEST = {"DAILY": 1, "WEEKLY": 7, "MONTHLY": 31, "YEARLY": 366}
"""The most days a period has."""

_MONTH = 3
"""What it costs to see what days a month has, beside a step for each of those that are looked at."""

_COUNTING = 8
"""What it costs to count out in which days of a month INTERVAL leaves something."""


class _Day(NamedTuple):
    """A day in numbers, which are made faster than dates: `of_year` and `of_month` count from 1."""

    year: int
    of_year: int
    of_month: int
    month_length: int
    weekday: int


def _days(year: int) -> int:
    return 365 + calendar.isleap(year)


@dataclass(frozen=True)
class Recurrence:
    """One RRULE, parsed. `dtstart` is a naive wall time; weekdays are 0 (Monday) to 6.

    `by_day` holds (weekday, n): n is 0 for every such day, 2 for the second, -1 for the last in the month
    or year. Parts that are absent are empty. COUNT and UNTIL are the caller's: `walls` goes on for ever.
    """

    freq: str
    dtstart: datetime
    interval: int = 1
    wkst: int = 0
    by_month: frozenset[int] = frozenset()
    by_week_no: frozenset[int] = frozenset()
    by_year_day: frozenset[int] = frozenset()
    by_month_day: frozenset[int] = frozenset()
    by_day: frozenset[tuple[int, int]] = frozenset()
    by_hour: frozenset[int] = frozenset()
    by_minute: frozenset[int] = frozenset()
    by_second: frozenset[int] = frozenset()
    by_set_pos: tuple[int, ...] = ()
    _months: dict[tuple[int, int], tuple[int, ...]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @cached_property
    def is_plain(self) -> bool:
        """Whether it has no BY part, so that its occurrences are `interval` units apart where the unit has a
        fixed length."""
        return self._names_no_day and not (
            self.by_month or self.by_hour or self.by_minute or self.by_second or self.by_set_pos
        )

    def walls(self, start: datetime, budget: Budget) -> Iterator[datetime]:
        """Every wall time of the rule at or after `start` (and DTSTART), rising, without end of its own
        except the horizon. Raises BudgetSpentError."""
        start = max(start, self.dtstart)
        budget.look_from(start.year)
        for wall in self._periods(start, budget):
            budget.spend(1)
            if wall >= start:
                yield wall
                budget.look_from(wall.year)

    def _periods(self, start: datetime, budget: Budget) -> Iterator[datetime]:
        if self._chooses_nothing:
            return
        days = self._active_days(start.date(), budget)
        if self.freq in PER_DAY:
            for day in days:
                floor = start.time() if day == start.date() else time()
                yield from self._units.times(day, floor, budget)
        elif self.by_set_pos:
            for _, group in groupby(days, key=self._period):
                yield from self._chosen(list(group))
        else:
            for day in days:
                skip = bisect_left(self._times, start.time()) if day == start.date() else 0
                for at in self._times[skip:]:
                    yield datetime.combine(day, at)

    # Which days

    def _active_days(self, first: date, budget: Budget) -> Iterator[date]:
        """The days that satisfy the BY parts and lie in an active period, from the beginning of `first`'s
        period on (so that BYSETPOS always sees whole periods)."""
        first = self._period_start(first)
        year, month = first.year, first.month
        origin = self._period(self.dtstart.date())
        while year <= budget.last_year:
            budget.spend(1)  # even where nothing of the month is looked at
            for number in self._month_days(year, month, budget) if self._wants(year, month, origin) else ():
                day = date(year, month, number)
                if day >= first:
                    yield day
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)

    def _wants(self, year: int, month: int, origin: int) -> bool:
        """False when no day of the month can be active, so that its days are not looked at."""
        if self.freq == "YEARLY" and (year - origin) % self.interval:
            return False
        if self.freq == "MONTHLY" and (year * 12 + month - origin) % self.interval:
            return False
        return not self._month_filter or month in self._month_filter

    def _period(self, day: date) -> int:
        """The number of the period INTERVAL counts; below DAILY `Units` does the counting."""
        if self.freq == "YEARLY":
            return day.year
        if self.freq == "MONTHLY":
            return day.year * 12 + day.month
        if self.freq == "WEEKLY":
            return (day.toordinal() - 1 - self.wkst) // 7
        return day.toordinal() if self.freq == "DAILY" else 0

    def _period_start(self, day: date) -> date:
        if not self.by_set_pos:
            return day
        if self.freq == "YEARLY":
            return day.replace(month=1, day=1)
        if self.freq == "MONTHLY":
            return day.replace(day=1)
        if self.freq == "WEEKLY":
            return day - timedelta(days=(day.weekday() - self.wkst) % 7)
        return day

    def _month_days(self, year: int, month: int, budget: Budget) -> tuple[int, ...]:
        known = self._months.get((year, month))
        if known is None:
            if len(self._months) > 24:
                self._months.clear()
            known = self._months[(year, month)] = tuple(self._matching_days(year, month, budget))
        return known

    def _matching_days(self, year: int, month: int, budget: Budget) -> Iterator[int]:
        budget.spend(_MONTH)
        length = calendar.monthrange(year, month)[1]
        first = date(year, month, 1)
        numbers = self._days_at_intervals(first, length, budget)
        if self._month_day_filter:
            wanted = {n if n > 0 else length + 1 + n for n in self._month_day_filter}
            numbers = (n for n in numbers if n in wanted)
        weekday, of_year = first.weekday(), first.timetuple().tm_yday
        for number in numbers:
            budget.spend(1)
            day = _Day(year, of_year + number - 1, number, length, (weekday + number - 1) % 7)
            if self.by_year_day and not self._is_year_day(day):
                continue
            if self.by_week_no and not self._is_week_no(day):
                continue
            if self._weekday_filter and not self._is_week_day(day):
                continue
            yield number

    def _days_at_intervals(self, first: date, length: int, budget: Budget) -> Iterable[int]:
        """The days of a month, from its `first` on, that INTERVAL leaves; it leaves or takes whole months
        where they are the periods, or years."""
        if self.freq in PER_DAY:
            budget.spend(_COUNTING)
            return self._units.days(first, length)
        if self.freq == "DAILY":
            skipped = (self.dtstart.toordinal() - first.toordinal()) % self.interval
            return range(1 + skipped, length + 1, self.interval)
        if self.freq == "WEEKLY" and self.interval > 1:
            budget.spend(_COUNTING)
            origin, before = self._period(self.dtstart.date()), first.toordinal() - 2 - self.wkst
            return [n for n in range(1, length + 1) if ((before + n) // 7 - origin) % self.interval == 0]
        return range(1, length + 1)

    @cached_property
    def _names_no_day(self) -> bool:
        return not (self.by_week_no or self.by_year_day or self.by_month_day or self.by_day)

    @cached_property
    def _month_filter(self) -> frozenset[int]:
        if self._names_no_day and self.freq == "YEARLY" and not self.by_month:
            return frozenset({self.dtstart.month})
        return self.by_month

    @cached_property
    def _month_day_filter(self) -> frozenset[int]:
        # Section 3.3.10: what the rule leaves open is taken from DTSTART.
        if self._names_no_day and self.freq in ("YEARLY", "MONTHLY"):
            return frozenset({self.dtstart.day})
        return self.by_month_day

    @cached_property
    def _weekday_filter(self) -> frozenset[tuple[int, int]]:
        if self._names_no_day and self.freq == "WEEKLY":
            return frozenset({(self.dtstart.weekday(), 0)})
        return self.by_day

    def _is_year_day(self, day: _Day) -> bool:
        return day.of_year in self.by_year_day or day.of_year - _days(day.year) - 1 in self.by_year_day

    def _is_week_no(self, day: _Day) -> bool:
        # A week belongs to the year that holds its fourth day.
        year, fourth = day.year, day.of_year + 3 - (day.weekday - self.wkst) % 7
        if fourth < 1:
            year, fourth = year - 1, fourth + _days(year - 1)
        elif fourth > _days(year):
            year, fourth = year + 1, fourth - _days(year)
        left = (_days(year) - fourth) // 7
        return (fourth - 1) // 7 + 1 in self.by_week_no or -1 - left in self.by_week_no

    def _is_week_day(self, day: _Day) -> bool:
        if (day.weekday, 0) in self._weekday_filter:
            return True
        number, length = day.of_month, day.month_length
        if self.freq == "YEARLY" and not self.by_month:
            number, length = day.of_year, _days(day.year)
        nth, nth_last = (number - 1) // 7 + 1, -((length - number) // 7 + 1)
        return (day.weekday, nth) in self._weekday_filter or (day.weekday, nth_last) in self._weekday_filter

    # Which times of day

    @cached_property
    def _units(self) -> Units:
        return Units(
            self.freq,
            self.dtstart,
            self.interval,
            self.by_hour,
            self.by_minute,
            self.by_second,
            self.by_set_pos,
        )

    @cached_property
    def _times(self) -> list[time]:
        """The times of every active day, for DAILY and above."""
        hours = self.by_hour or {self.dtstart.hour}
        minutes = self.by_minute or {self.dtstart.minute}
        seconds = self.by_second or {self.dtstart.second}
        return [time(h, m, s) for h in sorted(hours) for m in sorted(minutes) for s in sorted(seconds)]

    @cached_property
    def _chooses_nothing(self) -> bool:
        """Whether every BYSETPOS is larger than any set can be."""
        if self.freq in PER_DAY:
            return not self._units.inside
        most = _LONGEST[self.freq] * len(self._times)
        return bool(self.by_set_pos) and all(abs(position) > most for position in self.by_set_pos)

    def _chosen(self, days: list[date]) -> Iterator[datetime]:
        """BYSETPOS over the days of one period times the times of day."""
        total = len(days) * len(self._times)
        for index in positions(self.by_set_pos, total):
            day, at = divmod(index, len(self._times))
            yield datetime.combine(days[day], self._times[at])
