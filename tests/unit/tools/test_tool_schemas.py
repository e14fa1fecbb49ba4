"""What a tool takes and gives is checked, and a fault names its place."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.schema_faults import pointer_to
from ordinaut.work.tools.base import Tool
from ordinaut.work.tools.errors import ToolError, ToolFault
from ordinaut.work.tools.registry import BUILT_IN
from ordinaut.work.tools.samples import sample_of

TOOLS = {tool.name: tool for tool in BUILT_IN}


async def _nothing(given: Any, ctx: Any) -> Any:
    return None


def tool_taking(schema: Any) -> Tool:
    return Tool("test.takes", "", schema, {}, _nothing)


def fault(name: str, value: Any) -> ToolFault:
    with pytest.raises(ToolFault) as caught:
        TOOLS[name].validate_input(value)
    assert caught.value.retryable is False
    return caught.value


@pytest.mark.parametrize(
    ("name", "value", "pointer", "told"),
    [
        ("http.get", {}, "/url", "is missing"),
        ("http.get", [], "", "must be object, not array"),
        ("http.get", {"url": 7}, "/url", "must be string, not integer"),
        ("http.get", {"url": "ftp://x"}, "/url", "an absolute http or https URL"),
        ("http.get", {"url": "http://x", "json": {}}, "/json", "known: expect_status"),
        ("http.get", {"url": "http://x", "headers": {"a b": "c"}}, "/headers", "letters, digits and hyphens"),
        ("http.get", {"url": "http://x", "headers": {"a": "c\r\nd: e"}}, "/headers/a", "one line"),
        ("http.get", {"url": "http://x", "headers": {"a": "c\n"}}, "/headers/a", "one line"),
        ("http.get", {"url": "http://x", "headers": {"a\n": "c"}}, "/headers", "letters, digits and hyphens"),
        ("http.get", {"url": "http://x", "query": {"a": [{}]}}, "/query/a", "a list of these"),
        ("http.get", {"url": "http://x", "timeout": 0}, "/timeout", "breaks exclusiveMinimum 0"),
        ("http.get", {"url": "http://x", "expect_status": [42]}, "/expect_status/0", "breaks minimum 100"),
        ("http.post", {"url": "http://x", "json": 1, "body": "x"}, "", "not both"),
        ("http.request", {"url": "http://x", "method": "TRACE"}, "/method", "must be one of 'GET'"),
        ("event.publish", {"data": 1}, "/stream", "is missing"),
        ("stream.add", {"stream": "s"}, "", "give either data or fields"),
        ("stream.add", {"stream": "s", "data": 1, "fields": {"a": 1}}, "", "give either data or fields"),
        ("stream.add", {"stream": "ordinaut:log", "data": 1}, "/stream", "Ordinaut's own"),
        ("stream.add", {"stream": "s", "fields": {"ordinaut-key": "x"}}, "/fields", "reserved"),
        ("stream.add", {"stream": "s", "fields": {"a": {}}}, "/fields/a", "not object"),
        ("log.write", {"message": "x", "level": "loud"}, "/level", "must be one of 'debug'"),
    ],
)
def test_a_wrong_input_is_told_with_its_place(name: str, value: Any, pointer: str, told: str) -> None:
    error = fault(name, value)
    assert error.pointer == pointer
    assert told in error.message


def test_a_fault_never_repeats_the_value() -> None:
    error = fault("http.get", {"url": "http://x", "headers": {"authorization": ["Bearer hunter2"]}})
    assert "hunter2" not in str(error.as_json())
    assert error.pointer == "/headers/authorization"


def test_a_schema_that_accepts_everything_checks_nothing() -> None:
    accepting: list[Any] = [{}, True]
    for schema in accepting:
        tool = tool_taking(schema)
        assert tool._check_input is None
        tool.validate_input(object())


def test_a_schema_of_false_accepts_nothing() -> None:
    with pytest.raises(ToolFault, match="nothing is allowed"):
        tool_taking(False).validate_input({})


def test_a_bad_schema_is_refused_when_the_tool_is_made() -> None:
    with pytest.raises(ValueError, match="not a JSON Schema"):
        tool_taking({"type": "strnig"})


@pytest.mark.parametrize("name", ["echo", "Debug.echo", "debug.", "a.b.c", "debug.echo\n"])
def test_a_name_that_is_not_tool_dot_operation_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"tool\.operation"):
        Tool(name, "", {}, {}, _nothing)


def test_a_reference_to_elsewhere_is_not_fetched() -> None:
    with pytest.raises(ToolFault, match="refers to"):
        tool_taking({"$ref": "http://127.0.0.1:9/schema.json"}).validate_input({})


@pytest.mark.parametrize("tool", BUILT_IN, ids=lambda tool: tool.name)
def test_every_sample_is_what_its_tool_promises(tool: Tool) -> None:
    tool.validate_output(tool.sample_output)
    assert tool.description


@given(st.lists(st.text() | st.integers(0, 9)))
def test_a_pointer_leads_back_to_its_path(path: list[str | int]) -> None:
    parts = pointer_to(path).split("/")[1:]
    assert [part.replace("~1", "/").replace("~0", "~") for part in parts] == [str(part) for part in path]


@given(st.text(st.characters()))
def test_an_error_can_always_be_stored(text: str) -> None:
    message = ToolError(text, retryable=True).message
    assert "\0" not in message
    assert message.encode().decode() == message


def test_a_sample_follows_references_defaults_and_required_members() -> None:
    schema = {
        "$defs": {"Place": {"type": "object", "properties": {"at": {"default": 5}}, "required": ["at"]}},
        "type": "object",
        "properties": {
            "place": {"$ref": "#/$defs/Place"},
            "kind": {"enum": ["a", "b"]},
            "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
            "left_out": {"type": "string"},
            "maybe": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        },
        "required": ["place", "kind", "pair", "maybe"],
    }
    assert sample_of(schema) == {"place": {"at": 5}, "kind": "a", "pair": [0, ""], "maybe": 0.0}


def test_a_sample_of_a_schema_that_holds_itself_ends() -> None:
    sample = sample_of({"type": "object", "properties": {"me": {"$ref": "#"}}, "required": ["me"]})
    assert set(sample) == {"me"}
