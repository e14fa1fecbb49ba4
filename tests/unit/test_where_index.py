"""Ruling tasks out by their equality conditions never rules out one that an entry concerns."""

from typing import Any

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jmespath import exceptions

from ordinaut.domain.bounded_jmespath import BoundedInterpreter
from ordinaut.domain.expressions import ExpressionError, compile_expression, truthy
from ordinaut.domain.where_index import WhereIndex
from ordinaut.runtime.listening import is_pattern, matches

literals = st.sampled_from(
    ["'a'", "'b'", "`1`", "`1.0`", "`true`", "`false`", "`null`", "`0`", "`[1]`", '`"1"`']
)
paths = st.sampled_from(["data.x", "data.y", "data.y.z", "data", "stream", "x.data"])
conditions = (
    st.builds("{} == {}".format, paths, literals)
    | st.builds("{1} == {0}".format, paths, literals)
    | st.builds("{} {} `1`".format, paths, st.sampled_from(["!=", ">", "<="]))
    | st.sampled_from(
        [
            "length(data.x) > `1`",
            "!(data.x)",
            "data.x",
            "data.x == data.y",
            "contains(stream, 'a')",
            "data[0].x",
        ]
    )
)
wheres = st.recursive(
    conditions,
    lambda inner: st.builds("{} && {}".format, inner, inner) | st.builds("({} || {})".format, inner, inner),
    max_leaves=4,
)
values = st.sampled_from(["a", "b", 1, 1.0, 0, True, False, None, [1], [], {}, {"z": "a"}, {"z": 1}, "1"])
entries = st.fixed_dictionaries({"stream": st.sampled_from(["a", "orders"])}) | st.fixed_dictionaries(
    {"stream": st.just("a"), "data": values | st.dictionaries(st.sampled_from(["x", "y"]), values)}
)


def concerned(where: str | None, seen: dict[str, Any]) -> bool:
    """Whether an entry has a verdict for the task: it matches, or the condition fails on it."""
    try:
        return where is None or truthy(compile_expression(where).evaluate(seen))
    except ExpressionError:
        return True


@settings(max_examples=800)
@given(wheres, entries)
def test_a_condition_gives_what_the_interpreter_gives(text: str, seen: dict[str, Any]) -> None:
    try:
        expected = BoundedInterpreter().visit(jmespath.compile(text).parsed, seen)
    except exceptions.JMESPathError:
        return  # such a condition is left to the interpreter
    found = compile_expression(text).evaluate(seen)
    assert (type(found), found) == (type(expected), expected)


@settings(max_examples=400)
@given(st.lists(wheres | st.none(), max_size=12), entries)
def test_what_is_ruled_out_is_false_and_what_is_left_keeps_its_order(
    texts: list[str | None], seen: dict[str, Any]
) -> None:
    numbered = list(enumerate(texts))
    index = WhereIndex(numbered, lambda one: None if one[1] is None else compile_expression(one[1]))
    found = list(index.candidates(seen))
    assert found == sorted(found)
    assert {one for one in numbered if concerned(one[1], seen)} <= set(found)


def test_of_a_thousand_tasks_that_each_want_one_type_an_entry_meets_its_own_few() -> None:
    texts = [
        f"data.kind == 'order' && data.type == 'type-{n % 100}' && data.amount > `{n}`" for n in range(1000)
    ]
    index = WhereIndex([*texts, "data.urgent"], compile_expression)
    seen = {"data": {"kind": "order", "type": "type-7", "amount": 500}}
    assert list(index.candidates(seen)) == [*texts[7::100], "data.urgent"]


@pytest.mark.parametrize(
    ("where", "known"),
    [
        ("data.a == 'x' && length(data.b) > `1`", 1),
        ("length(data.b) > `1` && data.a == 'x'", 0),
        ("data.a == 'x' || data.b == 'y'", 0),
        ("!(data.a == 'x')", 0),
        ("data.a == 'x' && (data.b > `1` && 'y' == data.c)", 2),
        ("data.a == `[1]`", 0),
    ],
)
def test_only_conditions_that_come_before_anything_that_can_fail_rule_a_task_out(
    where: str, known: int
) -> None:
    assert len(compile_expression(where).equalities) == known


patterns = st.text(st.sampled_from("ab*?[\\."), max_size=8).filter(is_pattern)


@settings(max_examples=500)
@given(patterns, st.text(st.sampled_from("ab?[\\."), max_size=8))
def test_a_star_stands_for_any_characters_and_every_other_character_for_itself(
    pattern: str, name: str
) -> None:
    def plain(pattern: str, name: str) -> bool:
        if not pattern or not name:
            return pattern.strip("*") == "" and name == ""
        if pattern[0] == "*":
            return plain(pattern[1:], name) or plain(pattern, name[1:])
        return pattern[0] == name[0] and plain(pattern[1:], name[1:])

    assert matches(pattern, name) == plain(pattern, name)
