"""Task definitions: what is accepted, what is refused, and how each fault is told."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.cli.yaml_source import load_documents
from ordinaut.domain.definition import MAX_BYTES, Definition, load_definition, parse_definition
from ordinaut.domain.errors import Fault, Invalid
from ordinaut.domain.policy import CatchUp
from ordinaut.domain.tool_input import tool_inputs
from ordinaut.work.tools.registry import BUILT_IN, Registry

CREATED = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
TOOLS = tool_inputs(Registry(BUILT_IN).described())
EXAMPLES = Path(__file__).parents[3] / "examples"


def parse(document: Any) -> Definition:
    return parse_definition(document, created_at=CREATED, known_tools=TOOLS)


def task(**fields: Any) -> dict[str, Any]:
    return {"name": "t", "pipeline": [{"id": "one", "uses": "debug.echo"}], **fields}


def step(**fields: Any) -> dict[str, Any]:
    return {"id": "two", "uses": "debug.echo", **fields}


def faults(document: Any) -> list[Fault]:
    with pytest.raises(Invalid) as refused:
        parse(document)
    return list(refused.value.faults)


def test_the_smallest_definition_gets_every_default() -> None:
    assert parse(task()).normalised() == {
        "title": None,
        "labels": {},
        "schedule": None,
        "params": {},
        "pipeline": [
            {
                "id": "one",
                "uses": "debug.echo",
                "with": {},
                "if": None,
                "timeout": "30s",
                "save_as": None,
                "title": None,
                "retry": {
                    "max_attempts": 1,
                    "backoff": "exponential",
                    "base": "1s",
                    "max": "1m",
                    "jitter": True,
                },
            }
        ],
        "policy": {
            "priority": 5,
            "timeout": "1h",
            "max_attempts": 5,
            "concurrency": None,
            "catch_up": "latest",
            "overlap": "skip",
            "jitter": "0s",
        },
    }


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_a_good_definition(path: Path) -> None:
    for document in load_documents(path):
        definition = parse(document.value)
        assert definition.steps
        assert definition.policy
        json.dumps(definition.normalised())


def test_a_top_level_on_is_normalised_into_the_schedule() -> None:
    on = {"stream": "orders", "where": "data.amount > `100`"}
    top, inside = parse(task(on=on)), parse(task(schedule={"on": on}))
    assert top.normalised() == inside.normalised()
    assert top.normalised()["schedule"] == {"on": {**on, "input": None}}
    assert top.on is not None
    assert top.on.where is not None
    assert top.on.where.evaluate({"data": {"amount": 120}}) is True


def test_a_schedule_is_completed_with_the_moment_of_creation() -> None:
    normal = parse(task(schedule={"every": "90m"})).normalised()
    assert normal["schedule"] == {"every": "1h30m", "timezone": "UTC", "anchor": "2026-01-05T12:00:00Z"}


def test_steps_come_compiled() -> None:
    definition = parse(
        task(
            params={"url": "x"},
            pipeline=[
                {
                    "id": "a",
                    "uses": "http.get",
                    "with": {"url": "${params.url}"},
                    "timeout": "PT1M30S",
                    "retry": {"max_attempts": 3, "base": "2s"},
                    "save_as": "page",
                },
                step(**{"if": "steps.page.status == `200`", "with": "${steps.a.body}"}),
            ],
        )
    )
    first, second = definition.steps
    assert (first.tool, first.timeout_seconds, first.names) == ("http.get", 90.0, ("a", "page"))
    assert first.with_template.render({"params": {"url": "x"}}) == {"url": "x"}
    assert (first.retry.max_attempts, first.retry.base, first.retry.max) == (3, 2.0, 60.0)
    assert second.condition is not None
    assert second.condition.evaluate({"steps": {"page": {"status": 200}}}) is True
    assert definition.steps is definition.steps


def test_policies_come_in_seconds() -> None:
    policy = parse(
        task(
            policy={
                "timeout": "5m",
                "jitter": 0,
                "catch_up": {"all": {"max": 5, "window": "1d"}},
                "concurrency": {"key": "c-${input.city}", "limit": 2},
            }
        )
    ).policy
    assert (policy.timeout, policy.jitter, policy.catch_up) == (300.0, 0.0, CatchUp("all", 5, 86400.0))
    assert policy.concurrency is not None
    assert policy.concurrency.key.render({"input": {"city": "X"}}) == "c-X"


CASES: list[tuple[dict[str, Any], str, str]] = [
    (task(name="Bad"), "/name", "lower-case letters"),
    (task(name="good\n"), "/name", "lower-case letters"),
    (task(titel="x"), "/titel", "did you mean 'title'?"),
    (task(labels={"a": 1}), "/labels/a", "text is needed"),
    (task(params=[1]), "/params", "an object is needed"),
    (task(pipeline=[]), "/pipeline", "at least one step"),
    (task(pipeline=[step(id=f"s{i}") for i in range(101)]), "/pipeline", "at most 100"),
    (task(pipeline=[5]), "/pipeline/0", "an object is needed"),
    (task(pipeline=[{"uses": "debug.echo"}]), "/pipeline/0/id", "the field 'id' is missing"),
    (task(pipeline=[step(id="a b")]), "/pipeline/0/id", "letters, digits"),
    (task(pipeline=[step(), step()]), "/pipeline/1/id", "first at /pipeline/0/id"),
    (task(pipeline=[step(), step(id="x", save_as="two")]), "/pipeline/1/save_as", "used twice"),
    (task(pipeline=[step(uses="http.gte")]), "/pipeline/0/uses", "did you mean 'http.get'?"),
    (task(pipeline=[step(uses="http")]), "/pipeline/0/uses", "such as http.get"),
    (task(pipeline=[step(timeout=5)]), "/pipeline/0/timeout", "a duration is text"),
    (task(pipeline=[step(timeout="soon")]), "/pipeline/0/timeout", "is not a duration"),
    (task(pipeline=[step(timeout="0s")]), "/pipeline/0/timeout", "more than 0"),
    (task(pipeline=[step(timeout="600d")]), "/pipeline/0/timeout", "longer than a year"),
    (task(pipeline=[step(retry={"backof": 1})]), "/pipeline/0/retry/backof", "did you mean 'backoff'?"),
    (task(pipeline=[step(retry={"max_attempts": True})]), "/pipeline/0/retry/max_attempts", "whole number"),
    (task(pipeline=[step(**{"if": "a =="})]), "/pipeline/0/if", "ends too early"),
    (task(pipeline=[step(**{"if": "${input.x}"})]), "/pipeline/0/if", "without the braces: input.x"),
    (task(pipeline=[step(**{"with": {"u": ["${x"]}})]), "/pipeline/0/with/u/0", "never closed"),
    (task(pipeline=[step(**{"with": "${inputs.a}"})]), "/pipeline/0/with", "did you mean 'input'?"),
    (task(params={"city": 1}, pipeline=[step(**{"with": "${params.ctiy}"})]), "/pipeline/0/with", "'city'"),
    (task(pipeline=[step(**{"with": "${steps.two.x}"})]), "/pipeline/0/with", "only steps before this one"),
    (task(pipeline=[step(), step(id="b", **{"with": "${steps.tow.x}"})]), "/pipeline/1/with", "'two'"),
    (task(policy={"priority": 10}), "/policy/priority", "less than or equal to 9"),
    (task(policy={"priority": "5"}), "/policy/priority", "a whole number is needed"),
    (task(policy={"overlap": "alow"}), "/policy/overlap", "'queue_one'"),
    (task(policy={"catch_up": 7}), "/policy/catch_up", "none, latest, all"),
    (task(policy={"catch_up": "some"}), "/policy/catch_up", "none, latest, all"),
    (task(policy={"catch_up": {"all": {"max": 0}}}), "/policy/catch_up/all/max", "greater than"),
    (
        task(policy={"concurrency": {"key": "${steps.a}", "limit": 1}}),
        "/policy/concurrency/key",
        "input, params",
    ),
    (task(policy={"concurrency": {"key": "x"}}), "/policy/concurrency/limit", "missing"),
    (task(schedule={"crn": "* * * * *"}), "/schedule/crn", "did you mean 'cron'?"),
    (task(schedule={"cron": "99 * * * *"}), "/schedule/cron", ""),
    (task(schedule={"every": "5s", "timezone": "Europe/Chisinu"}), "/schedule/timezone", "Europe/Chisinau"),
    (task(schedule="daily"), "/schedule", "an object is needed"),
    (task(schedule={"on": {"stream": "a"}, "timezone": "UTC"}), "/schedule/timezone", "does not go with"),
    (task(schedule={"every": "5s"}, on={"stream": "a"}), "/on", "one schedule"),
    (task(on="orders"), "/on", "an object"),
    (task(on={}), "/on/stream", "missing"),
    (task(on={"stream": "ordinaut:log"}), "/on/stream", "the system's own"),
    (task(on={"stream": "a", "where": "amount > `1`"}), "/on/where", "data, event, id, stream, time"),
    (task(on={"stream": "a", "input": {"x": "${input.x}"}}), "/on/input/x", "names nothing"),
    (task(schedule={"on": {"stream": 5}}), "/schedule/on/stream", "text is needed"),
    (task(params={"a": "\x00"}), "/params/a", "NUL"),
    (task(params={"a": float("inf")}), "/params/a", "infinite"),
    (task(params={"a": 2**70}), "/params/a", "64 bits"),
    (task(params={"a": datetime(2026, 1, 1)}), "/params/a", "not a JSON value"),
    (task(params={"a": "x" * MAX_BYTES}), "", "at most 262144"),
]


@pytest.mark.parametrize(("document", "pointer", "told"), CASES)
def test_a_fault_is_told_with_its_place_and_what_would_be_right(
    document: dict[str, Any], pointer: str, told: str
) -> None:
    found = faults(document)
    assert [fault.pointer for fault in found] == [pointer]
    assert told in str(found[0])


def test_all_faults_are_told_at_once_in_the_order_of_the_document() -> None:
    found = faults(
        {
            "nme": "x",
            "schedule": {"cron": "never"},
            "pipeline": [step(uses="a.b"), step(timeout="x", **{"with": {"a": "${params.q}", "b": "${"}})],
            "policy": {"priority": -1, "overlap": "x"},
        }
    )
    assert [fault.pointer for fault in found] == [
        "/nme",
        "/schedule/cron",
        "/pipeline/0/uses",
        "/pipeline/1/timeout",
        "/pipeline/1/id",
        "/pipeline/1/with/b",
        "/policy/priority",
        "/policy/overlap",
        "/name",
    ]


@pytest.mark.parametrize("document", [None, [], "x", 5])
def test_what_is_no_object_is_refused(document: Any) -> None:
    assert "is an object" in faults(document)[0].message


def test_a_value_nested_beyond_measure_is_refused_and_not_a_crash() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    assert "nested too deeply" in faults(task(params={"a": deep}))[0].message


def test_tools_are_not_looked_up_when_none_are_given() -> None:
    document = task(pipeline=[step(uses="own.tool")])
    assert parse_definition(document, created_at=CREATED, known_tools=None).steps[0].tool == "own.tool"


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["${x}", "5s", "debug.echo"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "uses", "with", "if", "on", "all", "key", "limit", "stream", "retry", "cron", "max"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
fields = st.sampled_from(
    ["name", "title", "labels", "schedule", "on", "params", "pipeline", "policy", "more"]
)


@given(st.dictionaries(fields, anything))
def test_whatever_is_sent_is_accepted_or_refused_with_faults(document: dict[str, Any]) -> None:
    try:
        parse(document)
    except Invalid as invalid:
        assert invalid.faults


durations = st.sampled_from(["5s", "90s", "PT1H", "2h", "0.5s", "1d"])
steps = st.builds(
    lambda retry, timeout, with_, condition, title: {
        "uses": "debug.echo",
        "retry": retry,
        "timeout": timeout,
        "with": with_,
        "if": condition,
        "title": title,
    },
    st.none()
    | st.fixed_dictionaries(
        {},
        optional={
            "max_attempts": st.integers(1, 100),
            "base": durations,
            "max": durations,
            "jitter": st.booleans(),
            "backoff": st.sampled_from(["linear", "constant"]),
        },
    ),
    durations,
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.just({"a": ["${params.p}", "$${x}"]}),
    st.none() | st.just("input.x"),
    st.none() | st.text("ab"),
)
policies = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.integers(0, 9),
        "timeout": durations,
        "jitter": durations | st.just("0") | st.just(0),
        "overlap": st.sampled_from(["skip", "queue_one", "queue_all", "cancel_running", "allow"]),
        "catch_up": st.sampled_from(
            ["none", "latest", "all", {"all": {}}, {"all": {"max": 3, "window": "PT1H"}}]
        ),
        "concurrency": st.none() | st.just({"key": "${params.p}", "limit": 3}),
    },
)
schedules = st.sampled_from(
    [
        None,
        {"cron": "*/5 * * * *"},
        {"every": "90m"},
        {"once": "2027-01-01T00:00:00Z"},
        {"rrule": "FREQ=WEEKLY;BYDAY=MO", "timezone": "Europe/Chisinau"},
        {"on": {"stream": "s"}},
        {"on": {"stream": "s", "where": "data.x", "input": {"y": "${data.y}"}}},
    ]
)


@given(st.lists(steps, min_size=1, max_size=3), st.none() | policies, schedules)
def test_normalising_what_is_normalised_changes_nothing(
    pipeline: list[dict[str, Any]], policy: dict[str, Any] | None, schedule: dict[str, Any] | None
) -> None:
    named = [{"id": f"s{index}", **one} for index, one in enumerate(pipeline)]
    first = parse(task(pipeline=named, policy=policy, schedule=schedule, params={"p": 1}))
    normal = json.loads(json.dumps(first.normalised()))
    later = datetime(2030, 1, 1, tzinfo=UTC)
    again = parse_definition({"name": "t", **normal}, created_at=later, known_tools=TOOLS)
    assert again.normalised() == normal == first.normalised()
    loaded = load_definition(normal, "t")
    assert (loaded.policy, len(loaded.steps)) == (first.policy, len(first.steps))
    assert [one.with_template.expressions for one in loaded.steps] == [
        one.with_template.expressions for one in first.steps
    ]
