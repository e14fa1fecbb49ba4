"""Secrets in task definitions: none may be written into one (I11), and where `${secrets.NAME}` may stand.

A definition is in the log for ever and shown to everybody who may read. So what is secret by its name
(ordinaut.domain.redact) must come from elsewhere, and a step's `with` is the only place that names a
secret: it goes to the tool, and is recorded with a mark in its place. Everything else that is evaluated
(`if`, `where`, a run's input, a concurrency key) is recorded, or decides what is.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ordinaut.domain.errors import Fault
from ordinaut.domain.expressions import ExpressionError, Template, compile_expression, split_template
from ordinaut.domain.jsonvalues import MAX_DEPTH, escape
from ordinaut.domain.redact import is_secret_name, secrets_in_urls

ROOT = "secrets"
"""The name at the root of an expression under which secrets are."""

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}")

ELSEWHERE = (
    "a secret can be named in a step's `with` only",
    "what stands here is recorded, or decides what is",
)
"""Message and hint for a secret that is named where none may be."""

_LITERAL = "a secret must not be written into a task"
_INSTEAD = "write ${secrets.NAME} and set ORDINAUT_SECRET_NAME for the workers"
_PARAMS = "write ${secrets.NAME} in the step's `with` and set ORDINAUT_SECRET_NAME for the workers"


def secret_places(template: Template) -> tuple[tuple[str, str], ...]:
    """Where a checked template names secrets: (JSON Pointer, name)."""
    return tuple(
        (pointer, expression.path[1])
        for pointer, expression in template.expressions
        if expression.path is not None and expression.path[0] == ROOT
    )


def check_names(template: Template, *, allowed: bool) -> list[Fault]:
    """The faults of how a template names secrets, with pointers into it; `allowed` is whether it may."""
    naming = [(pointer, one) for pointer, one in template.expressions if ROOT in one.roots]
    if not naming:
        return []
    if not allowed:
        return [Fault(pointer, *ELSEWHERE) for pointer, _ in naming]
    faults = []
    for pointer, expression in naming:
        path, text = expression.path, expression.text.strip()
        # What is made of a secret could not be found again in what a service answers.
        if path is None or len(path) != 2:
            hint = "${secrets.NAME}, with nothing else between the braces"
            faults.append(Fault(pointer, f"in {text!r} the secret does not stand alone", hint))
        elif not NAME.fullmatch(path[1]):
            hint = "letters, digits, '_' and '-', at most 128, the first a letter, a digit or '_'"
            faults.append(Fault(pointer, f"{path[1]!r} is not a name for a secret", hint))
    faults += [
        Fault(
            pointer, "`@` stands for the step's secrets, too", "name what is meant, such as input or params"
        )
        for pointer, expression in template.expressions
        if expression.takes_everything
    ]
    return faults


def check_literals(document: Mapping[str, Any]) -> list[Fault]:
    """Every secret that is written into the definition, known by the name it goes under, or by its place
    in a URL. Takes the document as it was sent, whatever its shape."""
    faults = [*_literals(document.get("params"), "/params", False, _PARAMS)]
    pipeline = document.get("pipeline")
    for index, step in enumerate(pipeline if isinstance(pipeline, list) else []):
        if isinstance(step, dict):
            faults += _literals(step.get("with"), f"/pipeline/{index}/with", False, _INSTEAD)
    schedule = document.get("schedule")
    for on, place in (
        (document.get("on"), "/on"),
        (schedule.get("on") if isinstance(schedule, dict) else None, "/schedule/on"),
    ):
        if isinstance(on, dict):
            faults += _literals(on.get("input"), f"{place}/input", False, _PARAMS)
    return faults


def _literals(value: Any, pointer: str, secret: bool, hint: str, depth: int = 0) -> Iterator[Fault]:
    if depth > MAX_DEPTH:
        return
    if isinstance(value, dict):
        for name, member in value.items():
            inner = secret or is_secret_name(str(name))
            yield from _literals(member, f"{pointer}/{escape(name)}", inner, hint, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _literals(item, f"{pointer}/{index}", secret, hint, depth + 1)
    elif isinstance(value, str):
        if (secret or "://" in value) and _is_literal(value, secret, templates=hint is not _PARAMS):
            yield Fault(pointer, _LITERAL, hint)
    elif secret and isinstance(value, int | float) and not isinstance(value, bool):
        yield Fault(pointer, _LITERAL, hint)


def _is_literal(text: str, secret: bool, *, templates: bool) -> bool:
    known = _without_expressions(text) if templates and "${" in text else text
    if secret:
        return bool(text.strip()) and _FILLED not in known
    return any(_FILLED not in found for found in secrets_in_urls(known))


_FILLED = "\0"
"""Stands for what an expression fills in; no text of a definition holds it."""


def _without_expressions(text: str) -> str:
    """`text` with a mark for each `${…}` that names something; those that only hold a literal stay."""
    try:
        parts = split_template(text)
        return "".join(
            _FILLED if is_expression and compile_expression(part).references else part
            for _, part, is_expression in parts
        )
    except ExpressionError:
        return _FILLED  # refused elsewhere
