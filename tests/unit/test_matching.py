"""Stream entries: how they are read, and which tasks they start."""

import base64
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.expressions import compile_expression, compile_template
from ordinaut.domain.matching import (
    BadEntry,
    Match,
    Mismatch,
    Payload,
    Trigger,
    entry_time,
    envelope,
    match,
    parse_entry,
    payload_of,
)

storable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=10,
)


@given(storable)
def test_one_field_data_holds_json(value: Any) -> None:
    assert parse_entry({b"data": orjson.dumps(value)}) == Payload(value)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused_with_a_reason(raw: bytes) -> None:
    try:
        parse_entry({b"data": raw})
    except BadEntry as error:
        assert str(error)


def test_flat_fields_are_an_object_of_texts() -> None:
    assert parse_entry({b"id": b"7", b"amount": b"120"}) == Payload({"id": "7", "amount": "120"})
    assert parse_entry({b"data": b"1", b"more": b"2"}) == Payload({"data": "1", "more": "2"})


def test_a_cloud_event_in_data_is_opened() -> None:
    event = {"specversion": "1.0", "type": "order.made", "source": "/shop", "id": "e1"}
    raw = json.dumps({**event, "data": {"amount": 5}}).encode()
    assert parse_entry({b"data": raw}) == Payload({"amount": 5}, event)


def test_a_cloud_event_in_flat_fields_is_opened() -> None:
    fields = {b"ce_specversion": b"1.0", b"ce_type": b"order.made", b"ce_source": b"/shop"}
    event = {"specversion": "1.0", "type": "order.made", "source": "/shop"}
    assert parse_entry({**fields, b"data": b'{"amount":5}'}) == Payload({"amount": 5}, event)
    assert parse_entry({**fields, b"amount": b"5"}) == Payload({"amount": "5"}, event)
    text = {**fields, b"ce_datacontenttype": b"text/plain", b"data": b"hello"}
    assert parse_entry(text).data == "hello"


CLOUD_EVENT = {"specversion": "1.0", "type": "order.made", "source": "/shop"}


@pytest.mark.parametrize(
    ("content_type", "raw", "data"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("application/vnd.x+json; charset=utf-8", b'"text"', "text"),
        ("application/json", b"", None),
        ("text/plain", "€".encode(), "€"),
        ("text/plain; charset=iso-8859-1", b"\xe9", "6Q=="),
        ("text/plain", b"a\x00", "YQA="),
        ("application/xml", b"<a/>", "<a/>"),
        ("image/png", b"\x89PNG", "iVBORw=="),
    ],
)
def test_the_data_of_a_cloud_event_is_what_its_type_says_in_every_form(
    content_type: str, raw: bytes, data: Any
) -> None:
    event = {**CLOUD_EVENT, "datacontenttype": content_type}
    flat = {f"ce_{name}".encode(): value.encode() for name, value in event.items()}
    encoded = base64.b64encode(raw)
    expected = Payload(data, event)
    assert parse_entry({**flat, b"data": raw}) == expected
    assert parse_entry({**flat, b"data_base64": encoded}) == expected
    structured = {**event, "data_base64": encoded.decode()}
    assert parse_entry({b"data": json.dumps(structured).encode()}) == expected
    assert payload_of(structured) == expected


def test_bytes_of_a_cloud_event_of_which_nothing_is_said_stay_in_base64() -> None:
    structured = {**CLOUD_EVENT, "data_base64": "e30="}
    assert parse_entry({b"data": json.dumps(structured).encode()}) == Payload("e30=", CLOUD_EVENT)
    assert parse_entry({b"data": json.dumps({**structured, "data_base64": None}).encode()}).data is None


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"data_base64": "no base64"}, "'data_base64' is not base64"),
        ({"data_base64": 7}, "'data_base64' is not base64"),
        ({"data_base64": "e30=", "data": 1}, "both `data` and `data_base64`"),
        ({"data_base64": "ew==", "datacontenttype": "application/json"}, "'data_base64' holds is not JSON"),
        ({"data_base64": "/w==", "datacontenttype": "application/json"}, "'data_base64' holds is not UTF-8"),
        ({"data_base64": "W10=", "datacontenttype": 7}, None),
    ],
)
def test_base64_that_is_none_is_refused_in_a_stream_and_left_alone_where_it_was_accepted(
    more: dict[str, Any], told: str | None
) -> None:
    event = {**CLOUD_EVENT, **more}
    if told is None:
        assert parse_entry({b"data": json.dumps(event).encode()}).data == more["data_base64"]
        return
    with pytest.raises(BadEntry) as refused:
        parse_entry({b"data": json.dumps(event).encode()})
    assert told in str(refused.value)
    assert payload_of(event).data == event


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "no fields"),
        ({b"data": b"{oops"}, "not JSON"),
        ({b"data": b""}, "not JSON"),
        ({b"data": b'"\xff"'}, "not UTF-8"),
        ({b"name": b"\xff"}, "'name' is not UTF-8"),
        ({b"\xff": b"x"}, "a field name is not UTF-8"),
        ({b"name": b"a\x00b"}, "NUL"),
        ({b"data": b'{"a": "\\u0000"}'}, "/a: text must not contain the character NUL"),
        ({b"data": b'{"\\u0000": 1}'}, "NUL"),
        ({b"data": b"[" * 65 + b"]" * 65}, "nested too deeply"),
        ({b"data": b"[" * 200_000}, "nested too deeply"),
        ({b"data": b'{"id": 123456789012345678901234567890}'}, "/id: the integer does not fit in 64 bits"),
        ({b"data": b"NaN"}, "not JSON"),
        ({b"data": b'"' + b"x" * (1 << 20) + b'"'}, "at most 1048576"),
    ],
)
def test_a_bad_entry_is_refused_with_the_reason(fields: dict[bytes, bytes], told: str) -> None:
    with pytest.raises(BadEntry) as refused:
        parse_entry(fields)
    assert told in str(refused.value)


def test_what_only_looks_bad_is_read() -> None:
    assert parse_entry({b"data": b'"\\\\u0000"'}).data == "\\u0000"
    assert parse_entry({b"data": b'"' + b"[" * 100 + b'"'}).data == "[" * 100
    assert parse_entry({b"data": b"18446744073709551615"}).data == 2**64 - 1


def test_data_from_elsewhere_is_held_to_the_same_rules() -> None:
    assert payload_of({"specversion": "1.0", "type": "t", "source": "s", "data": 1}).data == 1
    with pytest.raises(BadEntry, match="NUL"):
        payload_of(["\x00"])


def test_the_time_of_an_entry_is_in_its_id() -> None:
    assert entry_time("1700000000123-0") == "2023-11-14T22:13:20.123+00:00"
    assert entry_time("99999999999999999999-1").startswith("9999-12-31T23:59:59.999")
    with pytest.raises(BadEntry):
        entry_time("yesterday")


def trigger(
    task: str = "t1", where: str | None = None, mapping: Any = None, stream: str = "orders"
) -> Trigger:
    return Trigger(
        task,
        "name-" + task,
        "default",
        stream,
        compile_expression(where) if where else None,
        compile_template(mapping) if mapping is not None else None,
    )


def seen(data: Any) -> dict[str, Any]:
    return envelope(Payload(data), stream="orders", entry_id="1700000000123-0")


def test_an_entry_starts_the_tasks_whose_where_is_true() -> None:
    small, big, always = (
        trigger("a", "data.amount < `100`"),
        trigger("b", "data.amount > `100`"),
        trigger("c"),
    )
    entry = seen({"amount": 120})
    assert [match(each, entry) for each in (small, big, always)] == [
        None,
        Match(big, {"amount": 120}),
        Match(always, {"amount": 120}),
    ]


def test_the_input_of_the_run_is_mapped_from_the_envelope() -> None:
    mapping = {"n": "${data.amount}", "from": "${stream} ${id}", "at": "${time}"}
    found = match(trigger(mapping=mapping), seen({"amount": 5}))
    assert isinstance(found, Match)
    assert found.input == {"n": 5, "from": "orders 1700000000123-0", "at": "2023-11-14T22:13:20.123+00:00"}


def test_a_trigger_that_fails_on_an_entry_says_why() -> None:
    bad_where, bad_input = (
        trigger("a", "length(data.x)"),
        trigger("b", mapping="n: ${data.x}"),
    )
    first, second = match(bad_where, seen({})), match(bad_input, seen({}))
    assert isinstance(first, Mismatch)
    assert "length()" in first.error
    assert isinstance(second, Mismatch)
    assert second.error == "names nothing: ${data.x}"


def test_the_attributes_of_a_cloud_event_can_be_asked_for() -> None:
    entry = envelope(Payload(1, {"type": "order.made"}), stream="orders", entry_id="1-0")
    made = trigger(where="event.type == 'order.made'")
    assert match(made, entry) == Match(made, 1)
    assert match(made, seen(1)) is None
