"""Reading the occurrence ledger beside the log, task by task, for its checker (domain/schedules/ledger.py).

The periods come from the tasks' own streams, never from a read table. A batch of tasks is read in one
snapshot of the database: clocks move a schedule on in the transaction of its verdicts, so every instant
before the one a schedule is due at next has its verdict in the same snapshot, whatever time it is.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ordinaut.domain.errors import Invalid
from ordinaut.domain.schedules.ledger import BEGINNING, NEWEST, Comparison, Fault, Period, Verdict, newest
from ordinaut.domain.schedules.spec import parse_schedule
from ordinaut.domain.schedules.zones import tz_version
from ordinaut.log.append import Connection
from projections.occurrences import checkpoint, verdicts_of, verdicts_unfolded

BATCH = 100
GRACE = timedelta(seconds=60)
"""How long a schedule that is not in the table (any more) may be without a verdict."""

HANDOVER = timedelta(seconds=5)
"""How long after its end a schedule's instants may still get a verdict: from a clock that decided before the
end was recorded."""

_TICK = timedelta(microseconds=1)

MOST_BEHIND = 10_000
"""The most events that the table may be behind the log; they are read from there."""

MOST_INSTANTS = 1_000_000
"""How many instants one check expands, over all tasks: some minutes."""

_TASKS = """
SELECT position, stream, space, data->>'name' AS name FROM events
 WHERE type = 'TaskCreated' AND version = 1 AND position > $1 ORDER BY position LIMIT $2
"""

_HISTORY = """
SELECT stream, type, at, position, (data->>'version')::int AS version, data->'plan' AS plan,
       coalesce((data->>'effective_at')::timestamptz, at) AS effective_at, data->>'tz' AS tz,
       data#>'{definition,schedule}' AS schedule
  FROM events WHERE stream = ANY ($1) AND type IN ('TaskCreated', 'TaskChanged', 'TaskRetired')
 ORDER BY stream, events.version
"""

_PLANNED = """
SELECT task_id::text, since_version, next_fire_at FROM schedules
 WHERE task_id = ANY ($1::text[]::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Hole:
    """A fault of the ledger and the task it is about, as `<space>/<name>`."""

    task: str
    fault: Fault


@dataclass(slots=True)
class Checked:
    """How far a check has come. `bounded` counts tasks of which only the newest instants were looked at,
    `left` those that were not looked at at all; `behind` is how many events the table is behind the log
    where that is too many to check anything."""

    tasks: int = 0
    instants: int = 0
    bounded: int = 0
    left: int = 0
    behind: int = 0


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What a batch of tasks is checked against."""

    now: datetime
    folded: int
    planned: dict[str, Any]
    unfolded: dict[str, list[Any]] = field(default_factory=dict)


async def check_ledger(
    connection: Connection, checked: Checked, *, limit: int = NEWEST, most: int = MOST_INSTANTS
) -> AsyncIterator[Hole]:
    """Every instant without a verdict and every verdict without an instant, task after task; `checked` is
    kept up to date meanwhile. At most `limit` instants a task, its newest, and `most` over all.

    The connection must not be in a transaction.
    """
    position = 0
    while True:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            tasks = await connection.fetch(_TASKS, position, BATCH)
            if not tasks:
                return
            position = tasks[-1]["position"]
            behind = await connection.fetchval("SELECT position FROM log_head")
            behind -= await checkpoint(connection)
            if behind > MOST_BEHIND:
                checked.behind = behind
                return
            async for hole in _check_batch(connection, tasks, checked, limit, most):
                yield hole


async def _check_batch(
    connection: Connection, tasks: Sequence[Any], checked: Checked, limit: int, most: int
) -> AsyncIterator[Hole]:
    history: dict[str, list[Any]] = {}
    for row in await connection.fetch(_HISTORY, [task["stream"] for task in tasks]):
        history.setdefault(row["stream"], []).append(row)
    ids = [task["stream"].removeprefix("task-") for task in tasks]
    planned = {row["task_id"]: row for row in await connection.fetch(_PLANNED, ids)}
    snapshot = _Snapshot(
        await connection.fetchval("SELECT clock_timestamp()"),
        await connection.fetchval("SELECT position FROM projection_checkpoints WHERE name = 'schedules'"),
        planned,
        await verdicts_unfolded(connection, ids),
    )
    for task, task_id in zip(tasks, ids, strict=True):
        if checked.instants >= most:
            checked.left += 1
            continue
        name = f"{task['space']}/{task['name']}"
        try:
            periods = _periods(history[task["stream"]], snapshot.planned.get(task_id), snapshot)
        except Invalid as error:
            yield Hole(name, Fault(snapshot.now, 0, f"has a schedule that cannot be read: {error.message}"))
            continue
        since = newest(periods, limit)
        checked.tasks += bool(periods)
        checked.bounded += since > BEGINNING
        comparison = Comparison(periods, since)
        async for verdict in verdicts_of(connection, task_id, since, snapshot.unfolded.get(task_id, [])):
            for fault in comparison.take(_verdict(verdict)):
                yield Hole(name, _with_tz(fault, periods))
        for fault in comparison.finish():
            yield Hole(name, _with_tz(fault, periods))
        checked.instants += comparison.instants


def _periods(history: Sequence[Any], planned: Any, snapshot: _Snapshot) -> list[Period]:
    """The periods of a task, oldest first. Raises Invalid when a schedule cannot be read."""
    periods: list[Period] = []
    current: Period | None = None
    for event in history:
        ends = event["type"] == "TaskRetired" or event["plan"] is not None
        if current is not None and ends:
            end, following = event["effective_at"], current.versions[-1][1] + 1
            upto = max(end, event["at"]) + HANDOVER
            periods.append(replace(current, due_before=end + _TICK, upto=upto, ends=following))
            current = None
        if event["type"] == "TaskRetired":
            continue
        version = (event["at"], event["version"])
        if event["plan"]:
            rule = parse_schedule(event["schedule"], created_at=event["at"])
            first = datetime.fromisoformat(event["plan"][0]["at"]).astimezone(UTC)
            due_before = _decided_before(event, first, planned, snapshot)
            upto = snapshot.now + HANDOVER
            current = Period(rule, first, due_before, upto, [version], tz=event["tz"] or "")
        elif current is not None:
            current = replace(current, versions=[*current.versions, version])
    return [*periods, current] if current is not None else periods


def _decided_before(event: Any, first: datetime, planned: Any, snapshot: _Snapshot) -> datetime:
    """Up to where clocks have decided a schedule, if it is the one in force."""
    overdue = snapshot.now - GRACE
    if planned is None or planned["since_version"] < event["version"]:
        # The table has not heard of it yet, or has lost it.
        return first if snapshot.folded < event["position"] else overdue
    following: datetime | None = planned["next_fire_at"]
    return overdue if following is None else min(following, snapshot.now)


def _with_tz(fault: Fault, periods: Sequence[Period]) -> Fault:
    """The fault, with a word about the tz database where another release may be all there is to it: the past
    is expanded with the one in use."""
    planned = next((period.tz for period in periods if period.owns(fault.version)), "")
    if planned in ("", tz_version()):
        return fault
    return replace(fault, what=f"{fault.what} (planned with tz database {planned}; this is {tz_version()})")


def _verdict(row: Any) -> Verdict:
    fired = row["verdict"] == "fired"
    return Verdict(row["at"], row["until"], row["count"], fired, row["task_version"])
