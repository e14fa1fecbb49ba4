"""Conditions without the interpreter: paths, comparisons and what joins them, as Python functions.

Nearly every `where` and `if` is made of nothing else. What they give is what the interpreter would
(bounded_jmespath); a property test holds the two against each other. There is nothing here to bound: a
condition looks at each of its own parts once.
"""

from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Any

from ordinaut.domain.jmespath_tree import Node, Path, plain_path

Evaluate = Callable[[Mapping[str, Any]], Any]

_ORDERINGS = {"lt": lt, "lte": le, "gt": gt, "gte": ge}


def quick(tree: Node) -> Evaluate | None:
    """The function that evaluates the expression; None when it needs the interpreter."""
    path = plain_path(tree)
    if path is not None:
        return _path(path)
    kind, children = tree["type"], tree["children"]
    if kind == "literal":
        value = tree["value"]
        return None if isinstance(value, list | dict) else lambda scope: value
    if kind not in ("comparator", "and_expression", "or_expression", "not_expression"):
        return None
    parts = [quick(child) for child in children]
    first, second = parts[0], parts[-1]
    if first is None or second is None:
        return None
    if kind == "comparator":
        return _comparison(tree["value"], first, second)
    if kind == "not_expression":
        return lambda scope: is_false(first(scope))
    if kind == "and_expression":
        return lambda scope: value if is_false(value := first(scope)) else second(scope)
    return lambda scope: second(scope) if is_false(value := first(scope)) else value


def is_false(value: Any) -> bool:
    """Whether JMESPath takes `value` for false: false, null and the empty text, list and object. The number 0
    is true, as its specification says."""
    return value is None or value is False or (not value and isinstance(value, str | list | dict))


def _path(path: Path) -> Evaluate:
    if len(path) == 2:
        root, name = path

        def member(scope: Mapping[str, Any]) -> Any:
            value = scope.get(root)
            return value.get(name) if isinstance(value, dict | Mapping) else None

        return member

    def walk(scope: Mapping[str, Any]) -> Any:
        value: Any = scope
        for name in path:
            if not isinstance(value, dict | Mapping):
                return None
            value = value.get(name)
        return value

    return walk


def _comparison(operator: str, first: Evaluate, second: Evaluate) -> Evaluate | None:
    if operator == "eq":
        return lambda scope: _equal(first(scope), second(scope))
    if operator == "ne":
        return lambda scope: not _equal(first(scope), second(scope))
    compare = _ORDERINGS[operator]

    def ordered(scope: Mapping[str, Any]) -> bool | None:
        left, right = first(scope), second(scope)
        if (_is_number(left) and _is_number(right)) or (isinstance(left, str) and isinstance(right, str)):
            return bool(compare(left, right))
        return None

    return ordered


def _equal(left: Any, right: Any) -> bool:
    # Python's True is 1; JSON's true is not.
    return bool(left == right) and isinstance(left, bool) is isinstance(right, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
