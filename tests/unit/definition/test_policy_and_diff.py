"""Waits between attempts, and what differs between two definitions."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.definition import diff_definitions
from ordinaut.domain.policy import Backoff, Retry


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [("exponential", [2, 4, 8, 16, 20]), ("linear", [2, 4, 6, 8, 10]), ("constant", [2, 2, 2, 2, 2])],
)
def test_the_wait_grows_as_the_backoff_says_up_to_its_maximum(backoff: Backoff, waits: list[int]) -> None:
    retry = Retry(5, backoff, base=2.0, max=20.0, jitter=False)
    assert [retry.delay(attempt, 0.5) for attempt in range(1, 6)] == waits


@given(
    st.sampled_from(["exponential", "linear", "constant"]),
    st.integers(1, 10_000),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1e7),
    st.floats(0.001, 1e7),
)
def test_with_jitter_the_wait_is_between_half_and_all(
    backoff: Backoff, attempt: int, random: float, base: float, most: float
) -> None:
    whole = Retry(5, backoff, base, most, jitter=False).delay(attempt, random)
    wait = Retry(5, backoff, base, most, jitter=True).delay(attempt, random)
    assert whole / 2 <= wait <= whole <= most


OLD: dict[str, Any] = {
    "title": "a",
    "params": {"x/y": 1},
    "pipeline": [{"id": "one", "if": None}, {"id": "two"}],
}


def test_equal_definitions_do_not_differ() -> None:
    assert diff_definitions(OLD, copy.deepcopy(OLD)) == []


def test_a_difference_is_told_by_its_pointer_with_both_values() -> None:
    new = {"title": "b", "params": {"x/y": True, "z": 2}, "pipeline": [{"id": "one", "if": "x"}]}
    assert diff_definitions(OLD, new) == [
        ("/title", "a", "b"),
        ("/params/x~1y", 1, True),
        ("/params/z", None, 2),
        ("/pipeline/0/if", None, "x"),
        ("/pipeline/1", {"id": "two"}, None),
    ]
