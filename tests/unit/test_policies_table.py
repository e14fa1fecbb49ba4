"""The policies' table: every catch-up × overlap × outage × unfinished runs, against a plain model."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from ordinaut.clock.decide import Decision, Due, decide
from ordinaut.domain import ids
from ordinaut.domain.definition import parse_definition
from ordinaut.domain.schedules.spec import parse_schedule
from ordinaut.domain.task import Task
from tests.support.policies import CATCH_UPS, EVERY, OUTAGES, OVERLAPS, Cell, expected

BORN = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
TASK_ID = ids.task_id("default", "tick")
UNFINISHED = [ids.scheduled_run_id(TASK_ID, BORN - n * timedelta(hours=1)) for n in (2, 1)]
TABLE = [Cell(*cell) for cell in product(CATCH_UPS, OVERLAPS, OUTAGES, (0, 1, 2))]


def decision(cell: Cell) -> Decision:
    document = {
        "name": "tick",
        "schedule": {"every": f"{EVERY}s", "anchor": BORN.isoformat()},
        "pipeline": [{"id": "say", "uses": "debug.echo"}],
        "policy": {"catch_up": CATCH_UPS[cell.catch_up].document, "overlap": cell.overlap},
    }
    definition = parse_definition(document, created_at=BORN, known_tools=None)
    task = Task(
        TASK_ID, name="tick", status="active", definition=definition.normalised(), version=1,
        stream_version=1, created_at=BORN,
    )  # fmt: skip
    assert definition.schedule is not None
    rule = parse_schedule(definition.schedule, created_at=BORN)
    now = BORN + timedelta(seconds=OUTAGES[cell.outage])
    return decide(task, definition, rule, Due(TASK_ID, BORN, 1), now, UNFINISHED[: cell.unfinished])


def told(decision: Decision) -> list[tuple[int, str]]:
    """Each instant, in seconds after BORN, and `fired` or the reason: ranges one by one."""
    found: list[tuple[int, str]] = []
    for verdict in decision.verdicts:
        data = verdict.event.data
        first = round((verdict.at - BORN).total_seconds())
        word = "fired" if verdict.fired else data["reason"]
        assert verdict.fired or data["count"] == verdict.count
        found += [(first + n * EVERY, word) for n in range(verdict.count)]
        if not verdict.fired:
            assert datetime.fromisoformat(data["to"]) == BORN + timedelta(seconds=found[-1][0])
    return found


@pytest.mark.parametrize("cell", TABLE, ids=str)
def test_each_cell_of_the_policies_table(cell: Cell) -> None:
    verdicts, canceled = expected(cell)
    decided = decision(cell)
    assert told(decided) == verdicts
    assert list(decided.cancel) == UNFINISHED[:canceled]
