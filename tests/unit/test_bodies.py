"""Bodies are read once; twice only where a key may have been lost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.api.bodies import parse_json
from ordinaut.domain.errors import Invalid

_TEXTS = st.text('ab:"\\{}é \u2028', max_size=4)
_VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(_VALUES, st.booleans())
def test_what_has_every_key_once_is_read_as_it_is(value: Any, escaped: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=escaped).encode()) == value


@given(_TEXTS, _VALUES, _VALUES, _VALUES, st.booleans())
def test_a_key_that_stands_twice_is_refused(
    key: str, first: Any, second: Any, beside: Any, escaped: bool
) -> None:
    name, one, two, other = (
        json.dumps(each, ensure_ascii=escaped) for each in (key, first, second, [beside])
    )
    with pytest.raises(Invalid, match="stands twice"):
        parse_json(f'[{other}, {{{name}: {one}, "c": 0, {name} :{two}}}]'.encode())


@pytest.mark.parametrize(
    "text",
    [
        r'{"a": 1, "\u0061": 2}',
        r'{"a": "\u003a", "b": 1, "b": 2}',  # a colon comes in for the one that goes
        '{"a": "::", "b": {"c:": 1, "c:": 1}}',
    ],
)
def test_a_key_that_stands_twice_is_refused_however_it_is_written(text: str) -> None:
    with pytest.raises(Invalid, match="stands twice"):
        parse_json(text.encode())


@pytest.mark.parametrize("levels", [65, 254, 255, 300, 700])
def test_what_nests_too_deeply_is_refused(levels: int) -> None:
    with pytest.raises(Invalid, match="nested too deeply"):
        parse_json(b"[" * levels + b"]" * levels)
