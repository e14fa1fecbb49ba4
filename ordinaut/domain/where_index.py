"""Ruling triggers out by the equality conditions of their `where`, many at a time, before any is evaluated.

Of a thousand tasks that listen to one stream, each with `data.type == '…'`, an entry concerns a few. Every
trigger is filed under one condition that it needs; an entry is asked once for each path that conditions are
about, and only the triggers filed under its values, and those without a condition, are left to evaluate.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from ordinaut.domain.expressions import Expression, ExpressionError
from ordinaut.domain.jmespath_tree import Path

T = TypeVar("T")

_Key = tuple[bool, Any]
"""A value as a key: JSON's true is not its 1, though Python's is."""


class WhereIndex(Generic[T]):
    """The triggers of one stream. `where_of` gives a trigger's condition (None: it takes everything); what it
    raises makes the trigger one that is always left to evaluate, which tells the reason."""

    def __init__(self, triggers: Iterable[T], where_of: Callable[[T], Expression | None]) -> None:
        self._all = tuple(triggers)
        needed = [(trigger, _needs(trigger, where_of)) for trigger in self._all]
        # The path with the most different values leaves the fewest triggers to an entry.
        values = {condition for _, conditions in needed for condition in conditions}
        spread = Counter(path for path, _ in values)
        self._always: list[tuple[int, T]] = []
        self._by_value: dict[Path, dict[_Key, list[tuple[int, T]]]] = {}
        for number, (trigger, conditions) in enumerate(needed):
            if not conditions:
                self._always.append((number, trigger))
                continue
            path, key = max(conditions, key=lambda condition: spread[condition[0]])
            self._by_value.setdefault(path, {}).setdefault(key, []).append((number, trigger))

    def candidates(self, seen: Mapping[str, Any]) -> Sequence[T]:
        """The triggers that may hold for an entry (as its envelope), in the order they were given in. The
        `where` of every other one is false."""
        if not self._by_value:
            return self._all
        found = self._always
        for path, by_value in self._by_value.items():
            value = _value_at(path, seen)
            if isinstance(value, (list, dict)):
                continue  # equal to no text, number or null
            if filed := by_value.get((type(value) is bool, value)):
                found = found + filed
        return [trigger for _, trigger in sorted(found, key=_number)]


def _needs(trigger: T, where_of: Callable[[T], Expression | None]) -> list[tuple[Path, _Key]]:
    try:
        where = where_of(trigger)
    except (ExpressionError, ValueError):
        return []
    return [(path, (type(value) is bool, value)) for path, value in where.equalities] if where else []


def _value_at(path: Path, seen: Mapping[str, Any]) -> Any:
    value: Any = seen
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _number(filed: tuple[int, Any]) -> int:
    return filed[0]
