"""Expressions and `${…}` templates: what they name, what they give, and what cannot break them."""

import json
from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.errors import Invalid
from ordinaut.domain.expressions import (
    MAX_EXPRESSION,
    ExpressionError,
    compile_expression,
    compile_template,
    split_template,
    truthy,
)

SCOPE: dict[str, Any] = {
    "params": {"city": "Chisinau", "n": 5, "no": False, "list": [1, 2], "nothing": None},
    "steps": {"weather": {"status": 200, "body": {"items": [{"price": 3}, {"price": 7}]}}},
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("params.city", "Chisinau"),
        ("params.missing.deeper", None),
        ("params.city.length", None),
        ("steps.weather.status == `200`", True),
        ("steps.weather.body.items[?price > `5`].price | [0]", 7),
        ("steps.weather.body.items[*].{p: price}", [{"p": 3}, {"p": 7}]),
        ("steps.weather.body.items[].price", [3, 7]),
        ("sort_by(steps.weather.body.items, &price)[-1].price", 7),
        ("params.city > `3`", None),
        ("params.n >= `5` && !(params.no)", True),
        ("to_number('nan')", None),
        ("to_number('12')", 12),
    ],
)
def test_an_expression_gives_what_jmespath_says(text: str, value: Any) -> None:
    assert compile_expression(text).evaluate(SCOPE) == value


@given(
    st.sampled_from(
        [
            "a",
            "a.b",
            "a.b[0]",
            "a[*].b",
            "a[]",
            "*",
            "a.*",
            "a || b",
            "a && b",
            "[a, b]",
            "{x: a}",
            "a[?b]",
            "a == b",
            "!a",
            "@",
            "a[0:2]",
            "keys(@)",
            "not_null(a, b)",
        ]
    ),
    st.dictionaries(
        st.sampled_from("ab"),
        st.recursive(
            st.integers(0, 3) | st.booleans() | st.none() | st.text("ab", max_size=2),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
            max_leaves=8,
        ),
    ),
)
def test_the_bounded_interpreter_agrees_with_the_library(text: str, scope: dict[str, Any]) -> None:
    assert compile_expression(text).evaluate(scope) == jmespath.search(text, scope)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("steps.x.body.y == `200`", {("steps", "x", "body", "y")}),
        ("steps.x[0].deeper", {("steps", "x")}),
        ("input.items[?price > `3`].name", {("input", "items")}),
        ("params | city", {("params", "city")}),
        ("{a: params.x, b: input}", {("params", "x"), ("input",)}),
        ("sort_by(steps.x.list, &price)", {("steps", "x", "list")}),
        ('steps."my-step".x', {("steps", "my-step", "x")}),
        ('`{"steps": 1}`', set()),
    ],
)
def test_an_expression_knows_what_it_names(text: str, names: set[tuple[str, ...]]) -> None:
    expression = compile_expression(text)
    assert expression.references == names
    assert expression.roots == {path[0] for path in names}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("params.", "column 8: the expression ends too early"),
        ("a == ", "ends too early"),
        ("a)", "column 2: ')' is not expected"),
        ("steps.my-step.x", 'steps."my-step"'),
        ("nope(a)", "no function nope()"),
        ("length()", "takes 1 argument(s), not 0"),
        ("a[::0]", "slice"),
        ("!a.b", "write !(a.b)"),
        ("`NaN`", "NaN"),
        ('`"\\u0000"`', "NUL"),
        ("x" * (MAX_EXPRESSION + 1), "longer than"),
        ("(" * 2000 + "a" + ")" * 2000, "nest"),
        ("!" * 3000 + "a", "nest"),
        ("a || " * 500 + "a", "nests deeper"),
        ("[@, @] | " * 30 + "@", "too much"),
    ],
)
def test_an_expression_that_is_wrong_is_refused_with_the_reason(text: str, told: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        compile_expression(text)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "[list, list][] | [@, @][] | [@, @][] | [@, @][] | [@, @][] | [@, @][] | [@, @][]",
        " | ".join(["to_string([@])"] * 40),
        "join(text, list[*].to_string(@))",
        "list[*].{a: @, b: [@, @], c: {d: @}}[] | [*].[@, @, @, @, @] | [*].[a, a, a]",
        "sum(text)",
        "list[?contains(text, @)]",
    ],
)
def test_a_hostile_expression_ends_in_a_value_or_an_error(text: str) -> None:
    scope = {"list": list(range(20_000)), "text": "x" * 100_000}
    try:
        value = compile_expression(text).evaluate(scope)
    except ExpressionError as error:
        assert str(error)
    else:
        assert len(json.dumps(value)) < 50_000_000


@pytest.mark.filterwarnings("ignore:deprecated string literal")
@given(st.text("ab.[]{}()*?&|!<>=`'\",:@ 01-", max_size=30))
def test_any_text_compiles_or_is_refused_and_nothing_else(text: str) -> None:
    try:
        compile_expression(text).evaluate({"a": {"b": [1, 2]}, "b": "x"})
    except ExpressionError as error:
        assert str(error)


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_jmespath_takes_nothing_and_what_is_empty_for_false(value: Any) -> None:
    assert not truthy(value)


@pytest.mark.parametrize("value", [True, 0, 0.0, "no", [0], {"a": None}])
def test_jmespath_takes_everything_else_for_true_and_zero_too(value: Any) -> None:
    assert truthy(value)


@given(json_values)
def test_a_text_that_is_one_expression_keeps_the_type_of_the_value(value: Any) -> None:
    rendered = compile_template({"x": ["${input.v}"]}).render({"input": {"v": value}})
    assert rendered == {"x": [value]}
    assert rendered["x"][0] is value


@given(json_values)
def test_within_text_a_text_stands_as_it_is_and_anything_else_as_json(value: Any) -> None:
    template = compile_template("<${v}>")
    if value is None:
        with pytest.raises(ExpressionError, match=r"names nothing: \$\{v\}"):
            template.render({"v": value})
    else:
        inner = template.render({"v": value})[1:-1]
        assert inner == value if isinstance(value, str) else json.loads(inner) == value


@given(json_values.filter(lambda value: "${" not in json.dumps(value)))
def test_what_holds_no_expression_is_given_as_it_is(value: Any) -> None:
    template = compile_template(value)
    assert template.render({}) is value
    assert template.expressions == ()


def test_parts_without_expressions_are_not_copied() -> None:
    constant = {"deep": [1, 2, 3]}
    assert compile_template({"a": constant, "b": "${x}"}).render({"x": 1})["a"] is constant


def test_an_escaped_brace_is_plain_text() -> None:
    assert compile_template(["$${x} costs $5 ${x}"]).render({"x": 1}) == ["${x} costs $5 1"]
    assert compile_template("$${x}").render({}) == "${x}"
    assert compile_template("${x}$${").render({"x": 1}) == "1${"


@pytest.mark.parametrize(
    "expression",
    ["{a: x, b: {c: x}}", "'}'", '`{"k": "}"}`', '{"}": x}', "'it\\'s }'", "x[?y == '{'] || '${'"],
)
def test_braces_within_an_expression_are_its_own(expression: str) -> None:
    assert split_template(f"a ${{{expression}}} b") == [
        (0, "a ", False),
        (2, expression, True),
        (5 + len(expression), " b", False),
    ]


plain_text = st.text("ab$ }'\"`").filter(lambda text: "${" not in text and not text.endswith("$"))


@given(
    st.lists(st.tuples(plain_text, st.sampled_from(["x", "{a: x}", "'}'", '`"{"`'])), max_size=5), plain_text
)
def test_a_template_is_split_where_it_was_put_together(pieces: list[tuple[str, str]], tail: str) -> None:
    text = "".join(f"{plain}${{{expression}}}" for plain, expression in pieces) + tail
    parts = split_template(text)
    assert [part for _, part, is_expression in parts if is_expression] == [piece[1] for piece in pieces]
    assert all(text[start:].startswith(part if not code else "${" + part) for start, part, code in parts)


@given(st.text("${}'\"`\\ a", max_size=20))
def test_escaping_makes_any_text_plain(text: str) -> None:
    # `$` before the escape would join it, so keep the two apart in what is generated.
    escaped = text.replace("$", "").replace("{", "${")
    assert compile_template(escaped.replace("${", "$${")).render({}) == escaped


def test_every_wrong_expression_of_a_template_is_named_by_its_pointer() -> None:
    with pytest.raises(Invalid) as refused:
        compile_template({"a/b": ["ok", "${x.}"], "c": "text ${", "d": "${params.x}"})
    assert [fault.pointer for fault in refused.value.faults] == ["/a~1b/1", "/c"]
    assert "never closed" in refused.value.faults[1].message


def test_the_expressions_of_a_template_are_listed_with_their_pointers() -> None:
    template = compile_template({"url": "${params.a}/${params.b}", "list": [{"x": "${input}"}]})
    assert [(pointer, one.text) for pointer, one in template.expressions] == [
        ("/url", "params.a"),
        ("/url", "params.b"),
        ("/list/0/x", "input"),
    ]


def test_a_value_nested_beyond_all_measure_is_refused_and_not_a_crash() -> None:
    value: Any = "${x}"
    for _ in range(5000):
        value = [value]
    with pytest.raises(Invalid, match="nested too deeply"):
        compile_template(value)


def test_who_changes_what_an_expression_gave_changes_nothing_for_others() -> None:
    text = "{a: `[1, 2]`}.a"
    given = compile_expression(text).evaluate({})
    given.append(3)
    assert compile_expression(text).evaluate({}) == [1, 2]
    assert compile_expression(text) is compile_expression(text), "compiled once"
