"""What every kind of schedule promises, and its face towards APScheduler."""

from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger

from ordinaut.domain.schedules import zones

SEARCH_STEPS = 3000
"""A search of that many steps takes some 100 ms at most, and passes over two days of excluded minutes."""

_TICK = timedelta(microseconds=1)


class Schedule(ABC):
    """A rule that says at which instants something happens. Pure: the same question has the same answer."""

    kind: ClassVar[str]
    tz: ZoneInfo

    @abstractmethod
    def next_after(self, instant: datetime) -> datetime | None:
        """The first instant strictly after `instant` (aware, any zone), in UTC; None: never again.

        Excluded instants are named too: each gets its verdict when it comes.
        """

    @abstractmethod
    def describe(self) -> str:
        """One sentence, without a period, for people."""

    @property
    def has_exclusions(self) -> bool:
        """Whether there is an `exclude`, and so instants at which nothing happens."""
        return False

    def excludes(self, instant: datetime) -> bool:
        """Whether nothing happens at `instant`, which the rule names, because of `exclude`."""
        return False

    def kept_after(self, instant: datetime, steps: int = SEARCH_STEPS) -> datetime | None:
        """The first instant strictly after `instant` that is not excluded, in UTC; None: never again, or
        not found by a search in which a rule is asked about `steps` times."""
        return self.next_after(instant)

    def first_kept(self, instant: datetime) -> datetime | None:
        """`instant`, which the rule names, or the first one after it that is not excluded."""
        return self.kept_after(instant) if self.excludes(instant) else instant

    def naming(self, instant: datetime) -> "tuple[int, Schedule]":
        """Which member of a list of rules names `instant`, and its number in the list."""
        return 0, self

    def moved_from(self, instant: datetime) -> list[datetime]:
        """The wall times the rule names that the clocks jump over and that happen at `instant` instead."""
        return []

    def dropped(self, after: datetime, instant: datetime) -> list[datetime]:
        """The wall times the rule names that the clocks jump over and for which nothing happens, between
        `after` and the occurrence that follows it at `instant`."""
        return []

    def shifted_by(self, instant: datetime) -> timedelta:
        """How far the clocks were put forward (back: less than 0) since the occurrence before `instant`, for
        a rule that counts elapsed time; 0 for one that names wall times."""
        return timedelta(0)

    def count_between(self, first: datetime, last: datetime, cap: int) -> tuple[int, bool]:
        """How many occurrences lie in [first, last]; counting stops at `cap`, and True says that it did."""
        count = 0
        at = self.next_after(first - _TICK)
        while at is not None and at <= last:
            if count == cap:
                return count, True
            count += 1
            at = self.next_after(at)
        return count, False

    def trigger(self) -> "ScheduleTrigger":
        """This rule as an APScheduler trigger."""
        return ScheduleTrigger(self)

    def wall(self, instant: datetime) -> datetime:
        """What a clock in the schedule's zone shows at `instant`, naive."""
        return zones.to_wall(self.tz, instant)


class ScheduleTrigger(BaseTrigger):  # type: ignore[misc]  # apscheduler has no types
    """An APScheduler 3 trigger over a pure rule: it fires at exactly the instants `kept_after` names."""

    __slots__ = ("schedule",)

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """After `previous_fire_time` when there was one, else the first at or after `now`; UTC or None."""
        if previous_fire_time is not None:
            return self.schedule.kept_after(previous_fire_time)
        return self.schedule.kept_after(now.astimezone(UTC) - _TICK)

    def __str__(self) -> str:
        return self.schedule.describe()
