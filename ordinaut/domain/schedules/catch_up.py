"""What becomes of occurrences whose time has passed while nobody looked.

The rule: an occurrence at most `GRACE` late is on time and fires under every policy. Older ones are
*missed*, and the policy says which of them still fire:

- `none`: no missed one fires.
- `latest`: the latest missed one fires, unless one is on time, which then does its work.
- `all`: the latest `max` of the missed ones that are not older than `window` fire, oldest first.

What does not fire is always the oldest part, so it is reported as one range.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ordinaut.domain.policy import CatchUp
from ordinaut.domain.schedules.schedule import Schedule

GRACE = timedelta(seconds=60)
COUNT_CAP = 10_000
"""How far skipped occurrences are counted where the number cannot be computed."""

LARGEST_MAX = 10_000
"""How many missed occurrences `all` lets fire when it names no `max`."""

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Skipped:
    """One range of occurrences that will not fire: from `first` to `last`, both included.

    `count` is exact unless `count_capped`; then there are more than that.
    """

    first: datetime
    last: datetime
    count: int
    count_capped: bool = False
    reason: str = "missed"


@dataclass(frozen=True, slots=True)
class CatchUpPlan:
    """The verdicts: what to `fire`, oldest first, what is `skipped`, and the `next` instant after now."""

    fire: tuple[datetime, ...]
    skipped: Skipped | None
    next: datetime | None


def plan_catch_up(
    schedule: Schedule, due_from: datetime, now: datetime, policy: CatchUp, grace: timedelta = GRACE
) -> CatchUpPlan:
    """Which of the occurrences from `due_from` (itself one) up to `now` fire, and which are skipped.

    Bounded however long ago `due_from` is: work grows with what fires and with `COUNT_CAP`, not with the
    outage. The instants are aware and come back in UTC.
    """
    due_from, now = due_from.astimezone(UTC), now.astimezone(UTC)
    if due_from > now:
        return CatchUpPlan((), None, due_from)
    on_time = _from(schedule, max(due_from, now - grace), now)
    late = _caught_up(schedule, due_from, now, now - grace, policy, bool(on_time))
    fire = (*late, *on_time)
    upto = fire[0] - _TICK if fire else now
    return CatchUpPlan(fire, _skipped(schedule, due_from, upto), schedule.next_after(now))


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


def _from(schedule: Schedule, first: datetime, last: datetime) -> list[datetime]:
    """Every occurrence in [first, last]."""
    found = []
    at = schedule.next_after(first - _TICK)
    while at is not None and at <= last:
        found.append(at)
        at = schedule.next_after(at)
    return found


def _skipped(schedule: Schedule, first: datetime, upto: datetime) -> Skipped | None:
    """The range of occurrences from `first` (itself one) up to `upto`."""
    if first > upto:
        return None
    count, capped = schedule.count_between(first, upto, COUNT_CAP)
    last = _latest(schedule, first, upto, 1)
    return Skipped(first, last[-1] if last else first, max(count, 1), capped)
