"""A step's `with` is held against its tool's schema when the task is defined, as far as it is known then."""

from typing import Any

import pytest

from ordinaut.domain.errors import Fault
from ordinaut.domain.expressions import compile_template
from ordinaut.domain.tool_input import ToolInput
from ordinaut.work.tools.functions import from_function
from ordinaut.work.tools.registry import BUILT_IN
from tests.unit.definition.test_secrets import faults

HTTP = {"url": "https://example.org"}


@pytest.mark.parametrize(
    ("uses", "given", "told"),
    [
        ("http.get", {}, ["/url: http.get needs 'url', which is missing"]),
        ("http.get", None, ["/url: http.get needs 'url', which is missing"]),
        (
            "http.get",
            {"ulr": "https://example.org"},
            [
                "/ulr: http.get takes no 'ulr' (did you mean 'url'?)",
                "/url: http.get needs 'url', which is missing",
            ],
        ),
        ("http.get", {"url": 7}, ["/url: must be string, not integer"]),
        ("http.get", "https://example.org", [": must be object, not string"]),
        ("http.get", {**HTTP, "follow_redirects": "yes"}, ["/follow_redirects: must be boolean, not string"]),
        ("http.get", {**HTTP, "expect_status": [200, 42]}, ["/expect_status/1: breaks minimum 100"]),
        (
            "http.post",
            {**HTTP, "headers": {"a": {}}},
            ["/headers/a: must be string or number or boolean, not obj"],
        ),
        ("log.write", {"message": "m", "level": "loud"}, ["/level: must be one of 'debug', 'info'"]),
        ("http.get", {**HTTP, "$${a": 1}, ["/$${a: http.get takes no '$${a'"]),
    ],
)
def test_what_a_tool_does_not_take_is_told_with_its_place(uses: str, given: Any, told: list[str]) -> None:
    found = [str(fault) for fault in faults(given, uses)]
    assert len(found) == len(told)
    for one, expected in zip(found, told, strict=True):
        assert one.startswith(f"/pipeline/0/with{expected}")


@pytest.mark.parametrize(
    ("uses", "given"),
    [
        ("http.get", {"url": "${params.url}"}),
        ("http.get", {"url": "ftp://${params.url}"}),
        ("http.get", "${input}"),
        ("http.get", {**HTTP, "timeout": "${input.timeout}", "headers": {"a": {"b": "${input}"}}}),
        ("http.post", {**HTTP, "json": {"$${": "$${x"}}),
        ("debug.echo", "anything"),
        ("log.write", {"message": "$${" + "x" * 9_998}),
    ],
)
def test_what_is_not_known_yet_or_is_well_is_not_judged(uses: str, given: Any) -> None:
    assert faults(given, uses) == []


async def _nothing(given: Any, ctx: Any) -> Any:
    return None


@pytest.mark.parametrize(
    ("schema", "given", "places"),
    [
        (True, 7, []),
        (False, 7, [""]),
        ({"type": "array"}, {"a": 1}, []),
        ({"properties": {"a": False}}, {"a": 1, "b": 2}, ["/a"]),
        ({"patternProperties": {"^x-": {}}, "additionalProperties": False}, {"x-a": 1, "y": 2}, ["/y"]),
        ({"allOf": [{"required": ["a"]}]}, {}, []),
        ({"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "null"}}}, {"a": 1}, ["/a"]),
        ({"properties": {"a": {"$ref": "http://127.0.0.1:9/s.json"}}}, {"a": 1}, []),
    ],
)
def test_of_any_schema_only_what_is_certain_is_judged(schema: Any, given: Any, places: list[str]) -> None:
    found = ToolInput("own.tool", schema).faults(compile_template(given), "")
    assert [fault.pointer for fault in found] == places


def test_a_function_is_a_tool_whose_arguments_are_known() -> None:
    def shout(text: str, times: int = 1) -> str:
        return text.upper() * times

    taken = ToolInput("text.shout", from_function(shout, name="text.shout").input_schema)
    assert taken.faults(compile_template({"text": "hi", "time": 2}), "/with") == [
        Fault("/with/time", "text.shout takes no 'time'", "did you mean 'times'?")
    ]


def test_the_built_in_tools_that_record_what_they_get_say_so() -> None:
    recording = {tool.name for tool in BUILT_IN if not tool.secrets}
    assert recording == {"event.publish", "stream.add", "log.write"}
