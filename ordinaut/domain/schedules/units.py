"""The hours, minutes or seconds of a recurrence rule below a day: which of them a day has, and their times.

INTERVAL counts units from DTSTART on, over days and years. So the units of a day follow from its first one,
its *phase*, by arithmetic; and a day has a time when its phase is that of a unit the rule names, which is
looked up for a month of days at once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property, lru_cache

from ordinaut.domain.schedules.budget import Budget

PER_DAY = {"HOURLY": 24, "MINUTELY": 1440, "SECONDLY": 86400}
_ALL = {"hour": range(24), "minute": range(60), "second": range(60)}


@dataclass(frozen=True)
class Units:
    """What a rule of FREQ `freq` (a key of `PER_DAY`) says about times of day; see `Recurrence`."""

    freq: str
    dtstart: datetime
    interval: int
    by_hour: frozenset[int]
    by_minute: frozenset[int]
    by_second: frozenset[int]
    by_set_pos: tuple[int, ...]

    @cached_property
    def per_day(self) -> int:
        """How many units a day has."""
        return PER_DAY[self.freq]

    @cached_property
    def inside(self) -> list[int]:
        """Seconds from the beginning of an hour, minute or second to the times in it, BYSETPOS applied."""
        inside = [0]
        if self.freq != "SECONDLY":
            inside = sorted(self.by_second or {self.dtstart.second})
        if self.freq == "HOURLY":
            minutes = sorted(self.by_minute or {self.dtstart.minute})
            inside = [minute * 60 + second for minute in minutes for second in inside]
        if self.by_set_pos:
            inside = [inside[index] for index in positions(self.by_set_pos, len(inside))]
        return inside

    def days(self, first: date, length: int) -> Iterator[int]:
        """Those days of a month, given by its `first` and its length, that have a time."""
        per_day, interval, named = self.per_day, self.interval, self._named_phases
        phase = self._phase(first)
        for day in range(1, length + 1):
            if named[(at := (phase - (day - 1) * per_day) % interval) >> 3] >> (at & 7) & 1:
                yield day

    def times(self, day: date, floor: time, budget: Budget) -> Iterator[datetime]:
        """The times of one day, from the hour and minute of `floor` on. Raises BudgetSpentError."""
        phase = self._phase(day)
        if self.per_day // self.interval <= self._places:
            units: Iterable[int] = range(phase, self.per_day, self.interval)
        else:
            units = self._by_hour(phase, floor, budget)
        earliest = self._unit(floor)
        for unit in units:
            budget.spend(1)
            if unit >= earliest and self._is_named(unit):
                start = datetime.combine(day, time()) + timedelta(seconds=unit * (86400 // self.per_day))
                for seconds in self.inside:
                    yield start + timedelta(seconds=seconds)

    @cached_property
    def _places(self) -> int:
        """In how many hours, or minutes, of a day `_by_hour` looks for active units."""
        return len(self._sorted("hour")) * (len(self._sorted("minute")) if self.freq == "SECONDLY" else 1)

    def _phase(self, day: date) -> int:
        """The first active unit of a day, were the day without end."""
        days_before = self.dtstart.toordinal() - day.toordinal()
        return (days_before * self.per_day + self._unit(self.dtstart.time())) % self.interval

    @cached_property
    def _named_phases(self) -> bytes:
        """A bit for each phase with which a day has a time: those of the units named, modulo INTERVAL."""
        seconds = self._bits("second", 1) if self.freq == "SECONDLY" else 1
        per_minute = 60 if self.freq == "SECONDLY" else 1
        minutes = self._bits("minute", per_minute, seconds) if self.freq != "HOURLY" else 1
        named = self._bits("hour", self.per_day // 24, minutes)
        width = self.interval
        while width * 2 < self.per_day:
            width *= 2
        # Folded by halves: every width is a multiple of INTERVAL, so the remainder stays the same.
        while width >= self.interval:
            named = named & ((1 << width) - 1) | named >> width
            width //= 2
        return named.to_bytes(self.interval // 8 + 1, "little")

    def _bits(self, part: str, width: int, inside: int = 1) -> int:
        """The bits of `inside`, once for every hour, minute or second named, `width` bits apart."""
        return sum(inside << number * width for number in self._sorted(part))

    def _by_hour(self, phase: int, floor: time, budget: Budget) -> Iterator[int]:
        """The active units, looking only at the hours and minutes the rule names."""
        per_hour = self.per_day // 24
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

    def _is_named(self, unit: int) -> bool:
        if self.freq == "HOURLY":
            return not self.by_hour or unit in self.by_hour
        if self.freq == "SECONDLY":
            if self.by_second and unit % 60 not in self.by_second:
                return False
            unit //= 60
        hour, minute = divmod(unit, 60)
        return (not self.by_hour or hour in self.by_hour) and (not self.by_minute or minute in self.by_minute)

    def _sorted(self, part: str) -> list[int]:
        named = {"hour": self.by_hour, "minute": self.by_minute, "second": self.by_second}[part]
        return sorted(named or _ALL[part])


@lru_cache(1024)
def positions(wanted: tuple[int, ...], total: int) -> tuple[int, ...]:
    """BYSETPOS as rising indexes into a set of `total`; positions beyond it name nothing."""
    indexes = (position - 1 if position > 0 else total + position for position in wanted)
    return tuple(sorted({index for index in indexes if 0 <= index < total}))
