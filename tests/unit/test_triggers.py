"""What an event means for each task that listens, decided without any I/O."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.definition import Definition, load_definition, parse_definition
from ordinaut.domain.request import MAX_DEPTH
from ordinaut.domain.task import Task
from ordinaut.runtime.entries import Entry, dead_letter, decide
from ordinaut.runtime.listening import Listener, Listening
from ordinaut.runtime.triggers import verdicts

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
CAUSE = {"kind": "stream", "stream": "orders", "id": "1-1"}


def listener(name: str = "ship", space: str = "default", status: Any = "active", **on: Any) -> Listener:
    document = {
        "name": name,
        "on": {"stream": "orders", **on},
        "pipeline": [{"id": "a", "uses": "debug.echo"}],
    }
    definition: Definition = parse_definition(document, created_at=NOW, known_tools=None)
    state = Task(f"id-of-{name}", space, name, status, definition.normalised(), 3, 7, NOW)
    return Listener(state, definition, "orders")


def seen(data: Any) -> dict[str, Any]:
    return {"data": data, "stream": "orders", "id": "1-1", "time": "2025-06-01T12:00:00.000+00:00"}


def test_a_task_whose_where_is_not_true_gets_no_verdict() -> None:
    assert list(verdicts([listener(where="data.a")], seen({"a": False}), CAUSE, now=NOW)) == []


def test_a_matching_task_is_asked_to_run() -> None:
    (verdict,) = verdicts(
        [listener(input={"x": "${data.a}"})], seen({"a": 1}), CAUSE, now=NOW, depth=MAX_DEPTH
    )
    assert verdict.event is not None
    assert verdict.event.type == "RunRequested"
    assert verdict.event.data["input"] == {"x": 1}
    assert verdict.event.data["task_version"] == 3
    assert verdict.event.data["depth"] == MAX_DEPTH


def test_paused_snoozed_and_too_deep_are_skipped_with_the_reason() -> None:
    snoozed = listener("snoozed")
    snoozed.task.snoozed_until = NOW + timedelta(seconds=1)
    awake = listener("awake")
    awake.task.snoozed_until = NOW
    found = verdicts(
        [listener("paused", status="paused"), snoozed, awake], seen(1), CAUSE, now=NOW, depth=MAX_DEPTH + 1
    )
    reasons = [verdict.event.data["reason"] for verdict in found if verdict.event]
    assert reasons == ["paused", "snoozed", "causation_depth"]


def test_one_listener_s_error_is_its_own() -> None:
    bad = listener("bad", where="length(data) > `1`")
    # A definition from another version of the program, whose expression this one does not understand.
    document = {**bad.task.definition, "schedule": {"on": {"stream": "orders", "where": "((", "input": None}}}
    old = Listener(Task("id-of-old", name="old", status="active"), load_definition(document), "orders")
    found = list(verdicts([bad, old, listener("good")], seen(5), CAUSE, now=NOW))
    assert [(verdict.task.name, verdict.event is None) for verdict in found] == [
        ("bad", True), ("old", True), ("good", False)
    ]  # fmt: skip


def test_the_run_requires_the_task_to_be_as_it_was_when_it_was_decided() -> None:
    ((append, letter),) = decide(
        Entry("orders", "5-1", {b"data": b"1"}), Listening([listener()]), now=NOW, space="default"
    )
    assert (append.expected, append.requires, letter) == (0, {"task-id-of-ship": 7}, None)
    assert append.causation == "redis:orders/5-1"


def test_a_bad_entry_is_rejected_once_in_each_space_that_listens() -> None:
    listeners = [listener("a"), listener("b"), listener("c", space="other")]
    entry = Entry("orders", "5-1", {b"data": b"{"})
    found = decide(entry, Listening(listeners), now=NOW, space="default")
    assert [append.space for append, _ in found] == ["default", "other"]
    assert len({append.stream for append, _ in found}) == 2
    assert [append.space for append, _ in decide(entry, Listening([]), now=NOW, space="mine")] == ["mine"]


@given(st.dictionaries(st.binary(max_size=20), st.binary(max_size=2000), max_size=60))
def test_whatever_is_in_an_entry_gets_a_verdict_that_can_be_stored(fields: dict[bytes, bytes]) -> None:
    ((append, _),) = decide(Entry("orders", "5-1", fields), Listening([listener()]), now=NOW, space="default")
    (event,) = append.events
    assert event.type in ("RunRequested", "EventRejected")
    assert "\x00" not in repr(event.data)


names = st.sampled_from([b"reason", b"id", b"original:id", b"original:original:id", b"data", b"task", b"x"])


@given(st.dictionaries(names, st.binary(max_size=5)))
def test_a_dead_letter_keeps_every_field_of_the_entry(fields: dict[bytes, bytes]) -> None:
    letter = dead_letter(Entry("orders", "5-1", fields), "because", space="default", task=None)
    about = {b"reason": b"because", b"stream": b"orders", b"id": b"5-1", b"space": b"default"}
    assert about.items() <= letter.items()
    rest = {name: value for name, value in letter.items() if name not in about}
    assert {name.removeprefix(b"original:"): value for name, value in rest.items()} == fields
