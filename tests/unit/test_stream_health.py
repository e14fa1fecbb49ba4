"""Whether entries went unread, from what Redis says of a stream and its group."""

from dataclasses import replace

import pytest

from ordinaut.runtime.stream_health import Look, gone_unread

# Ten entries were added, the first four read; nothing is gone.
LOOK = Look(
    first=(1, 0), last=(10, 0), delivered=(4, 0), length=10, added=10, read=4, waiting=6, pending=0
)  # fmt: skip
OLD = {"added": None, "read": None, "waiting": None}


@pytest.mark.parametrize(
    ("now", "gone"),
    [
        ({}, 0),
        ({"first": (4, 0), "length": 7}, 0),
        ({"first": (5, 0), "length": 6}, 0),
        ({"first": (8, 0), "length": 3}, 3),
        ({"first": None, "length": 0}, 6),
        ({"first": (3, 0), "length": 4}, 0),  # deleted in the middle, perhaps by its owner
        ({"delivered": (10, 0), "read": 10, "first": None, "length": 0}, 0),
        ({"first": (8, 0), "length": 3, "read": None}, 0),  # unknown, without a look before
    ],
)
def test_what_was_added_and_neither_read_nor_left_is_gone(now: dict[str, object], gone: int) -> None:
    assert gone_unread(replace(LOOK, **now)) == gone


@pytest.mark.parametrize(
    ("first", "last_then", "gone"),
    [((5, 0), (10, 0), 0), ((8, 0), (7, 0), 1), ((8, 0), (4, 0), 0), ((8, 0), (8, 0), 0), (None, (6, 0), 1)],
)
def test_a_redis_that_does_not_count_is_looked_at_twice(
    first: tuple[int, int] | None, last_then: tuple[int, int], gone: int
) -> None:
    before = replace(LOOK, last=last_then, **OLD)
    assert gone_unread(replace(LOOK, first=first, **OLD), before) == gone


@pytest.mark.parametrize(
    ("now", "lag"),
    [
        ({}, 6),
        (OLD, None),
        # What was trimmed unread is not waiting, though Redis counts it.
        ({"first": (8, 0), "length": 3}, 3),
        ({"first": (8, 0), "length": 3, **OLD}, 3),
        ({"first": (8, 0), "delivered": (9, 0), "length": 3, "read": 6, "waiting": 4}, 3),
        ({"first": (8, 0), "delivered": (10, 0), "length": 3, "read": 7, "waiting": 3}, 0),
        ({"first": None, "length": 0}, 0),
    ],
)
def test_only_what_is_there_is_waiting(now: dict[str, object], lag: int | None) -> None:
    assert replace(LOOK, **now).lag == lag
