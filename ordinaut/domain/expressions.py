"""Expressions (JMESPath, https://jmespath.org/specification.html) and `${…}` templates.

Both are compiled once, when a definition is read, and evaluated many times: each step renders its
`with`, each stream entry is held against every `where`. An expression that only names or compares something
(`params.url`, `data.amount > `100``), which is most of them, never enters the interpreter.

What the names at the root mean is the caller's: steps see `params, input, steps, run, now`, triggers
see `data, stream, id, time`.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jmespath
from jmespath import exceptions

from ordinaut.domain import bounded_jmespath, jmespath_tree
from ordinaut.domain.errors import Fault, Invalid
from ordinaut.domain.jmespath_tree import Path
from ordinaut.domain.jsonvalues import MAX_DEPTH, escape, faults_in
from ordinaut.domain.quick_jmespath import Evaluate, is_false, quick

MAX_EXPRESSION = 4096
"""The longest expression, in characters."""

MAX_RESULT = 1_000_000
"""The most values (counted through all levels) an expression may build."""

Scope = Mapping[str, Any]
_Renderer = Callable[[Scope], Any]


class ExpressionError(ValueError):
    """An expression that does not compile, or cannot be evaluated on what it was given."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled JMESPath expression. `references` are the paths it names, as far as they can be known
    without evaluating it: `steps.a.body[0].x` gives `("steps", "a", "body")`.
    """

    text: str
    references: frozenset[Path]
    _path: Path | None = field(repr=False)
    _tree: jmespath_tree.Node = field(repr=False, compare=False)
    _builds: bool = field(repr=False)
    _quick: Evaluate | None = field(repr=False, compare=False)

    @property
    def roots(self) -> frozenset[str]:
        """The names at the root that the expression uses."""
        return frozenset(path[0] for path in self.references)

    @property
    def path(self) -> Path | None:
        """The path that the expression is, when it is nothing but names and dots."""
        return self._path

    @property
    def equalities(self) -> tuple[tuple[Path, jmespath_tree.Scalar], ...]:
        """Conditions (a path, and the value it must have) without which it is false."""
        return jmespath_tree.equalities(self._tree)

    @property
    def takes_everything(self) -> bool:
        """Whether it uses all there is at the root at once (`@`), without naming what of it."""
        return jmespath_tree.takes_everything(self._tree)

    def evaluate(self, scope: Scope) -> Any:
        """The value of the expression on `scope` (a mapping of JSON values); null for what is not there.

        Raises ExpressionError when a function is given what it does not take, or a bound is reached.
        """
        if self._quick is not None:
            return self._quick(scope)
        try:
            value = bounded_jmespath.BoundedInterpreter().visit(self._tree, scope)
        # The library's functions raise whatever Python raises on values they do not expect.
        except Exception as error:
            raise ExpressionError(f"{self._shown()} cannot be evaluated: {_reason(error)}") from error
        if self._builds and not _fits(value):
            raise ExpressionError(f"{self._shown()} builds more than {MAX_RESULT} values")
        if type(value) is float and not math.isfinite(value):
            raise ExpressionError(f"{self._shown()} is not a finite number")
        return value

    def _shown(self) -> str:
        return f"${{{self.text}}}" if len(self.text) <= 120 else f"${{{self.text[:120]}…}}"


def truthy(value: Any) -> bool:
    """Whether JMESPath takes `value` for true: all but false, null and the empty text, list and object.

    The number 0 is true, as its specification says.
    """
    return not is_false(value)


@lru_cache(4096)
def compile_expression(text: str) -> Expression:
    """Compile `text`; the same text gives the same object while it is remembered.

    Raises ExpressionError that names the column (from 1) and what is wrong.
    """
    if len(text) > MAX_EXPRESSION:
        raise ExpressionError(f"the expression is longer than {MAX_EXPRESSION} characters")
    if not text.strip():
        raise ExpressionError("the expression is empty")
    try:
        tree = jmespath.compile(text).parsed
    except exceptions.JMESPathError as error:
        raise ExpressionError(_syntax(error, text)) from error
    except (RecursionError, IndexError, KeyError, ValueError) as error:
        raise ExpressionError("the expression cannot be read; it may nest too deeply") from error
    _check(tree)
    path, builds = jmespath_tree.plain_path(tree), jmespath_tree.builds(tree)
    return Expression(text, jmespath_tree.references(tree), path, tree, builds, quick(tree))


_PATHS = frozenset({"subexpression", "index_expression", "projection", "value_projection"})


def _check(tree: jmespath_tree.Node) -> None:
    if jmespath_tree.depth(tree) > jmespath_tree.MAX_DEPTH:
        raise ExpressionError(f"the expression nests deeper than {jmespath_tree.MAX_DEPTH} levels")
    nodes = jmespath_tree.walk(tree)
    for node in nodes:
        if fault := jmespath_tree.function_fault(node):
            raise ExpressionError(fault)
        if node["type"] == "literal" and (faults := faults_in(node["value"])):
            raise ExpressionError(f"a literal in the expression is not good: {faults[0].message}")
        if node["type"] in _PATHS and node["children"][0]["type"] == "not_expression":
            # JMESPath binds `!` closer than `.`, so this is always null and never what was meant.
            raise ExpressionError("`!a.b` means (!a).b in JMESPath; write !(a.b)")
        if node["type"] == "slice" and node["children"][2] == 0:
            raise ExpressionError("the step of a slice must not be 0")
    if max(jmespath_tree.growth(node) for node in nodes) > jmespath_tree.MAX_GROWTH:
        raise ExpressionError("the expression builds too much out of its input")


def _fits(value: Any) -> bool:
    left, waiting = MAX_RESULT, [(value, 0)]
    while waiting:
        one, level = waiting.pop()
        items: Iterable[Any] = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        before = len(waiting)
        waiting.extend((item, level + 1) for item in items)
        left -= len(waiting) - before
        if left < 0 or (level > MAX_DEPTH and len(waiting) > before):
            return False
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it nests too deeply"
    if isinstance(error, exceptions.JMESPathTypeError):
        allowed = " or ".join(error.expected_types)
        return f"{error.function_name}() takes {allowed}, not {error.actual_type}"
    return str(error) or type(error).__name__


def _syntax(error: exceptions.JMESPathError, text: str) -> str:
    at_end = isinstance(error, exceptions.ParseError) and str(error.token_type) == "EOF"
    if at_end or isinstance(error, exceptions.IncompleteExpressionError):
        return f"column {len(text) + 1}: the expression ends too early"
    if isinstance(error, exceptions.LexerError):
        quote = 'names with other characters than letters, digits and _ are quoted: steps."my-step"'
        hint = f" ({quote})" if str(error.lexer_value) == "-" else ""
        return f"column {error.lexer_position + 1}: {error.message[:1].lower()}{error.message[1:]}{hint}"
    if isinstance(error, exceptions.ParseError):
        return f"column {error.lex_position + 1}: {str(error.token_value)!r} is not expected here"
    return str(error)


# --- templates ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Template:
    """A JSON value with `${…}` in its texts, compiled. `expressions` are (JSON Pointer, expression)."""

    value: Any
    expressions: tuple[tuple[str, Expression], ...]
    _renderer: _Renderer | None = field(repr=False, compare=False)

    def render(self, scope: Scope) -> Any:
        """The value with every `${…}` replaced by what it names in `scope`.

        A text that is one `${…}` and nothing else becomes the value itself, of whatever type. Parts
        without `${…}` are given as they are, not copied: do not change what you get. Raises
        ExpressionError.
        """
        return self.value if self._renderer is None else self._renderer(scope)


def compile_template(value: Any) -> Template:
    """Compile a JSON value. Raises Invalid with every expression that is wrong, by its JSON Pointer."""
    expressions: list[tuple[str, Expression]] = []
    faults: list[Fault] = []
    renderer = _compile(value, "", 0, expressions, faults)
    if faults:
        raise Invalid.all_of(faults)
    # Without expressions the text can still hold an escaped `$${`, so render it now, once.
    constant = value if renderer is None else renderer({}) if not expressions else value
    return Template(constant, tuple(expressions), renderer if expressions else None)


def _compile(
    value: Any, pointer: str, depth: int, expressions: list[tuple[str, Expression]], faults: list[Fault]
) -> _Renderer | None:
    """The function that renders `value`, or None when it always renders as itself."""
    if isinstance(value, str):
        return _compile_text(value, pointer, expressions, faults) if "${" in value else None
    if not isinstance(value, dict | list):
        return None
    if depth >= MAX_DEPTH:
        faults.append(Fault(pointer, f"nested too deeply; at most {MAX_DEPTH} levels are allowed"))
        return None
    if isinstance(value, dict):
        members = [
            (key, item, _compile(item, f"{pointer}/{escape(key)}", depth + 1, expressions, faults))
            for key, item in value.items()
        ]
        if all(renderer is None for _, _, renderer in members):
            return None
        fields = [(key, renderer or _constant(item)) for key, item, renderer in members]
        return lambda scope: {key: render(scope) for key, render in fields}
    elements = [
        (item, _compile(item, f"{pointer}/{index}", depth + 1, expressions, faults))
        for index, item in enumerate(value)
    ]
    if all(renderer is None for _, renderer in elements):
        return None
    items = [renderer or _constant(item) for item, renderer in elements]
    return lambda scope: [render(scope) for render in items]


def _constant(value: Any) -> _Renderer:
    return lambda scope: value


def _compile_text(
    text: str, pointer: str, expressions: list[tuple[str, Expression]], faults: list[Fault]
) -> _Renderer | None:
    try:
        # The same few texts stand in many tasks; a text of any length must not be held on to.
        parts = _known_parts(text) if len(text) <= MAX_EXPRESSION else _parts(text)
    except ExpressionError as error:
        faults.append(Fault(pointer, str(error)))
        return None
    expressions += [(pointer, part) for part in parts if isinstance(part, Expression)]
    if len(parts) == 1 and isinstance(parts[0], Expression):
        return parts[0].evaluate
    return lambda scope: "".join(part if isinstance(part, str) else _as_text(part, scope) for part in parts)


def _parts(text: str) -> tuple[str | Expression, ...]:
    parts: list[str | Expression] = []
    for column, part, is_expression in split_template(text):
        if not is_expression:
            parts.append(part)
            continue
        try:
            parts.append(compile_expression(part))
        except ExpressionError as error:
            raise ExpressionError(f"${{{part}}} at column {column + 1}: {error}") from error
    return tuple(parts)


_known_parts = lru_cache(4096)(_parts)


def _as_text(expression: Expression, scope: Scope) -> str:
    value = expression.evaluate(scope)
    if isinstance(value, str):
        return value
    if value is None:
        raise ExpressionError(f"names nothing: ${{{expression.text}}}")
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def split_template(text: str) -> list[tuple[int, str, bool]]:
    """The parts of a template text: (where it begins, the part, whether it is an expression).

    `$${` stands for the two characters `${`. An expression ends at the `}` that closes it: braces
    within it, and braces in its "names", 'texts' and `literals`, are its own. Adjoining plain text
    is one part. Raises ExpressionError for a `${` that is never closed.
    """
    parts: list[tuple[int, str, bool]] = []
    plain, start, at = "", 0, 0
    while (found := text.find("${", at)) >= 0:
        if found > at and text[found - 1] == "$":
            plain += text[at : found - 1] + "${"
            at = found + 2
            continue
        plain += text[at:found]
        if plain:
            parts.append((start, plain, False))
        end = _closing_brace(text, found + 2)
        if end is None:
            raise ExpressionError(
                f"the ${{ at column {found + 1} is never closed; write $${{ for a plain ${{"
            )
        parts.append((found, text[found + 2 : end], True))
        plain, start, at = "", end + 1, end + 1
    plain += text[at:]
    if plain:
        parts.append((start, plain, False))
    return parts


_PLAIN = re.compile(r"""[^"'`{}\\]*}""")
"""An expression without quotes and braces, as nearly all are, and the brace that closes it."""


def _closing_brace(text: str, at: int) -> int | None:
    if plain := _PLAIN.match(text, at):
        return plain.end() - 1
    depth, quote = 0, ""
    while at < len(text):
        character = text[at]
        if quote:
            if character == "\\":
                at += 1
            elif character == quote:
                quote = ""
        elif character in "\"'`":
            quote = character
        elif character == "{":
            depth += 1
        elif character == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    return None
