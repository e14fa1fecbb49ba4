"""The instant a new schedule is planned with, or why it cannot be: it would never fire. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ordinaut.domain.definition import Definition
from ordinaut.domain.errors import Fault, Invalid
from ordinaut.domain.policy import CatchUp
from ordinaut.domain.schedules.catch_up import plan_catch_up
from ordinaut.domain.schedules.once import Once
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.spec import is_timed, rule_of


def plan_of(definition: Definition, now: datetime, known: Any = None) -> list[dict[str, Any]]:
    """The first instant of a definition's schedule, as TaskCreated and TaskChanged carry it: one, or none for
    a task without a schedule. `known` is the schedule the task had: what stays of a list may be over.

    Raises Invalid for a schedule that never fires again. A `once` in the past is due at once where the
    policy catches up with all that was missed.
    """
    schedule = definition.schedule
    if not is_timed(schedule):
        return []
    rule = rule_of(schedule)
    at = rule.next_after(now)
    if isinstance(schedule, list):
        _refuse_what_is_over(schedule, known, now)
    elif fault := _why_never(schedule, rule, at, now, "/schedule"):
        late = _late(rule, now, definition.policy.catch_up)
        if late is None:
            raise Invalid.all_of([fault])
        return [{"at": late.isoformat()}]
    if at is None:
        raise Invalid.at("/schedule", "the schedule never fires again", "one with an instant ahead")
    return [{"at": at.isoformat()}]


def _refuse_what_is_over(schedule: Sequence[Any], known: Any, now: datetime) -> None:
    kept = known if isinstance(known, list) else [known]
    found = []
    for index, member in enumerate(schedule):
        if member not in kept:
            rule = rule_of(member)
            found.append(_why_never(member, rule, rule.next_after(now), now, f"/schedule/{index}"))
    if faults := [fault for fault in found if fault is not None]:
        raise Invalid.all_of(faults)


def _why_never(spec: Any, rule: Schedule, at: datetime | None, now: datetime, pointer: str) -> Fault | None:
    """Why a rule has no instant ahead; None when it has. `at` is the first it names, excluded or not."""
    if at is not None:
        if not rule.has_exclusions or rule.kept_after(now) is not None:
            return None
        what = "leaves out every instant that comes next"
        return Fault(f"{pointer}/exclude", what, "days, ranges or rules that leave some")
    if isinstance(rule, Once):
        hint = (
            "an instant ahead; or, for a schedule that is no list, `policy.catch_up: {all: {}}`: it runs late"
        )
        return Fault(f"{pointer}/once", f"{spec['once']} is in the past", hint)
    return Fault(f"{pointer}/{rule.kind}", "the schedule never fires again", "one with an instant ahead")


def _late(rule: Schedule, now: datetime, catch_up: CatchUp) -> datetime | None:
    """The instant of a `once` that is over and still has to run."""
    if not isinstance(rule, Once) or catch_up.mode != "all":
        return None
    return next(iter(plan_catch_up(rule, rule.at, now, catch_up).fire), None)
