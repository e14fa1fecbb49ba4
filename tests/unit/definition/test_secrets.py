"""Secrets in definitions (I11): named where they are needed, and written nowhere."""

from datetime import UTC, datetime
from typing import Any

import pytest

from ordinaut.domain.definition import parse_definition
from ordinaut.domain.errors import Fault, Invalid
from ordinaut.domain.tool_input import tool_inputs
from ordinaut.work.tools.registry import BUILT_IN, Registry

TOOLS = tool_inputs(Registry(BUILT_IN).described())


def faults(given: Any = None, uses: str = "debug.echo", **fields: Any) -> list[Fault]:
    """What is wrong with a task of one step."""
    step = {"id": "one", "uses": uses, "with": given, **fields.pop("step", {})}
    document = {"name": "t", "pipeline": [step], "params": {"url": "u"}, **fields}
    try:
        parse_definition(document, created_at=datetime(2026, 1, 5, tzinfo=UTC), known_tools=TOOLS)
    except Invalid as invalid:
        return list(invalid.faults)
    return []


def test_a_step_knows_the_places_where_it_names_secrets() -> None:
    step = {
        "id": "one",
        "uses": "http.get",
        "with": {"url": "http://x", "headers": {"A/B": 'Bearer ${secrets."my-key"} ${ secrets.other }'}},
    }
    document = {"name": "t", "pipeline": [step]}
    parsed = parse_definition(document, created_at=datetime(2026, 1, 5, tzinfo=UTC), known_tools=None)
    assert parsed.steps[0].secrets == (("/headers/A~1B", "my-key"), ("/headers/A~1B", "other"))


@pytest.mark.parametrize(
    "fields",
    [
        {"step": {"if": "secrets.key == 'x'"}},
        {"schedule": {"on": {"stream": "s", "where": "secrets.key"}}},
        {"on": {"stream": "s", "input": {"key": "${secrets.key}"}}},
        {"policy": {"concurrency": {"key": "${secrets.key}", "limit": 1}}},
    ],
    ids=["if", "where", "on.input", "concurrency.key"],
)
def test_i11_a_secret_can_be_named_in_a_with_only(fields: dict[str, Any]) -> None:
    (fault,) = faults(**fields)
    assert fault.message == "a secret can be named in a step's `with` only"


@pytest.mark.parametrize(
    "text",
    [
        "${secrets}",
        "${secrets.a.b}",
        "${reverse(secrets.a)}",
        "${secrets.a || input.b}",
        "${[secrets.a, secrets.b]}",
        "${length(values(secrets))}",
        '${secrets."../a"}',
        '${secrets."a.b"}',
        '${secrets.""}',
        '${secrets."-a"}',
    ],
)
def test_a_secret_stands_alone_and_has_a_plain_name(text: str) -> None:
    (fault,) = faults({"a": text})
    assert fault.pointer == "/pipeline/0/with/a"


def test_what_takes_all_there_is_does_not_go_with_secrets() -> None:
    assert faults({"a": "${to_string(@)}"}) == []
    (fault,) = faults({"a": "${to_string(@)}", "b": "${secrets.key}"})
    assert fault.pointer == "/pipeline/0/with/a" and "`@`" in fault.message


@pytest.mark.parametrize("tool", ["event.publish", "stream.add"])
def test_a_tool_that_records_what_it_gets_may_not_be_given_a_secret(tool: str) -> None:
    (fault,) = faults({"stream": "s", "data": {"key": "${secrets.key}"}}, tool)
    assert fault.pointer == "/pipeline/0/with/data/key" and "recorded" in fault.message


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"headers": {"Authorization": "Bearer abc"}}, "/headers/Authorization"),
        ({"headers": {"x-api-key": "abc"}}, "/headers/x-api-key"),
        ({"Cookie": "a=b"}, "/Cookie"),
        ({"list": [{"password": 1234}]}, "/list/0/password"),
        ({"credentials": {"user": "ana"}}, "/credentials/user"),
        ({"token": "${'abc'}"}, "/token"),
        ({"token": "$${secrets.a}"}, "/token"),
        ({"url": "https://ana:abc@example.org/"}, "/url"),
        ({"url": "https://abc@example.org/"}, "/url"),
        ({"url": "postgresql://${input.user}:abc@db/x", "dsn": "redis://:abc@db"}, "/dsn"),
        ({"url": "https://example.org/?n=1&api_key=abc"}, "/url"),
    ],
)
def test_i11_a_secret_written_into_a_task_is_refused(given: dict[str, Any], place: str) -> None:
    assert Fault(
        f"/pipeline/0/with{place}",
        "a secret must not be written into a task",
        "write ${secrets.NAME} and set ORDINAUT_SECRET_NAME for the workers",
    ) in faults(given)
    assert "abc" not in str(faults(given))


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"params": {"token": "abc"}}, "/params/token"),
        ({"params": {"url": "https://ana:abc@example.org"}}, "/params/url"),
        ({"params": {"token": "${secrets.a}"}}, "/params/token"),
        ({"on": {"stream": "s", "input": {"password": "abc"}}}, "/on/input/password"),
        ({"schedule": {"on": {"stream": "s", "input": {"secret": "abc"}}}}, "/schedule/on/input/secret"),
    ],
)
def test_i11_nor_may_it_stand_in_params_or_the_input(fields: dict[str, Any], place: str) -> None:
    (fault,) = faults(**fields)
    assert (fault.pointer, fault.message) == (place, "a secret must not be written into a task")


@pytest.mark.parametrize(
    "given",
    [
        {"headers": {"Authorization": "Bearer ${secrets.a}"}},
        {"password": "${input.password}", "token": "${params.url}"},
        {"token": None, "password": "", "secret": False},
        {"max_tokens": 100, "key": "abc"},
        {"url": "https://${secrets.user}:${secrets.word}@example.org/?token=${secrets.a}"},
        {"url": "ssh://git@example.org/x", "see": "https://example.org/@ana?n=1"},
    ],
)
def test_what_is_no_literal_secret_is_accepted(given: dict[str, Any]) -> None:
    assert faults(given) == []
