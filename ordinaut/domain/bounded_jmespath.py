"""JMESPath with bounds: no expression, however hostile, takes the process down.

JMESPath has no loops, but it has multiplication: `[@, @] | [@, @] | …` doubles with every step. Two
bounds hold it: `jmespath_tree.growth`, found once when the expression is compiled, is how many times
the input may be repeated in what is built; and `BoundedInterpreter` counts the work of one evaluation.
"""

import math
from copy import deepcopy
from typing import Any

from jmespath import exceptions, functions, visitor

from ordinaut.domain.jmespath_tree import Node

MAX_STEPS = 250_000
"""The visits (of nodes, and of elements produced) one evaluation may take; about 0.1 s."""

MAX_TEXT = 4 * 1024 * 1024
"""The longest text, in characters, a function may produce."""


class TooMuchError(exceptions.JMESPathError):
    """The evaluation went beyond its bounds."""


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


class _Functions(functions.Functions):
    """The standard functions, except that none gives what JSON cannot hold or memory cannot."""

    @functions.signature({"types": []})
    def _func_to_number(self, arg: Any) -> Any:
        if isinstance(arg, bool) or not isinstance(arg, int | float | str):
            return None
        if not isinstance(arg, str):
            return arg
        try:
            number = int(arg)
        except ValueError:
            try:
                return _finite(float(arg))
            except ValueError:
                return None
        return number if abs(number) < 2**63 else _finite(float(number))

    @functions.signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, array: list[str]) -> str:
        if len(separator) * len(array) > MAX_TEXT:
            raise TooMuchError("join() would make a text that is too long")
        return separator.join(array)


_OPTIONS = visitor.Options(custom_functions=_Functions())
_ORDERINGS = frozenset({"lt", "lte", "gt", "gte"})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class BoundedInterpreter(visitor.TreeInterpreter):
    """One evaluation: the library's interpreter, counting. Make one for each evaluation."""

    def __init__(self) -> None:
        super().__init__(_OPTIONS)
        self._left = MAX_STEPS

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise TooMuchError("the expression takes too many steps on this input")

    def visit(self, node: Node, *args: Any, **kwargs: Any) -> Any:
        self._spend(1)
        return getattr(self, "visit_" + node["type"])(node, *args, **kwargs)

    def visit_comparator(self, node: Node, value: Any) -> Any:
        if node["value"] not in _ORDERINGS:
            return super().visit_comparator(node, value)
        left, right = (self.visit(child, value) for child in node["children"])
        # JMESPath: an ordering of what has none is null; the library raises for a text and a number.
        if (_is_number(left) and _is_number(right)) or (isinstance(left, str) and isinstance(right, str)):
            return self.COMPARATOR_FUNC[node["value"]](left, right)
        return None

    def visit_literal(self, node: Node, value: Any) -> Any:
        # Compiled expressions are shared: who changes what he was given must not change everybody's literal.
        return deepcopy(node["value"])

    def visit_flatten(self, node: Node, value: Any) -> Any:
        base = self.visit(node["children"][0], value)
        if not isinstance(base, list):
            return None
        self._spend(sum(len(item) if isinstance(item, list) else 1 for item in base))
        return [one for item in base for one in (item if isinstance(item, list) else (item,))]

    def visit_function_expression(self, node: Node, value: Any) -> Any:
        result = super().visit_function_expression(node, value)
        if isinstance(result, str):
            if len(result) > MAX_TEXT:
                raise TooMuchError(f"{node['value']}() makes a text that is too long")
        elif isinstance(result, list | dict):
            self._spend(len(result))
        return result
