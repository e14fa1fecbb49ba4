"""Every clock change of every zone from 2000 to 2040, found by looking at the zones day by day."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from ordinaut.domain.schedules.zones import zone, zone_names

_SECOND = timedelta(seconds=1)
_STEP = timedelta(days=2)
_FIRST, _LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)

QUIET = ("UTC", "Asia/Tokyo", "Asia/Kathmandu")
"""Zones without a change in these years."""


@dataclass(frozen=True, slots=True)
class Change:
    """The clocks of a zone change by `by` at `at` (UTC): forward when it is more than 0."""

    zone: str
    at: datetime
    by: timedelta

    @property
    def kind(self) -> tuple[object, ...]:
        """What makes it differ from others: by how much, and at which wall time."""
        return self.by, self.at.astimezone(zone(self.zone)).time()

    @property
    def skips_midnight(self) -> bool:
        """Whether the first time that does not exist is 00:00."""
        return self.by > timedelta(0) and (self.at.astimezone(zone(self.zone)) - self.by).hour == 0


def offset(tz: ZoneInfo, at: datetime) -> timedelta:
    return at.astimezone(tz).utcoffset() or timedelta(0)


@cache
def changes(name: str) -> tuple[Change, ...]:
    """The changes of one zone, oldest first."""
    tz, at, found = zone(name), _FIRST, []
    while at < _LAST:
        low, high = at, at + _STEP
        before, after = offset(tz, low), offset(tz, high)
        if before != after:
            while high - low > _SECOND:
                middle = low + (high - low) // (2 * _SECOND) * _SECOND
                low, high = (middle, high) if offset(tz, middle) == before else (low, middle)
            found.append(Change(name, high, after - before))
        at += _STEP
    return tuple(found)


@cache
def different_zones() -> tuple[str, ...]:
    """One name of each zone that differs from all others."""
    files = resources.files("tzdata").joinpath("zoneinfo")
    by_content = {files.joinpath(*name.split("/")).read_bytes(): name for name in sorted(zone_names())}
    return tuple(sorted(by_content.values()))


@cache
def one_of_each_kind() -> tuple[Change, ...]:
    """The latest change of each kind over all zones."""
    kinds = {change.kind: change for name in different_zones() for change in changes(name)}
    return tuple(kinds.values())


def near_changes(hours: int = 30) -> st.SearchStrategy[tuple[str, datetime]]:
    """A zone, any of all, and an instant within so many hours of one of its changes, if it has any."""

    def near(name: str) -> st.SearchStrategy[tuple[str, datetime]]:
        known = changes(name)
        moments = st.sampled_from(known).map(lambda change: change.at) if known else st.just(_FIRST)
        shifts = st.integers(-60 * hours, 60 * hours)
        return st.tuples(moments, shifts).map(lambda pair: (name, pair[0] + timedelta(minutes=pair[1])))

    return st.sampled_from(sorted(zone_names())).flatmap(near)
