"""The `once` kind: a single instant."""

from datetime import UTC, datetime
from typing import ClassVar
from zoneinfo import ZoneInfo

from ordinaut.domain.schedules import zones
from ordinaut.domain.schedules.schedule import Schedule


class Once(Schedule):
    """Fires at `at`. An aware `at` is that instant; a naive one is a wall time in the zone."""

    kind: ClassVar[str] = "once"

    def __init__(self, at: datetime, tz: ZoneInfo) -> None:
        self.tz = tz
        self.at = at.astimezone(UTC) if at.tzinfo else zones.to_instant(tz, at)
        self._named = None if at.tzinfo else at

    def next_after(self, instant: datetime) -> datetime | None:
        """See `Schedule`."""
        return self.at if self.at > instant else None

    def moved_from(self, instant: datetime) -> list[datetime]:
        """The wall time that was written, when it does not exist."""
        if instant != self.at or self._named is None or self.wall(instant) == self._named:
            return []
        return [self._named]

    def describe(self) -> str:
        """One sentence for people."""
        return f"once at {self.at.astimezone(self.tz).isoformat()} in {self.tz.key}"
