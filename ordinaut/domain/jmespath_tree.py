"""What can be known of a JMESPath expression without evaluating it, from the library's syntax tree."""

import math
from typing import Any

from jmespath import functions

Node = Any
"""A node of the tree: `{"type", "value"?, "children"}`."""

Path = tuple[str, ...]
"""Names from the root downwards."""

MAX_GROWTH = 512
"""How often the input may be repeated in what an expression builds."""

MAX_DEPTH = 48
"""How deep the tree may nest; every recursion over it (ours and the library's) is bounded by it."""


def growth(node: Node) -> int:
    """At most how often the input appears in what `node` builds (a bound on the size of its result)."""
    children = [growth(child) for child in _children(node)]
    kind = node["type"]
    if kind in ("multi_select_list", "multi_select_dict"):
        return min(sum(children), MAX_GROWTH + 1)
    if kind in ("comparator", "and_expression", "or_expression"):
        return max(children)
    if kind == "function_expression":
        # Expression references (`&…`) are applied to each element of the other arguments.
        applied = [g for g, child in zip(children, _children(node), strict=True) if child["type"] == "expref"]
        given = sum(children) - sum(applied)
        return min(max(given, 1) * math.prod(applied), MAX_GROWTH + 1)
    return min(math.prod(children), MAX_GROWTH + 1)


def depth(node: Node) -> int:
    """How deep the syntax tree nests, at most `MAX_DEPTH` + 1. Does not recurse."""
    level, nodes = 0, [node]
    while nodes and level <= MAX_DEPTH:
        level += 1
        nodes = [child for one in nodes for child in _children(one)]
    return level


def function_fault(node: Node) -> str | None:
    """What is wrong with a call in this one node: an unknown function, a wrong number of arguments."""
    if node["type"] != "function_expression":
        return None
    known = functions.Functions.FUNCTION_TABLE.get(node["value"])
    if known is None:
        return f"there is no function {node['value']}()"
    signature = known["signature"]
    given, taken = len(node["children"]), len(signature)
    if signature and signature[-1].get("variadic"):
        return (
            None if given >= taken else f"{node['value']}() takes at least {taken} argument(s), not {given}"
        )
    return None if given == taken else f"{node['value']}() takes {taken} argument(s), not {given}"


def _children(node: Node) -> list[Node]:
    # The children of a slice are its numbers, not nodes.
    return [] if node["type"] == "slice" else [child for child in node["children"] if isinstance(child, dict)]


def walk(node: Node) -> list[Node]:
    """Every node of the tree, parents first. Does not recurse."""
    found, waiting = [], [node]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += _children(one)
    return found


def builds(tree: Node) -> bool:
    """Whether the expression can put one part of its input into its result twice."""
    return any(node["type"].startswith("multi_select") for node in walk(tree))


def plain_path(tree: Node) -> Path | None:
    """The path, when the expression is nothing but names and dots."""
    if tree["type"] == "field":
        return (tree["value"],)
    if tree["type"] == "subexpression" and all(child["type"] == "field" for child in tree["children"]):
        return tuple(child["value"] for child in tree["children"])
    return None


Scalar = str | int | float | bool | None

_CANNOT_FAIL = frozenset(
    {"field", "subexpression", "index_expression", "index", "literal", "comparator", "not_expression",
     "and_expression", "or_expression", "current", "identity"}
)  # fmt: skip


def equalities(tree: Node) -> tuple[tuple[Path, Scalar], ...]:
    """The conditions `path == literal` that must hold for the expression to be true, and that are looked at
    before anything that could fail: where one does not hold, evaluating gives false and nothing else."""
    conjuncts: list[Node] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if node["type"] == "and_expression":
            waiting += reversed(_children(node))
        else:
            conjuncts.append(node)
    found: list[tuple[Path, Scalar]] = []
    for node in conjuncts:
        if any(one["type"] not in _CANNOT_FAIL for one in walk(node)):
            break
        if (equality := _equality(node)) is not None:
            found.append(equality)
    return tuple(found)


def _equality(node: Node) -> tuple[Path, Scalar] | None:
    if node["type"] != "comparator" or node["value"] != "eq":
        return None
    for left, right in (node["children"], reversed(node["children"])):
        path = plain_path(left)
        if path is not None and right["type"] == "literal" and isinstance(right["value"], Scalar):
            return path, right["value"]
    return None


def references(tree: Node) -> frozenset[Path]:
    """The paths from the root that the expression names, each as far as it can be known; without those
    that another one goes through."""
    found = _found(tree)
    passed = {path[:length] for path in found for length in range(len(path))}
    return frozenset(found - passed - {()})


def takes_everything(tree: Node) -> bool:
    """Whether the expression uses its whole input without naming a member, as `@` and `*` do."""
    return () in _found(tree)


def _found(tree: Node) -> set[Path]:
    found: set[Path] = set()
    _use(tree, (), found)
    return found


def _use(node: Node, context: Path | None, found: set[Path]) -> None:
    """Note what `node` names when it is evaluated on what `context` names (None: cannot be known)."""
    path = _trace(node, context, found)
    if path is not None:
        found.add(path)


def _trace(node: Node, context: Path | None, found: set[Path]) -> Path | None:
    """The path that `node` itself is, or None; what it uses on the way there is noted in `found`."""
    kind, children = node["type"], node["children"]
    if kind == "field":
        return None if context is None else (*context, node["value"])
    if kind in ("identity", "current"):
        return context
    if kind in ("subexpression", "index_expression", "pipe"):
        for child in children:
            after = _trace(child, context, found)
            if after is None and context:
                found.add(context)
            context = after
        return context
    if kind.endswith("projection"):
        _use(children[0], context, found)
        for child in children[1:]:
            _use(child, None, found)
        return None
    if kind == "expref":
        _use(children[0], None, found)
        return None
    if kind in ("literal", "index", "slice"):
        return None
    for child in children:
        _use(child, context, found)
    return None
