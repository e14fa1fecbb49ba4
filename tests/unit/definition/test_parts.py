"""`on` of a task that waits for several events: what is kept of it, and what is wrong with it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from ordinaut.domain.definition import parse_definition
from ordinaut.domain.errors import Invalid
from ordinaut.domain.trigger import sources_of


def parsed(on: dict[str, Any]) -> Any:
    document = {"name": "t", "on": on, "pipeline": [{"id": "say", "uses": "debug.echo"}]}
    return parse_definition(document, created_at=datetime.now(UTC), known_tools=None)


@pytest.mark.parametrize(
    ("key", "instead"),
    [("data.id", "${data.id}"), ("orders of all", "${data.id}"), ("nothing.id", "${data.id}")],
)
def test_a_key_that_is_the_same_for_every_event_is_refused(key: str, instead: str) -> None:
    with pytest.raises(Invalid) as told:
        parsed({"stream": "orders", "key": key, "batch": {"time": "1s"}})
    (fault,) = told.value.faults
    assert (fault.pointer, fault.message) == ("/on/key", f"{key!r} is the same for every event")
    assert f"`{instead}`" in str(fault.hint)


TIME = {"within": "1m"}
A, B = {"name": "a"}, {"name": "b", "event": "RunFailed"}


@pytest.mark.parametrize(
    ("on", "pointer", "told"),
    [
        ({"sequence": {"within": "1m", "events": [A, B]}}, "/on/sequence/events/0", "stream: orders"),
        ({"stream": "s", "sequence": {"within": "1m", "events": [A]}}, "/on/sequence/events", "at least 2"),
        (
            {"stream": "s", "all_of": {"within": "1m", "events": [A, A]}},
            "/on/all_of/events/1/name",
            "used twice",
        ),
        ({"stream": "s", "all_of": {"events": [A, B]}}, "/on/all_of/within", "missing"),
        ({"stream": "s", "where": "data", "all_of": {}}, "/on/where", "in the parts of `all_of`"),
        ({"stream": "s", "input": 1, "absent": {}}, "/on/absent/after", "missing"),
        (
            {"stream": "s", "absent": TIME | {"after": {}, "expectd": {}}},
            "/on/absent/expectd",
            "expected",
        ),
        ({"absent": TIME | {"after": {}}}, "/on/absent/after", "a stream or an event is missing"),
        (
            {"absent": TIME | {"after": {"stream": "s", "event": "RunFailed"}}},
            "/on/absent/after/event",
            "`stream`",
        ),
        ({"absent": TIME | {"after": {"event": "RunFaild"}}}, "/on/absent/after/event", "RunFailed"),
        ({"absent": TIME | {"after": {"stream": "ordinaut:x"}}}, "/on/absent/after/stream", "own"),
        (
            {"stream": "s", "absent": TIME | {"after": {"where": "datas.x"}}},
            "/on/absent/after/where",
            "data",
        ),
        ({"stream": "s", "batch": {"time": "1s"}, "absent": {}}, "/on/absent", "does not go with 'batch'"),
        ({"stream": "s", "sequence": 7}, "/on/sequence", "object"),
        ({"stream": "s", "sequence": {"within": "1m", "events": 7}}, "/on/sequence/events", "list"),
        ({"stream": "s", "sequence": {"within": "1m", "events": [A, 7]}}, "/on/sequence/events/1", "object"),
    ],
)
def test_wrong_parts_are_told_with_their_place(on: dict[str, Any], pointer: str, told: str) -> None:
    with pytest.raises(Invalid) as caught:
        parsed(on)
    faults: Sequence[Any] = caught.value.faults
    assert any(fault.pointer == pointer and told in f"{fault.message} {fault.hint}" for fault in faults), (
        faults
    )


def test_a_part_that_names_no_source_has_that_of_the_whole_and_is_kept_so() -> None:
    definition = parsed({"stream": "s", "key": "${data.k}", "sequence": {"within": "60s", "events": [A, B]}})
    kept = definition.normalised()["schedule"]["on"]
    assert kept == {
        "key": "${data.k}",
        "sequence": {"within": "1m", "lateness": "0s", "events": [
            {"name": "a", "stream": "s", "where": None, "input": None},
            {"name": "b", "event": "RunFailed", "where": None, "input": None},
        ]},
    }  # fmt: skip
    assert sources_of(kept) == {"a": "s", "b": "ordinaut:log/RunFailed"}
    again = parsed(kept)
    assert again.normalised() == definition.normalised()
    assert definition.on.parts["b"].key is not None, "the key of the whole"


def test_an_absent_event_is_another_like_the_first_unless_it_is_named() -> None:
    kept = parsed({"absent": TIME | {"after": {"stream": "s", "where": "data"}}}).normalised()
    absent = kept["schedule"]["on"]["absent"]
    assert absent["expected"] == absent["after"] == {"stream": "s", "where": "data", "input": None}
