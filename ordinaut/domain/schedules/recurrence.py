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

FREQUENCIES = ("SECONDLY", "MINUTELY", "HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")
HORIZON_YEARS = 100
"""A rule without an occurrence for so long is said to have ended."""

_LAST_YEAR = 9000
_PER_DAY = {"HOURLY": 24, "MINUTELY": 1440, "SECONDLY": 86400}
_ALL = {"hour": range(24), "minute": range(60), "second": range(60)}


class BudgetSpentError(Exception):
    """The walk was given up: too many steps without an answer."""


@dataclass(slots=True)
class Budget:
    """How many steps a walk may still take; a step is a month, a day or a time looked at."""

    left: int

    def spend(self, steps: int) -> None:
        """Take `steps`. Raises BudgetSpentError when there are none left."""
        self.left -= steps
        if self.left < 0:
            raise BudgetSpentError


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
        for wall in self._periods(start, budget):
            budget.spend(1)
            if wall >= start:
                yield wall

    def _periods(self, start: datetime, budget: Budget) -> Iterator[datetime]:
        days = self._active_days(start.date(), budget)
        if self.freq in _PER_DAY:
            for day in days:
                floor = start.time() if day == start.date() else time()
                yield from self._within_day(day, floor, budget)
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
        last_year = year + HORIZON_YEARS
        origin = self._period(self.dtstart.date())
        while year <= min(last_year, _LAST_YEAR):
            budget.spend(1)
            for number in self._month_days(year, month, budget) if self._wants(year, month, origin) else ():
                day = date(year, month, number)
                if day >= first and (self._period(day) - origin) % self.interval == 0:
                    yield day
                    last_year = year + HORIZON_YEARS
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)

    def _wants(self, year: int, month: int, origin: int) -> bool:
        """False when no day of the month can be active; spares looking at its days."""
        if self.freq == "YEARLY" and (year - origin) % self.interval:
            return False
        if self.freq == "MONTHLY" and (year * 12 + month - origin) % self.interval:
            return False
        return not self._month_filter or month in self._month_filter

    def _period(self, day: date) -> int:
        """The number of the period INTERVAL counts; below DAILY `_within_day` does the counting."""
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
            days = self._matching_days(year, month, budget)
            if self.freq in _PER_DAY:
                days = self._days_with_units(year, month, days)
            known = self._months[(year, month)] = tuple(days)
        return known

    def _matching_days(self, year: int, month: int, budget: Budget) -> Iterator[int]:
        length = calendar.monthrange(year, month)[1]
        numbers: Iterable[int] = range(1, length + 1)
        if self._month_day_filter:
            wanted = (n if n > 0 else length + 1 + n for n in self._month_day_filter)
            numbers = sorted({n for n in wanted if 1 <= n <= length})
        for number in numbers:
            budget.spend(1)
            if not self._filters_days:
                yield number
                continue
            day = date(year, month, number)
            if self.by_year_day and not self._is_year_day(day):
                continue
            if self.by_week_no and not self._is_week_no(day):
                continue
            if self._weekday_filter and not self._is_week_day(day, length):
                continue
            yield number

    @cached_property
    def _filters_days(self) -> bool:
        return bool(self.by_year_day or self.by_week_no or self._weekday_filter)

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

    def _is_year_day(self, day: date) -> bool:
        number = day.timetuple().tm_yday
        return number in self.by_year_day or number - 366 - calendar.isleap(day.year) in self.by_year_day

    def _is_week_no(self, day: date) -> bool:
        # A week belongs to the year that holds its fourth day.
        fourth = day + timedelta(days=3 - (day.weekday() - self.wkst) % 7)
        number = (fourth.timetuple().tm_yday - 1) // 7 + 1
        left = (date(fourth.year, 12, 31) - fourth).days // 7
        return number in self.by_week_no or -1 - left in self.by_week_no

    def _is_week_day(self, day: date, month_length: int) -> bool:
        weekday = day.weekday()
        if (weekday, 0) in self._weekday_filter:
            return True
        if self.freq == "YEARLY" and not self.by_month:
            number, length = day.timetuple().tm_yday, 365 + calendar.isleap(day.year)
        else:
            number, length = day.day, month_length
        nth, nth_last = (number - 1) // 7 + 1, -((length - number) // 7 + 1)
        return (weekday, nth) in self._weekday_filter or (weekday, nth_last) in self._weekday_filter

    # Which times of day

    @cached_property
    def _times(self) -> list[time]:
        """The times of every active day, for DAILY and above."""
        hours = self.by_hour or {self.dtstart.hour}
        minutes = self.by_minute or {self.dtstart.minute}
        seconds = self.by_second or {self.dtstart.second}
        return [time(h, m, s) for h in sorted(hours) for m in sorted(minutes) for s in sorted(seconds)]

    def _chosen(self, days: list[date]) -> Iterator[datetime]:
        """BYSETPOS over the days of one period times the times of day."""
        total = len(days) * len(self._times)
        for index in _positions(self.by_set_pos, total):
            day, at = divmod(index, len(self._times))
            yield datetime.combine(days[day], self._times[at])

    def _within_day(self, day: date, floor: time, budget: Budget) -> Iterator[datetime]:
        """The times of one day for HOURLY, MINUTELY and SECONDLY, from the hour and minute of `floor` on."""
        per_day = _PER_DAY[self.freq]
        phase = self._phase(day)
        if self.interval >= per_day // 24 and not (self.freq == "HOURLY" and self.by_hour):
            units: Iterable[int] = range(phase, per_day, self.interval)
        else:
            units = self._units_by_hour(phase, floor, budget)
        earliest = self._unit(floor)
        for unit in units:
            budget.spend(1)
            if unit >= earliest and self._unit_is_wanted(unit):
                yield from self._of_unit(day, unit)

    def _phase(self, day: date) -> int:
        """The first active unit of a day, were the day without end: INTERVAL counts units from DTSTART."""
        days_before = self.dtstart.toordinal() - day.toordinal()
        return (days_before * _PER_DAY[self.freq] + self._unit(self.dtstart.time())) % self.interval

    def _days_with_units(self, year: int, month: int, days: Iterable[int]) -> Iterator[int]:
        """Those of a month's days in which some active unit is one that the rule names."""
        per_day, interval, named = _PER_DAY[self.freq], self.interval, self._named_phases
        phase = self._phase(date(year, month, 1))
        for day in days:
            if named >> (phase - (day - 1) * per_day) % interval & 1:
                yield day

    @cached_property
    def _named_phases(self) -> int:
        """A bit for each first active unit with which a day has a time: the units named, modulo INTERVAL."""
        if not self._inside_unit:
            return 0
        seconds = self._bits("second", 1) if self.freq == "SECONDLY" else 1
        per_minute = 60 if self.freq == "SECONDLY" else 1
        minutes = self._bits("minute", per_minute, seconds) if self.freq != "HOURLY" else 1
        named = self._bits("hour", _PER_DAY[self.freq] // 24, minutes)
        width = self.interval
        while width * 2 < _PER_DAY[self.freq]:
            width *= 2
        # Folded by halves: every width is a multiple of INTERVAL, so the remainder stays the same.
        while width >= self.interval:
            named = named & ((1 << width) - 1) | named >> width
            width //= 2
        return named

    def _bits(self, part: str, width: int, inside: int = 1) -> int:
        """The bits of `inside`, once for every hour, minute or second named, `width` bits apart."""
        return sum(inside << number * width for number in self._sorted(part))

    def _units_by_hour(self, phase: int, floor: time, budget: Budget) -> Iterator[int]:
        """The active units, looking only at the hours and minutes the rule names."""
        per_hour = _PER_DAY[self.freq] // 24
        for hour in self._sorted("hour"):
            if hour < floor.hour:
                continue
            budget.spend(1)
            if self.freq != "SECONDLY":
                first = hour * per_hour
                yield from range(first + (phase - first) % self.interval, first + per_hour, self.interval)
                continue
            for minute in self._sorted("minute"):
                if hour == floor.hour and minute < floor.minute:
                    continue
                budget.spend(1)
                first = hour * 3600 + minute * 60
                yield from range(first + (phase - first) % self.interval, first + 60, self.interval)

    def _unit(self, at: time) -> int:
        if self.freq == "HOURLY":
            return at.hour
        minutes = at.hour * 60 + at.minute
        return minutes if self.freq == "MINUTELY" else minutes * 60 + at.second

    def _unit_is_wanted(self, unit: int) -> bool:
        if self.freq == "HOURLY":
            return not self.by_hour or unit in self.by_hour
        if self.freq == "SECONDLY":
            if self.by_second and unit % 60 not in self.by_second:
                return False
            unit //= 60
        hour, minute = divmod(unit, 60)
        return (not self.by_hour or hour in self.by_hour) and (not self.by_minute or minute in self.by_minute)

    def _of_unit(self, day: date, unit: int) -> Iterator[datetime]:
        """The wall times within one hour, minute or second."""
        midnight = datetime.combine(day, time())
        start = midnight + timedelta(seconds=unit * (86400 // _PER_DAY[self.freq]))
        for seconds in self._inside_unit:
            yield start + timedelta(seconds=seconds)

    @cached_property
    def _inside_unit(self) -> list[int]:
        """Seconds from the beginning of an hour, minute or second to the times in it, BYSETPOS applied."""
        inside = [0]
        if self.freq != "SECONDLY":
            inside = sorted(self.by_second or {self.dtstart.second})
        if self.freq == "HOURLY":
            minutes = sorted(self.by_minute or {self.dtstart.minute})
            inside = [minute * 60 + second for minute in minutes for second in inside]
        if self.by_set_pos:
            inside = [inside[index] for index in _positions(self.by_set_pos, len(inside))]
        return inside

    def _sorted(self, part: str) -> list[int]:
        named = {"hour": self.by_hour, "minute": self.by_minute, "second": self.by_second}[part]
        return sorted(named or _ALL[part])


def _positions(wanted: tuple[int, ...], total: int) -> list[int]:
    """BYSETPOS as rising indexes into a set of `total`; positions beyond it name nothing."""
    indexes = (position - 1 if position > 0 else total + position for position in wanted)
    return sorted({index for index in indexes if 0 <= index < total})
