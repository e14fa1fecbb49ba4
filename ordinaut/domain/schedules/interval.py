"""The `every` kind: a fixed interval of elapsed time, counted from an anchor; clock changes do not matter."""

from datetime import UTC, datetime, timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo

from ordinaut.domain.durations import format_duration
from ordinaut.domain.schedules import zones
from ordinaut.domain.schedules.schedule import Schedule

SHORTEST = timedelta(seconds=1)


class Every(Schedule):
    """Fires at the anchor and at every whole interval after it; never before the anchor."""

    kind: ClassVar[str] = "every"

    def __init__(self, interval: timedelta, anchor: datetime, tz: ZoneInfo) -> None:
        if interval < SHORTEST:
            raise ValueError("the shortest interval is 1s")
        self.interval = interval
        self.anchor = anchor.astimezone(UTC)
        self.tz = tz

    def next_after(self, instant: datetime) -> datetime | None:
        """See `Schedule`. Constant time."""
        after = instant.astimezone(UTC)
        if after < self.anchor:
            return self.anchor
        try:
            return self.anchor + ((after - self.anchor) // self.interval + 1) * self.interval
        except OverflowError:
            return None

    def count_between(self, first: datetime, last: datetime, cap: int) -> tuple[int, bool]:
        """See `Schedule`; computed, so `cap` never applies."""
        at = self.next_after(first - timedelta(microseconds=1))
        if at is None or at > last:
            return 0, False
        return (last - at) // self.interval + 1, False

    def shifted_by(self, instant: datetime) -> timedelta:
        """See `Schedule`; 0 for the anchor, before which there is none."""
        if instant - self.anchor < self.interval:
            return timedelta(0)
        return zones.offset(self.tz, instant) - zones.offset(self.tz, instant - self.interval)

    def describe(self) -> str:
        """One sentence for people."""
        anchor = self.anchor.isoformat().replace("+00:00", "Z")
        return f"every {format_duration(self.interval)}, counted from {anchor}"
