"""A task's decisions: given its events, when something is wanted, then these events follow."""

from datetime import timedelta, timezone
from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from ordinaut.domain.errors import AlreadyExists, Invalid, NotFound, NotPossible, OrdinautError
from ordinaut.domain.events import NewEvent
from ordinaut.domain.task import (
    Task,
    change,
    create,
    evolve,
    fold,
    pause,
    resume,
    retire,
    snooze,
    task_stream,
)
from tests.support.given import NOON, Given, folded, logged

PLAN = [{"at": "2030-01-02T08:00:00+00:00"}]
LATER = NOON + timedelta(hours=1)


def definition(schedule: str | None = "0 8 * * *", step: str = "a") -> dict[str, Any]:
    return {
        "title": None,
        "schedule": None if schedule is None else {"cron": schedule},
        "pipeline": [{"id": step}],
        "policy": {"overlap": "skip"},
    }


def created(version: int = 1, **more: Any) -> NewEvent:
    data = {
        "name": "backup",
        "version": version,
        "definition": definition(),
        "plan": PLAN,
        "tz": "2025b",
        "created_at": NOON.isoformat(),
    }
    return NewEvent("TaskCreated", data | more)


PAUSED = NewEvent("TaskPaused", {"name": "backup", "reason": "holidays", "until": None})
RESUMED = NewEvent("TaskResumed", {"name": "backup", "reason": None})
SNOOZED = NewEvent("TaskSnoozed", {"name": "backup", "until": LATER.isoformat(), "reason": None})
RETIRED = NewEvent("TaskRetired", {"name": "backup", "reason": None})


def given(*events: NewEvent) -> Given[Task]:
    return Given(Task("t-1"), evolve, *events)


def test_a_name_nobody_has_becomes_a_task() -> None:
    given().when(create, "backup", definition(), PLAN, "2025b", created_at=NOON).then(created())


def test_a_name_is_taken_once() -> None:
    given(created()).when(create, "backup", definition(), PLAN, "2025b", created_at=NOON).then_refused(
        AlreadyExists, "'backup' exists already; PUT /v1/tasks/backup changes it"
    )


def test_the_same_request_again_creates_nothing_and_is_not_refused() -> None:
    given(created(idempotency_key="k")).when(
        create, "backup", definition(), PLAN, "2025b", "k", created_at=NOON
    ).then()


def test_another_request_with_another_key_is_refused() -> None:
    given(created(idempotency_key="k")).when(
        create, "backup", definition(), PLAN, "2025b", "other", created_at=NOON
    ).then_refused(AlreadyExists, "exists already")


def test_a_retired_task_can_be_created_again_and_its_versions_go_on() -> None:
    given(created(), RETIRED).when(create, "backup", definition(), PLAN, "2025b", created_at=NOON).then(
        created(version=2)
    )


def test_a_task_is_as_old_as_the_instant_its_schedule_was_completed_with() -> None:
    moscow = NOON.astimezone(timezone(timedelta(hours=3)))
    (event,) = create(Task("t-1"), "backup", definition(), PLAN, "2025b", created_at=moscow)
    assert event.data["created_at"] == NOON.isoformat(), "in UTC"
    task = folded(Task("t-1"), evolve, [event])
    assert (task.created_at, task.changed_at) == (NOON, NOON), "whenever the log recorded it"


def test_a_task_is_never_younger_than_its_event() -> None:
    late = created(created_at=(NOON + timedelta(hours=1)).isoformat())
    assert folded(Task("t-1"), evolve, [late]).created_at == NOON + timedelta(seconds=1)


def test_a_task_created_again_is_neither_paused_nor_snoozed() -> None:
    task = given(created(), SNOOZED, PAUSED, RETIRED, created(version=2)).state
    assert (task.status, task.paused_reason, task.snoozed_until) == ("active", None, None)
    assert task.skip_reason(NOON) is None


def test_changing_a_pipeline_does_not_plan_anew() -> None:
    new = definition(step="b")
    given(created()).when(change, new, PLAN, "2025b").then(
        NewEvent("TaskChanged", {"name": "backup", "version": 2, "definition": new})
    )


def test_changing_a_schedule_brings_its_plan() -> None:
    new = definition("30 9 * * *")
    given(created()).when(change, new, PLAN, "2025b").then(
        NewEvent(
            "TaskChanged", {"name": "backup", "version": 2, "definition": new, "plan": PLAN, "tz": "2025b"}
        )
    )


def test_changing_to_what_it_is_changes_nothing() -> None:
    given(created()).when(change, definition(), PLAN, "2025b").then()


def test_a_paused_task_can_be_changed_and_stays_paused() -> None:
    changed = NewEvent("TaskChanged", {"name": "backup", "version": 2, "definition": definition(step="b")})
    task = given(created(), PAUSED, changed).state
    assert (task.status, task.version) == ("paused", 2)


def test_pausing_says_why() -> None:
    given(created()).when(pause, "holidays").then(PAUSED)


def test_pausing_twice_is_pausing_once() -> None:
    given(created(), PAUSED).when(pause, "holidays").then()
    given(created(), PAUSED).when(pause, None).then()


def test_resuming_ends_a_pause() -> None:
    given(created(), PAUSED).when(resume).then(RESUMED)


def test_resuming_ends_a_snooze() -> None:
    given(created(), SNOOZED).when(resume).then(RESUMED)
    assert given(created(), SNOOZED, RESUMED).state.skip_reason(NOON) is None


def test_resuming_what_runs_changes_nothing() -> None:
    given(created()).when(resume).then()


def test_snoozing_names_the_instant() -> None:
    given(created()).when(snooze, LATER, NOON, None).then(SNOOZED)


def test_snoozing_until_the_same_instant_changes_nothing() -> None:
    given(created(), SNOOZED).when(snooze, LATER, NOON, None).then()


def test_a_snooze_can_be_moved() -> None:
    until = LATER + timedelta(hours=1)
    given(created(), SNOOZED).when(snooze, until, NOON, "more").then(
        NewEvent("TaskSnoozed", {"name": "backup", "until": until.isoformat(), "reason": "more"})
    )


@pytest.mark.parametrize("until", [NOON, NOON - timedelta(seconds=1)])
def test_a_snooze_ends_ahead(until: Any) -> None:
    given(created()).when(snooze, until, NOON, None).then_refused(Invalid, "/until: .* is in the past")


def test_a_paused_task_is_not_snoozed() -> None:
    given(created(), PAUSED).when(snooze, LATER, NOON, None).then_refused(NotPossible, "resume it before")


def test_retiring_says_why() -> None:
    given(created(), PAUSED).when(retire, "gone").then(
        NewEvent("TaskRetired", {"name": "backup", "reason": "gone"})
    )


@pytest.mark.parametrize(
    ("decision", "arguments"),
    [
        (change, (definition(), PLAN, "")),
        (pause, (None,)),
        (resume, ()),
        (snooze, (LATER, NOON, None)),
        (retire, (None,)),
    ],
)
def test_nothing_can_be_done_with_a_task_that_is_not_there(decision: Any, arguments: Any) -> None:
    given().when(decision, *arguments).then_refused(NotFound, "there is no task")
    given(created(), RETIRED).when(decision, *arguments).then_refused(NotFound, "'backup' is retired")


def test_an_occurrence_is_skipped_for_the_first_reason_there_is() -> None:
    assert given(created()).state.skip_reason(NOON) is None
    assert given(created(), SNOOZED).state.skip_reason(NOON) == "snoozed"
    assert given(created(), SNOOZED, PAUSED).state.skip_reason(NOON) == "paused"
    assert given(created(), PAUSED, RETIRED).state.skip_reason(NOON) == "retired"


def test_a_snooze_is_over_at_its_instant() -> None:
    task = given(created(), SNOOZED).state
    assert task.skip_reason(LATER - timedelta(microseconds=1)) == "snoozed"
    assert task.skip_reason(LATER) is None


def test_an_event_of_something_else_is_not_folded() -> None:
    with pytest.raises(ValueError, match="RunStarted is not an event of a task"):
        folded(Task("t-1"), evolve, [NewEvent("RunStarted", {})])


def test_the_stream_is_named_after_the_task() -> None:
    assert task_stream("0001") == "task-0001"


commands = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.sampled_from("ab"), st.none() | st.sampled_from("kl")),
        st.tuples(st.just("change"), st.sampled_from("abc"), st.sampled_from(["0 8 * * *", None])),
        st.tuples(st.just("pause"), st.none(), st.none()),
        st.tuples(st.just("resume"), st.none(), st.none()),
        st.tuples(st.just("snooze"), st.integers(-5, 50), st.none()),
        st.tuples(st.just("retire"), st.none(), st.none()),
    ),
    max_size=30,
)


def decide(task: Task, command: tuple[str, Any, Any], minute: int) -> list[NewEvent]:
    now = NOON + timedelta(minutes=minute)
    match command:
        case ("create", step, key):
            return create(task, "backup", definition(step=step), PLAN, "2025b", key, created_at=now)
        case ("change", step, cron):
            return change(task, definition(cron, step), PLAN, "2025b")
        case ("pause", _, _):
            return pause(task, None)
        case ("resume", _, _):
            return resume(task)
        case ("snooze", minutes, _):
            return snooze(task, now + timedelta(minutes=minutes), now, None)
        case _:
            return retire(task, None)


@examples(commands)
def test_whatever_is_wanted_in_whatever_order_every_decision_folds(
    wanted: list[tuple[str, Any, Any]],
) -> None:
    task, events = Task("t-1"), []
    for minute, command in enumerate(wanted):
        before = task.status
        try:
            decided = decide(task, command, minute)
        except OrdinautError:
            assert command[0] == "create" or before != "active" or command[0] == "snooze"
            continue
        assert len(decided) <= 1
        for event in decided:
            events.append(logged(event, len(events) + 1))
            evolve(task, events[-1])
        if command[0] not in ("create", "snooze"):
            # Wanting the same once more changes nothing: either it is so already, or it is retired.
            try:
                assert decide(task, command, minute) == []
            except NotFound:
                assert task.status == "retired"
    assert task == fold("t-1", events)
    definitions = [event for event in events if event.type in ("TaskCreated", "TaskChanged")]
    assert [event.data["version"] for event in definitions] == list(range(1, len(definitions) + 1))
    assert task.version == len(definitions)
    assert task.stream_version == len(events)
    if definitions:
        assert task.definition == definitions[-1].data["definition"]
