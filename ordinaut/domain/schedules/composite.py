"""Rules made of rules: one with limits (`start`, `end`, `exclude`), and several as one.

However many rules a task has, it has one schedule: an instant that two of them name is one occurrence.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from ordinaut.domain.schedules.budget import HORIZON_YEARS
from ordinaut.domain.schedules.exclusions import TICK, Exclusions
from ordinaut.domain.schedules.remembering import Remembering
from ordinaut.domain.schedules.schedule import SEARCH_STEPS, Schedule

_BEGINNING = datetime.min.replace(tzinfo=UTC) + timedelta(days=2)
_END = datetime.max.replace(tzinfo=UTC) - timedelta(days=2)


class Limited(Schedule):
    """The instants of `rule` from `start` to `end` (both included; None: no limit); those that `exclusions`
    leave out are named, and excluded."""

    def __init__(
        self, rule: Schedule, start: datetime | None, end: datetime | None, exclusions: Exclusions | None
    ) -> None:
        self.rule = rule
        self.kind = rule.kind  # type: ignore[misc]  # it is still a cron, or what it was
        self.tz = rule.tz
        self._start = _BEGINNING if start is None else start.astimezone(UTC)
        self._end = _END if end is None else end.astimezone(UTC)
        self._exclusions = exclusions

    def next_after(self, instant: datetime) -> datetime | None:
        """See `Schedule`."""
        at = self.rule.next_after(max(instant.astimezone(UTC), self._start - TICK))
        return None if at is None or at > self._end else at

    @property
    def has_exclusions(self) -> bool:
        """See `Schedule`."""
        return self._exclusions is not None

    def excludes(self, instant: datetime) -> bool:
        """See `Schedule`."""
        return self._exclusions is not None and self._exclusions.until(instant) is not None

    def kept_after(self, instant: datetime, steps: int = SEARCH_STEPS) -> datetime | None:
        """See `Schedule`; looks at most `HORIZON_YEARS` ahead."""
        if self._exclusions is None:
            return self.next_after(instant)
        after = instant
        furthest = instant.year + HORIZON_YEARS
        for _ in range(1 + steps // (1 + self._exclusions.rules)):
            at = self.next_after(after)
            if at is None or at.year > furthest:
                return None
            until = self._exclusions.until(at)
            if until is None:
                return at
            after = until - TICK
        return None

    def count_between(self, first: datetime, last: datetime, cap: int) -> tuple[int, bool]:
        """See `Schedule`."""
        first, last = max(first, self._start), min(last, self._end)
        return (0, False) if first > last else self.rule.count_between(first, last, cap)

    def moved_from(self, instant: datetime) -> list[datetime]:
        """See `Schedule`."""
        return self.rule.moved_from(instant)

    def dropped(self, after: datetime, instant: datetime) -> list[datetime]:
        """See `Schedule`."""
        return self.rule.dropped(max(after, self._start - TICK), instant)

    def shifted_by(self, instant: datetime) -> timedelta:
        """See `Schedule`."""
        return self.rule.shifted_by(instant)

    def describe(self) -> str:
        """One sentence for people."""
        limits = [
            text
            for limit, none, text in (
                (self._start, _BEGINNING, f"from {self._start.astimezone(self.tz).isoformat()}"),
                (self._end, _END, f"until {self._end.astimezone(self.tz).isoformat()}"),
            )
            if limit != none
        ]
        limits += ["without what is excluded"] if self.has_exclusions else []
        return ", ".join([self.rule.describe(), *limits])


class Several(Schedule):
    """Every instant that one of `members` names. It is excluded when all that name it exclude it."""

    kind: ClassVar[str] = "list"

    def __init__(self, members: Sequence[Schedule]) -> None:
        self.members = tuple(members)
        self.tz = self.members[0].tz
        self._asked = [Remembering(each) for each in self.members]

    def next_after(self, instant: datetime) -> datetime | None:
        """See `Schedule`."""
        return _first(each.next_after(instant) for each in self._asked)

    @property
    def has_exclusions(self) -> bool:
        """See `Schedule`."""
        return any(each.has_exclusions for each in self.members)

    def excludes(self, instant: datetime) -> bool:
        """See `Schedule`."""
        return self.has_exclusions and self.naming(instant)[1].excludes(instant)

    def kept_after(self, instant: datetime, steps: int = SEARCH_STEPS) -> datetime | None:
        """See `Schedule`."""
        return _first(each.kept_after(instant, steps // len(self.members)) for each in self.members)

    def naming(self, instant: datetime) -> tuple[int, Schedule]:
        """See `Schedule`; of several, the first that does not exclude it."""
        asked = zip(self.members, self._asked, strict=True)
        named = [
            (n, each)
            for n, (each, remembering) in enumerate(asked)
            if remembering.next_after(instant - TICK) == instant
        ]
        kept = [(n, each) for n, each in named if not each.excludes(instant)]
        return (kept or named or [(0, self.members[0])])[0]

    def describe(self) -> str:
        """One sentence for people."""
        return "; ".join(each.describe() for each in self.members)


def _first(instants: Iterable[datetime | None]) -> datetime | None:
    return min((at for at in instants if at is not None), default=None)
