"""What becomes of occurrences whose time has passed while nobody looked.

The rule: an occurrence at most `GRACE` late is on time and fires under every policy. Older ones are
*missed*, and the policy says which of them still fire:

- `none`: no missed one fires.
- `latest`: the latest missed one fires, unless one is on time, which then does its work.
- `all`: the latest `max` of the missed ones that are not older than `window` fire, oldest first.

An instant that `exclude` leaves out is none of these: it neither fires nor is missed. What does not fire is
reported as ranges, each with its reason.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from ordinaut.domain.policy import CatchUp
from ordinaut.domain.schedules.schedule import Schedule

GRACE = timedelta(seconds=60)
COUNT_CAP = 10_000
"""How far skipped occurrences are counted where the number cannot be computed."""

LARGEST_MAX = 10_000
"""How many missed occurrences `all` lets fire when it names no `max`."""

TOLD_APART = 10_000
"""How many instants are looked at one by one to tell excluded from missed ones. Where more come before the
first that fires, the rest are one range `missed`."""

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Skipped:
    """One range of occurrences that will not fire: from `first` to `last`, both included.

    `count` is exact unless `count_capped`; then there are more than that.
    """

    first: datetime
    last: datetime
    count: int
    count_capped: bool
    reason: str


@dataclass(frozen=True, slots=True)
class CatchUpPlan:
    """The verdicts: what to `fire` and what is `skipped` (both oldest first), and the `next` instant that the
    schedule names after now."""

    fire: tuple[datetime, ...]
    skipped: tuple[Skipped, ...]
    next: datetime | None


class _Kept(Schedule):
    """The instants of a rule that are not excluded."""

    kind = "kept"

    def __init__(self, rule: Schedule) -> None:
        self._rule = rule
        self.tz = rule.tz

    def next_after(self, instant: datetime) -> datetime | None:
        return self._rule.kept_after(instant)

    def describe(self) -> str:
        return self._rule.describe()


def plan_catch_up(
    schedule: Schedule, due_from: datetime, now: datetime, policy: CatchUp, grace: timedelta = GRACE
) -> CatchUpPlan:
    """Which of the occurrences from `due_from` (itself one) up to `now` fire, and which are skipped.

    Bounded however long ago `due_from` is: work grows with what fires and with `COUNT_CAP`, not with the
    outage. The instants are aware and come back in UTC.
    """
    due_from, now = due_from.astimezone(UTC), now.astimezone(UTC)
    if due_from > now:
        return CatchUpPlan((), (), due_from)
    if due_from >= now - grace and not schedule.has_exclusions:
        following = schedule.next_after(due_from)
        if following is None or following > now:
            return CatchUpPlan((due_from,), (), following)  # nearly always, and thousands at once
    kept = _Kept(schedule) if schedule.has_exclusions else schedule
    on_time = _from(kept, max(due_from, now - grace), now)
    late = _caught_up(kept, due_from, now, now - grace, policy, bool(on_time))
    fire = (*late, *on_time)
    if schedule.has_exclusions:
        skipped = tuple(_told_apart(schedule, due_from, now, fire))
    elif fire[:1] == (due_from,):
        skipped = ()
    else:
        skipped = (whole_range(schedule, due_from, fire[0] - _TICK if fire else now, "missed"),)
    return CatchUpPlan(fire, skipped, schedule.next_after(now))


def whole_range(schedule: Schedule, first: datetime, upto: datetime, reason: str) -> Skipped:
    """All occurrences from `first` (itself one) up to `upto`, skipped for one reason; at least `first`."""
    count, capped = schedule.count_between(first, upto, COUNT_CAP)
    last = _latest(schedule, first, upto, 1)
    return Skipped(first, last[-1] if last else first, max(count, 1), capped, reason)


def jittered(task_id: str, at: datetime, jitter: timedelta) -> datetime:
    """`at` moved later by less than `jitter`, to the millisecond: always the same for a task and instant."""
    instant = at.astimezone(UTC)
    digest = hashlib.sha256(f"{task_id} {instant.isoformat()}".encode()).digest()
    span = jitter // timedelta(milliseconds=1)
    return instant + timedelta(milliseconds=int.from_bytes(digest[:8], "big") * span >> 64)


def _caught_up(
    schedule: Schedule, due_from: datetime, now: datetime, before: datetime, policy: CatchUp, on_time: bool
) -> list[datetime]:
    """The missed occurrences (in [due_from, before)) that the policy lets fire, oldest first."""
    if policy.mode == "none" or due_from >= before or (policy.mode == "latest" and on_time):
        return []
    wanted = 1 if policy.mode == "latest" else policy.max or LARGEST_MAX
    oldest = due_from
    if policy.mode == "all" and policy.window is not None:
        oldest = max(due_from, now - timedelta(seconds=policy.window))
    return _latest(schedule, oldest, before - _TICK, wanted)


def _latest(schedule: Schedule, first: datetime, last: datetime, wanted: int) -> list[datetime]:
    """The latest `wanted` occurrences in [first, last]: looked for in a range that doubles backwards."""
    if first > last:
        return []
    span = timedelta(seconds=wanted)
    while last - span > first:
        enough, _ = schedule.count_between(last - span, last, wanted)
        if enough >= wanted:
            return _from(schedule, last - span, last)[-wanted:]
        span *= 2
    return _from(schedule, first, last)[-wanted:]


def _from(schedule: Schedule, first: datetime, last: datetime, most: int | None = None) -> list[datetime]:
    """Every occurrence in [first, last], at most the first `most`."""
    found: list[datetime] = []
    at = schedule.next_after(first - _TICK)
    while at is not None and at <= last and (most is None or len(found) < most):
        found.append(at)
        at = schedule.next_after(at)
    return found


def _told_apart(
    schedule: Schedule, due_from: datetime, now: datetime, fire: tuple[datetime, ...]
) -> Iterator[Skipped]:
    """What does not fire from `due_from` (itself an instant) up to now, excluded and missed ones apart."""
    at: datetime | None = due_from
    left = TOLD_APART
    for number, stop in enumerate((*fire, None)):
        upto = now if stop is None else stop - _TICK
        instants = _from(schedule, at, upto, left) if at is not None and at <= upto else []
        left -= len(instants)
        for excluded, run in groupby(instants, schedule.excludes):
            told = list(run)
            yield Skipped(told[0], told[-1], len(told), False, "excluded" if excluded else "missed")
        at = schedule.next_after(instants[-1]) if instants else at
        if at is not None and at <= upto:
            # Between two that fire there is nothing but what is excluded.
            yield whole_range(schedule, at, upto, "excluded" if number else "missed")
        at = None if stop is None else schedule.next_after(stop)
