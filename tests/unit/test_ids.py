"""Ids follow from what they stand for: the same for all who compute them, in the order of time (I7)."""

import uuid
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import example, given
from hypothesis import strategies as st

from ordinaut.domain import ids

milliseconds = st.integers(0, 2**48 - 1)
texts = st.text(max_size=20)
parts = st.lists(texts, min_size=1, max_size=4)
instants = st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))

GOLDEN = {
    "task": "2c212831-6b0b-8dfa-bbcc-7c5781710e88",
    "scheduled": "01c03970-2740-8f45-93fa-199f11150c8e",
    "entry": "018bcfe5-6800-87b2-a6d1-a2d51932e4bc",
    "keyed": "018bcfe5-6800-8566-b3f8-46a7f1600b8d",
}


def as_uuid(text: str) -> uuid.UUID:
    found = uuid.UUID(text)
    assert str(found) == text
    assert found.version == 8
    assert found.variant == uuid.RFC_4122
    return found


@given(milliseconds, parts)
def test_a_causes_id_is_a_uuid_of_version_8_that_begins_with_its_time(ms: int, cause: list[str]) -> None:
    assert as_uuid(ids.cause_id(ms, *cause)).int >> 80 == ms


@given(milliseconds, milliseconds, parts, parts)
def test_ids_sort_by_time_as_text_too(one: int, other: int, cause: list[str], effect: list[str]) -> None:
    if one < other:
        assert ids.cause_id(one, *cause) < ids.cause_id(other, *effect)


@given(milliseconds, parts, parts)
def test_the_same_cause_has_the_same_id_and_another_has_another(
    ms: int, one: list[str], other: list[str]
) -> None:
    assert (ids.cause_id(ms, *one) == ids.cause_id(ms, *other)) == (one == other)


@given(texts, texts, st.integers(1, 5))
def test_where_one_part_ends_and_the_next_begins_matters(first: str, second: str, cut: int) -> None:
    moved = (first + second[:cut], second[cut:])
    assert (ids.task_id(first, second) == ids.task_id(*moved)) == ((first, second) == moved)


def test_ids_never_change() -> None:
    """They are in every log there is; another algorithm would fire every occurrence once more."""
    task = ids.task_id("default", "morning-briefing")
    at = datetime(2031, 1, 2, 8, 30, tzinfo=UTC)
    assert {
        "task": task,
        "scheduled": ids.scheduled_run_id(task, at),
        "entry": ids.entry_run_id("default", "orders", "1700000000000-3", task),
        "keyed": ids.keyed_id(1_700_000_000_000, "default", "key"),
    } == GOLDEN


@given(instants, st.integers(-12, 12))
def test_an_instant_has_one_run_whatever_its_offset_is(at: datetime, hours: int) -> None:
    elsewhere = at.astimezone(timezone(timedelta(hours=hours)))
    assert ids.scheduled_run_id("t", at) == ids.scheduled_run_id("t", elsewhere)


@given(instants)
def test_two_instants_of_a_schedule_have_two_runs(at: datetime) -> None:
    assert ids.scheduled_run_id("t", at) != ids.scheduled_run_id("t", at + timedelta(seconds=1))


@given(milliseconds, st.integers(0, 9), texts, texts)
def test_an_entry_gives_each_task_in_each_space_a_run_of_its_own(
    ms: int, seq: int, one: str, other: str
) -> None:
    entry = f"{ms}-{seq}"
    first = ids.entry_run_id("space", "orders", entry, one)
    assert as_uuid(first).int >> 80 == ms
    assert (first == ids.entry_run_id("space", "orders", entry, other)) == (one == other)
    assert first != ids.entry_run_id("space", "orders", f"{ms}-{seq + 1}", one)
    assert first != ids.entry_run_id("another", "orders", entry, one)


@given(st.text(max_size=20))
@example("²-0")  # a digit, but no number
def test_whatever_an_entrys_id_looks_like_there_is_a_run_id(entry: str) -> None:
    as_uuid(ids.entry_run_id("space", "orders", entry, "task"))


def test_fresh_ids_differ() -> None:
    fresh = {ids.new_id() for _ in range(1000)}
    assert len(fresh) == 1000
    for one in fresh:
        as_uuid(one)
