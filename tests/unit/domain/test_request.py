"""Asking for a run: what RunRequested and OccurrenceSkipped say."""

from datetime import UTC, datetime
from typing import Any

import pytest

from ordinaut.domain.definition import Definition, parse_definition
from ordinaut.domain.events import NewEvent
from ordinaut.domain.request import request_run, skip_occurrence
from ordinaut.domain.task import Task, create, evolve
from tests.support.given import NOON, folded

STEPS = [{"id": "a", "uses": "debug.echo"}]
CAUSE = {"kind": "manual"}


def defined(space: str = "default", **more: Any) -> tuple[Task, Definition]:
    document = {"name": "backup", "pipeline": STEPS, **more}
    parsed = parse_definition(document, created_at=NOON, known_tools=None)
    created = create(Task("t-1"), "backup", parsed.normalised(), [], "", created_at=NOON)
    task = folded(Task("t-1"), evolve, created)
    task.space = space
    return task, parsed


def test_a_request_carries_what_the_run_needs_and_nothing_it_does_not() -> None:
    task, definition = defined(policy={"priority": 7, "max_attempts": 3})
    assert request_run(task, definition, CAUSE, {"n": 1}) == NewEvent(
        "RunRequested",
        {
            "task": "t-1",
            "name": "backup",
            "task_version": 1,
            "cause": CAUSE,
            "input": {"n": 1},
            "priority": 7,
            "max_attempts": 3,
            "depth": 0,
        },
    )


def test_a_request_can_be_put_off_simulated_and_deep() -> None:
    task, definition = defined()
    at = datetime(2031, 1, 1, tzinfo=UTC)
    data = request_run(task, definition, CAUSE, None, depth=3, simulate=True, run_at=at).data
    assert (data["depth"], data["simulate"], data["run_at"]) == (3, True, "2031-01-01T00:00:00+00:00")


def test_a_scheduled_request_says_which_schedule_and_when_the_next_is() -> None:
    task, definition = defined()
    data = request_run(task, definition, CAUSE, None, extra={"schedule": 0, "next": None}).data
    assert (data["schedule"], data["next"]) == (0, None)


@pytest.mark.parametrize(
    ("key", "space", "told"),
    [
        ("reports", "default", "default/reports"),
        ("${params.city}", "default", "default/Chisinau"),
        ("${input.id}", "north", "north/7"),
        ("city-${params.city}-${input.id}", "default", "default/city-Chisinau-7"),
    ],
)
def test_a_concurrency_key_is_rendered_and_belongs_to_the_space(key: str, space: str, told: str) -> None:
    task, definition = defined(
        space, params={"city": "Chisinau"}, policy={"concurrency": {"key": key, "limit": 2}}
    )
    event = request_run(task, definition, CAUSE, {"id": 7})
    assert event.data["concurrency"] == {"key": told, "limit": 2}


def test_a_run_whose_key_cannot_be_told_is_not_lost() -> None:
    task, definition = defined(policy={"concurrency": {"key": "${input.id.deep | length(@)}", "limit": 1}})
    event = request_run(task, definition, CAUSE, {"id": 7})
    assert event.data["concurrency"]["key"].startswith("default/unrenderable: ")


def test_a_skipped_occurrence_says_why() -> None:
    task, _ = defined()
    extra = {"schedule": 0, "next": None, "count": 3}
    assert skip_occurrence(task, CAUSE, "paused", extra) == NewEvent(
        "OccurrenceSkipped",
        {"task": "t-1", "name": "backup", "task_version": 1, "cause": CAUSE, "reason": "paused", **extra},
    )
