"""Reading the occurrence ledger beside the log, task by task, for its checker (domain/schedules/ledger.py).

A batch of tasks is read in one snapshot of the database, with the periods their rules were in force in
(runtime/periods.py).
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ordinaut.domain.errors import Invalid
from ordinaut.domain.schedules.ledger import BEGINNING, NEWEST, Comparison, Fault, Period, Verdict, newest
from ordinaut.domain.schedules.zones import tz_version
from ordinaut.log.append import Connection
from ordinaut.runtime.periods import read_histories
from projections.occurrences import checkpoint, verdicts_of, verdicts_unfolded

BATCH = 100

MOST_BEHIND = 10_000
"""The most events that the table may be behind the log; they are read from there."""

MOST_INSTANTS = 1_000_000
"""How many instants one check expands, over all tasks: some minutes."""

_TASKS = """
SELECT position, stream, space, data->>'name' AS name FROM events
 WHERE type = 'TaskCreated' AND version = 1 AND position > $1 ORDER BY position LIMIT $2
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
    ids = [task["stream"].removeprefix("task-") for task in tasks]
    histories = await read_histories(connection, ids)
    unfolded = await verdicts_unfolded(connection, ids)
    for task, task_id in zip(tasks, ids, strict=True):
        if checked.instants >= most:
            checked.left += 1
            continue
        name = f"{task['space']}/{task['name']}"
        try:
            periods = histories.periods(task_id)
        except Invalid as error:
            yield Hole(name, Fault(histories.now, 0, f"has a schedule that cannot be read: {error.message}"))
            continue
        since = newest(periods, limit)
        checked.tasks += bool(periods)
        checked.bounded += since > BEGINNING
        comparison = Comparison(periods, since)
        async for verdict in verdicts_of(connection, task_id, since, unfolded.get(task_id, [])):
            for fault in comparison.take(_verdict(verdict)):
                yield Hole(name, _with_tz(fault, periods))
        for fault in comparison.finish():
            yield Hole(name, _with_tz(fault, periods))
        checked.instants += comparison.instants


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
