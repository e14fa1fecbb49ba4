"""What there is to backfill: a task's past instants by the rules that were in force at the time, each with
what the ledger says of it."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ordinaut.domain.backfill import MOST_INSTANTS
from ordinaut.domain.errors import Invalid, Unavailable
from ordinaut.domain.events import Event
from ordinaut.domain.ids import backfilled_run_id, scheduled_run_id
from ordinaut.domain.planned import Occurrence
from ordinaut.domain.run import run_stream
from ordinaut.domain.schedules.ledger import Period
from ordinaut.log.append import Connection
from ordinaut.log.read import read_first
from ordinaut.runtime.periods import read_histories
from projections.occurrences import checkpoint, skips_between

MOST_BEHIND = 10_000
"""The most events that the table `occurrences` may be behind the log; they are read from there."""

LOOKED_UP = 1000
"""Instants whose runs are looked for at once."""

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Instant:
    """An instant, the period of the rule that names it, and whether that rule leaves it out."""

    at: datetime
    period: Period
    excluded: bool


async def past_occurrences(
    connection: Connection, task_id: str, since: datetime, until: datetime, *, most: int = MOST_INSTANTS
) -> list[Occurrence] | None:
    """The task's instants from `since` up to `until` (not included, and not ahead), oldest first; None when
    none of its definitions has had a schedule that names instants.

    Raises Invalid when there are more than `most` or a schedule cannot be read, Unavailable when the ledger
    is far behind the log. The connection must not be in a transaction.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        behind = await connection.fetchval("SELECT position FROM log_head") - await checkpoint(connection)
        if behind > MOST_BEHIND:
            raise Unavailable(
                f"the table `occurrences` is {behind} events behind; is the role `projector` running?"
            )
        periods = (await read_histories(connection, [task_id])).periods(task_id)
        if not periods:
            return None
        # In a thread, because ten thousand instants of a hard rule take a second.
        instants = await asyncio.to_thread(_expand, periods, since, until, most)
        reasons = await _reasons(connection, task_id, instants)
        first = await _first_events(connection, task_id, instants)
    return [_occurrence(task_id, each, reasons.get(each.at), first) for each in instants]


def _expand(periods: Sequence[Period], since: datetime, until: datetime, most: int) -> list[_Instant]:
    """The instants by the rules in force at each, oldest first and each once."""
    found: dict[datetime, _Instant] = {}
    for period in periods:
        end = until if period.ends is None else min(until, period.due_before)
        for at in period.instants(since):
            if at >= end:
                break
            found.setdefault(at, _Instant(at, period, period.rule.excludes(at)))
            if len(found) > most:
                hint = f"the first {most} are those before {at.isoformat()}; take them in parts"
                raise Invalid.at("/to", f"the schedule names more than {most} instants up to then", hint)
    return sorted(found.values(), key=lambda each: each.at)


async def _reasons(connection: Connection, task_id: str, instants: Sequence[_Instant]) -> dict[datetime, str]:
    """Why instants were skipped, of those that are part of a skipped range or stand for themselves."""
    reasons: dict[datetime, str] = {}
    if not instants:
        return reasons
    skips = deque(await skips_between(connection, task_id, instants[0].at, instants[-1].at + _TICK))
    # Ranges overlap where a rule followed another: each speaks for the instants of its own.
    begun: list[Any] = []
    for instant in instants:
        while skips and skips[0]["at"] <= instant.at:
            begun.append(skips.popleft())
        begun = [row for row in begun if row["until"] >= instant.at]
        for row in begun:
            if row["at"] == instant.at or instant.period.owns(row["task_version"]):
                reasons[instant.at] = row["reason"]
    return reasons


async def _first_events(
    connection: Connection, task_id: str, instants: Sequence[_Instant]
) -> dict[str, Event]:
    """The first events of the runs the instants may have, by run id."""
    found: dict[str, Event] = {}
    for begin in range(0, len(instants), LOOKED_UP):
        ids = [
            run_id
            for each in instants[begin : begin + LOOKED_UP]
            for run_id in (scheduled_run_id(task_id, each.at), backfilled_run_id(task_id, each.at))
        ]
        first = await read_first(connection, [run_stream(run_id) for run_id in ids])
        found |= {run_id: first[stream] for run_id in ids if (stream := run_stream(run_id)) in first}
    return found


def _occurrence(task_id: str, instant: _Instant, reason: str | None, first: dict[str, Event]) -> Occurrence:
    at, period = instant.at, instant.period
    version = period.version_at(at)
    scheduled, own = scheduled_run_id(task_id, at), backfilled_run_id(task_id, at)
    verdict = first.get(scheduled)
    if verdict is not None and verdict.type == "RunRequested":
        return Occurrence(at, version, "fired", None, scheduled)
    if verdict is not None:
        reason = verdict.data["reason"]
    run = own if own in first else None
    if instant.excluded or reason == "excluded":
        return Occurrence(at, version, "excluded", None, run)
    if reason is not None or run is not None:
        return Occurrence(at, version, "skipped", reason, run)
    return Occurrence(at, version, "none" if at < period.due_before else "expected")
