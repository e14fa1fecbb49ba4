"""Jitter puts a run off, always by the same, and touches nothing else of its occurrence."""

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.clock.decide import Decision, Due, decide
from ordinaut.domain import ids
from ordinaut.domain.definition import parse_definition
from ordinaut.domain.durations import format_duration
from ordinaut.domain.schedules.catch_up import jittered
from ordinaut.domain.schedules.spec import parse_schedule
from ordinaut.domain.task import Task

START = datetime(2026, 1, 1, tzinfo=UTC)
TICK = timedelta(milliseconds=1)

TASKS = st.text(max_size=20)
INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
LENGTHS = st.timedeltas(TICK, timedelta(days=366)).map(lambda length: length // TICK * TICK)


@given(TASKS, INSTANTS, LENGTHS)
def test_a_run_is_put_off_by_less_than_the_jitter_and_never_brought_forward(
    task: str, at: datetime, jitter: timedelta
) -> None:
    assert timedelta(0) <= jittered(task, at, jitter) - at < jitter
    assert jittered(task, at, timedelta(0)) == at


@given(TASKS, INSTANTS, LENGTHS, OFFSETS)
def test_how_an_instant_is_written_does_not_change_its_jitter(
    task: str, at: datetime, jitter: timedelta, zone: timezone
) -> None:
    assert jittered(task, at.astimezone(zone), jitter) == jittered(task, at, jitter)


@given(TASKS, INSTANTS, LENGTHS)
def test_a_longer_jitter_stretches_the_wait_in_proportion(task: str, at: datetime, jitter: timedelta) -> None:
    """So that changing a task's jitter does not shuffle its runs."""
    once, twice = jittered(task, at, jitter) - at, jittered(task, at, 2 * jitter) - at
    assert 2 * once <= twice <= 2 * once + TICK


PINNED = [
    ("00000000-0000-8000-8000-000000000001", START, "0:00:33.035000"),
    ("00000000-0000-8000-8000-000000000001", START + timedelta(minutes=5), "0:03:12.485000"),
    ("00000000-0000-8000-8000-000000000002", START, "0:04:18.234000"),
]


@pytest.mark.parametrize(("task", "at", "wait"), PINNED)
def test_a_new_version_of_the_program_gives_the_same_jitter(task: str, at: datetime, wait: str) -> None:
    """Clocks of two versions run side by side while they are exchanged."""
    assert str(jittered(task, at, timedelta(minutes=5)) - at) == wait


IN_ANOTHER_PROCESS = """
import json
from datetime import UTC, datetime, timedelta
from ordinaut.domain.durations import format_duration
from ordinaut.domain.schedules.catch_up import jittered
at = datetime(2026, 1, 1, tzinfo=UTC)
print(json.dumps([jittered(f"task-{n}", at, timedelta(hours=1)).isoformat() for n in range(50)]))
"""


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_every_process_gives_the_same_jitter_whatever_its_hash_seed(seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    here = [jittered(f"task-{n}", START, timedelta(hours=1)).isoformat() for n in range(50)]
    assert json.loads(done.stdout) == here


def test_jitter_spreads_the_tasks_of_one_instant_evenly() -> None:
    """Of 6,000 runs each of 60 minutes gets about 100: within four standard deviations."""
    task_ids = [ids.task_id("default", f"task-{n}") for n in range(6000)]
    waits = [jittered(task_id, START, timedelta(hours=1)) - START for task_id in task_ids]
    buckets = Counter(wait // timedelta(minutes=1) for wait in waits)
    assert set(buckets) == set(range(60))
    assert all(60 <= number <= 140 for number in buckets.values())


def test_jitter_spreads_the_instants_of_one_task_evenly() -> None:
    task_id = ids.task_id("default", "tick")
    instants = [START + timedelta(minutes=n) for n in range(6000)]
    buckets = Counter(
        (jittered(task_id, at, timedelta(minutes=1)) - at) // timedelta(seconds=1) for at in instants
    )
    assert set(buckets) == set(range(60))
    assert all(60 <= number <= 140 for number in buckets.values())


def decided(jitter: timedelta, instants: int) -> Decision:
    """What the clock makes of the instants (every 10 s) of a minute at the most."""
    document = {
        "name": "tick",
        "schedule": {"every": "10s", "anchor": START.isoformat()},
        "pipeline": [{"id": "say", "uses": "debug.echo"}],
        "policy": {"jitter": format_duration(jitter), "overlap": "allow"},
    }
    definition = parse_definition(document, created_at=START, known_tools=None)
    task_id = ids.task_id("default", "tick")
    task = Task(
        task_id, name="tick", status="active", definition=definition.normalised(), version=1,
        stream_version=1, created_at=START,
    )  # fmt: skip
    assert definition.schedule is not None
    rule = parse_schedule(definition.schedule, created_at=START)
    now = START + timedelta(seconds=10 * (instants - 1) + 0.5)
    return decide(task, definition, rule, Due(task_id, START, 1), now)


@given(LENGTHS, st.integers(1, 6))
def test_jitter_changes_when_a_run_starts_and_nothing_else_of_its_occurrence(
    jitter: timedelta, instants: int
) -> None:
    plain, jittery = decided(timedelta(0), instants), decided(jitter, instants)
    assert jittery.next == plain.next
    assert [(each.run_id, each.at) for each in jittery.verdicts] == [
        (each.run_id, each.at) for each in plain.verdicts
    ]
    for before, after in zip(plain.verdicts, jittery.verdicts, strict=True):
        starts = datetime.fromisoformat(after.event.data["run_at"])
        assert {**before.event.data, "run_at": starts.isoformat()} == after.event.data
        assert timedelta(0) <= starts - before.at < jitter


def test_runs_that_jitter_puts_into_another_order_keep_theirs_in_the_ledger() -> None:
    decision = decided(timedelta(hours=1), 6)
    starts = [datetime.fromisoformat(verdict.event.data["run_at"]) for verdict in decision.verdicts]
    assert starts != sorted(starts)
    assert all(earlier.at < later.at for earlier, later in pairwise(decision.verdicts))
    nexts = [verdict.event.data["next"] for verdict in decision.verdicts]
    assert nexts == [(START + timedelta(seconds=10 * n)).isoformat() for n in range(1, 7)]
