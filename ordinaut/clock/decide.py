"""What becomes of a schedule that is due: a verdict for every instant up to now (I8). Pure.

The order of the questions, for each instant: has it a verdict already (`deduplicated`)? may the task run
at all (`retired`, `paused`, `snoozed`)? is it left out (`excluded`) or too late (`missed`, for both see
schedules/catch_up.py)? is a run of an earlier instant still unfinished (`overlap`)? Else it fires.

Instants that are skipped for one reason and follow one another are one event, however many they are; it
lies on the stream of the first of them. So the first instant without a verdict always has a free stream,
and a clock that was told an old instant by a lagging table meets a stream that is taken.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ordinaut.domain import ids
from ordinaut.domain.definition import Definition
from ordinaut.domain.events import NewEvent
from ordinaut.domain.request import one_at_a_time, request_run, skip_occurrence
from ordinaut.domain.schedules import zones
from ordinaut.domain.schedules.catch_up import GRACE, Skipped, jittered, plan_catch_up, whole_range
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.task import Task

UNCONCERNED = frozenset({"allow", "queue_all"})
"""The overlap policies under which every occurrence fires, whatever is unfinished."""

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Due:
    """A task and the instant (UTC) from which on the verdicts of its schedule are missing.

    `since_version` is the version of the task's definition the schedule came with.
    """

    task_id: str
    at: datetime
    since_version: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first event of the stream `run-<run_id>`, about `count` instants from `at` on."""

    run_id: str
    at: datetime
    count: int
    event: NewEvent

    @property
    def fired(self) -> bool:
        """Whether there is a run."""
        return self.event.type == "RunRequested"


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdicts, oldest first; the runs to cancel before them; when the schedule is due again."""

    verdicts: tuple[Verdict, ...]
    cancel: tuple[str, ...]
    next: datetime | None


@dataclass(frozen=True, slots=True)
class _Mark:
    """Some instants and why they are skipped; without a reason it is one, and it fires."""

    first: datetime
    last: datetime
    reason: str | None
    count: int = 1
    count_capped: bool = False


def decide(
    task: Task,
    definition: Definition,
    rule: Schedule,
    due: Due,
    now: datetime,
    unfinished: Sequence[str] = (),
    taken: Collection[datetime] = (),
) -> Decision:
    """The verdicts on the instants of `rule` from `due.at` (itself one) up to `now`.

    `unfinished` are the ids of the task's runs from scheduled instants that have not ended; `taken` the
    instants that got their verdict from elsewhere (an earlier definition of the task, a backfill).
    """
    marks, following = _mark(task, definition, rule, due.at.astimezone(UTC), now, taken)
    if not marks:
        return Decision((), (), following)
    marks, cancel = _overlap(marks, definition.policy.overlap, unfinished)
    nexts = [mark.first for mark in marks[1:]] + [following]
    verdicts = tuple(
        _verdict(task, definition, rule, mark, upcoming, now)
        for mark, upcoming in zip(marks, nexts, strict=True)
    )
    return Decision(verdicts, cancel, following)


def decide_ahead(task: Task, definition: Definition, rule: Schedule, due: Due) -> Decision | None:
    """The decision on `due` as it will be when its instant comes, if that one instant fires; else None.

    It holds for a task that is still the same then, has no unfinished runs and no verdict on the instant; see
    `as_of`.
    """
    decision = decide(task, definition, rule, due, due.at)
    return decision if [verdict.fired for verdict in decision.verdicts] == [True] else None


def as_of(ahead: Decision, now: datetime) -> Decision | None:
    """What `decide` would say at `now` of what was decided ahead; None when it has to be asked, because the
    instant is missed or another has come."""
    (verdict,) = ahead.verdicts
    if now - verdict.at > GRACE or (ahead.next is not None and ahead.next <= now):
        return None
    data = verdict.event.data
    cause = {**data["cause"], "lateness": _lateness(verdict.at, now)}
    event = NewEvent(verdict.event.type, {**data, "cause": cause})
    return Decision((Verdict(verdict.run_id, verdict.at, 1, event),), (), ahead.next)


def _mark(
    task: Task,
    definition: Definition,
    rule: Schedule,
    at: datetime | None,
    now: datetime,
    taken: Collection[datetime],
) -> tuple[list[_Mark], datetime | None]:
    """What the instants from `at` up to now are, before overlap is looked at, and the one after now."""
    marks: list[_Mark] = []
    while at is not None and at <= now:
        if at in taken:
            marks.append(_Mark(at, at, "deduplicated"))
            at = rule.next_after(at)
            continue
        if (hold := task.hold(at)) is None:
            break
        reason, end = hold
        held = whole_range(rule, at, now if end is None else min(now, end - _TICK), reason)
        marks.append(_range(held))
        if reason == "retired":
            return marks, None
        at = rule.next_after(held.last)
    if at is None or at > now:
        return marks, at
    plan = plan_catch_up(rule, at, now, definition.policy.catch_up)
    decided = [_range(skipped) for skipped in plan.skipped]
    decided += [_Mark(fire, fire, "deduplicated" if fire in taken else None) for fire in plan.fire]
    return marks + sorted(decided, key=lambda mark: mark.first), plan.next


def _range(skipped: Skipped) -> _Mark:
    return _Mark(skipped.first, skipped.last, skipped.reason, skipped.count, skipped.count_capped)


def _overlap(
    marks: list[_Mark], policy: str, unfinished: Sequence[str]
) -> tuple[list[_Mark], tuple[str, ...]]:
    """The marks with those that may not overlap skipped, and the runs that have to go.

    Caught-up instants overlap one another as if each had come at its time: with `skip` the oldest runs,
    with `queue_one` the two oldest, with `cancel_running` the latest.
    """
    if policy in UNCONCERNED:
        return marks, ()
    firing = [n for n, mark in enumerate(marks) if mark.reason is None]
    if policy == "cancel_running":
        kept = firing[-1:]
    else:
        room = 1 if policy == "skip" else 2
        kept = firing[: max(0, room - len(unfinished))]
    dropped = set(firing) - set(kept)
    decided = [replace(mark, reason="overlap") if n in dropped else mark for n, mark in enumerate(marks)]
    return decided, tuple(unfinished) if policy == "cancel_running" and kept else ()


def _verdict(
    task: Task, definition: Definition, rule: Schedule, mark: _Mark, upcoming: datetime | None, now: datetime
) -> Verdict:
    cause = {
        "kind": "schedule",
        "at": _iso(mark.first),
        "index": rule.naming(mark.first)[0],
        "lateness": _lateness(mark.first, now),
    }
    extra: dict[str, Any] = {"next": None if upcoming is None else _iso(upcoming), "tz": zones.tz_version()}
    run_id = ids.scheduled_run_id(task.id, mark.first)
    if mark.reason is None:
        event = request_run(
            task, definition, cause, {}, run_at=_run_at(task, definition, mark.first),
            extra=extra | one_at_a_time(task, definition),
        )  # fmt: skip
        return Verdict(run_id, mark.first, 1, event)
    extra |= {"from": _iso(mark.first), "to": _iso(mark.last), "count": mark.count}
    if mark.count_capped:
        extra["count_capped"] = True
    if mark.reason == "deduplicated":
        # Its own stream is taken; the schedule still has to be seen moving on in the log.
        milliseconds = int(mark.first.timestamp() * 1000)
        run_id = ids.cause_id(milliseconds, "deduplicated", task.id, str(milliseconds), str(task.version))
    return Verdict(run_id, mark.first, mark.count, skip_occurrence(task, cause, mark.reason, extra))


def _run_at(task: Task, definition: Definition, at: datetime) -> datetime | None:
    jitter = definition.policy.jitter
    return jittered(task.id, at, timedelta(seconds=jitter)) if jitter else None


def _lateness(at: datetime, now: datetime) -> float:
    return max(0.0, round((now - at).total_seconds(), 3))


def _iso(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()
