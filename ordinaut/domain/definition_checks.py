"""Checks of a task definition that look at several places at once.

They take the document as it was sent, whatever its shape, pass over what the model already refuses,
and give every fault they find, so that a person mends a definition in one go.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ordinaut.domain.definition_model import close_match
from ordinaut.domain.definition_secrets import ELSEWHERE, ROOT, check_names
from ordinaut.domain.errors import Fault, Invalid
from ordinaut.domain.expressions import (
    Expression,
    ExpressionError,
    Template,
    compile_expression,
    compile_template,
)
from ordinaut.domain.tool_input import ToolInput

STEP_ROOTS = frozenset({"params", "input", "steps", "run", "now"})
"""What `if` sees; `with` sees `secrets` besides."""

KEY_ROOTS = frozenset({"params", "input"})
"""What `policy.concurrency.key` sees."""

TRIGGER_ROOTS = frozenset({"data", "stream", "id", "time", "event"})
"""What `on.where` and `on.input` see; `event` holds the attributes of a CloudEvent."""


def check_pipeline(document: Mapping[str, Any], known_tools: Mapping[str, ToolInput] | None) -> list[Fault]:
    """Step names used twice, tools nobody knows or that do not take what they are given, expressions that
    are wrong or name nothing."""
    faults: list[Fault] = []
    params = document.get("params")
    scope = _Scope(STEP_ROOTS, set(params) if isinstance(params, dict) else set(), set())
    taken: dict[str, str] = {}
    steps = [(pointer, step, _names(step)) for pointer, step in _steps(document)]
    later = [name for _, _, names in steps for name in names.values()]
    for pointer, step, names in steps:
        for field, name in names.items():
            if name in taken:
                faults.append(
                    Fault(f"{pointer}/{field}", f"{name!r} is used twice", f"first at {taken[name]}")
                )
            taken.setdefault(name, f"{pointer}/{field}")
        scope.later = later
        template, template_faults = _compiled(step.get("with"), f"{pointer}/with", scope, secrets=True)
        faults += _check_tool(step, pointer, template, known_tools)
        faults += template_faults
        faults += check_expression(step.get("if"), f"{pointer}/if", scope)
        scope.steps.update(names.values())
    faults += _check_key(document, scope)
    return faults


def _check_tool(
    step: Mapping[str, Any],
    pointer: str,
    template: Template | None,
    known_tools: Mapping[str, ToolInput] | None,
) -> list[Fault]:
    """Whether there is the step's tool, and takes what the step gives it, as far as that is known now."""
    uses = step.get("uses")
    # Without a dot it is no name of a tool at all, which the model has said already.
    if not isinstance(uses, str) or "." not in uses or known_tools is None:
        return []
    tool = known_tools.get(uses)
    if tool is None:
        return [Fault(f"{pointer}/uses", f"there is no tool {uses!r}", close_match(uses, known_tools))]
    return tool.faults(template, f"{pointer}/with") if template is not None else []


def check_trigger(on: Any, pointer: str) -> list[Fault]:
    """The expressions of `on`."""
    if not isinstance(on, dict):
        return []
    scope = _Scope(TRIGGER_ROOTS, set(), set())
    return [
        *check_expression(on.get("where"), f"{pointer}/where", scope),
        *check_template(on.get("input"), f"{pointer}/input", scope),
        *_check_grouping(on.get("key"), f"{pointer}/key", scope),
    ]


def _check_grouping(key: Any, pointer: str, scope: "_Scope") -> list[Fault]:
    """The faults of `on.key`: a template as others, but one that tells events apart."""
    template, faults = _compiled(key, pointer, scope)
    if isinstance(key, str) and template is not None and not template.expressions:
        example = key if check_expression(key, pointer, scope) == [] else "data.id"
        hint = f"write `${{{example}}}`, or leave it out to take all events together"
        faults.append(Fault(pointer, f"{key!r} is the same for every event", hint))
    return faults


class _Scope:
    """What an expression may name: the roots, the keys of params, the steps before."""

    def __init__(self, roots: frozenset[str], params: set[str], steps: set[str]) -> None:
        self.roots, self.params, self.steps = roots, params, steps
        self.later: list[str] = []


def check_expression(text: Any, pointer: str, scope: _Scope) -> list[Fault]:
    """The faults of one expression such as `if`; what is not text is the model's to refuse."""
    if not isinstance(text, str):
        return []
    if text.startswith("${") and text.endswith("}"):
        return [Fault(pointer, "this is an expression as it is", f"without the braces: {text[2:-1]}")]
    try:
        expression = compile_expression(text)
    except ExpressionError as error:
        return [Fault(pointer, str(error))]
    if ROOT in expression.roots:
        return [Fault(pointer, *ELSEWHERE)]
    return list(_references(expression, pointer, scope))


def check_template(value: Any, pointer: str, scope: _Scope) -> list[Fault]:
    """The faults of every `${…}` in a JSON value."""
    return _compiled(value, pointer, scope)[1]


def _compiled(
    value: Any, pointer: str, scope: _Scope, *, secrets: bool = False
) -> tuple[Template | None, list[Fault]]:
    """The template, None when it is not one, and the faults of every `${…}` in it."""
    try:
        template = compile_template({} if value is None else value)
    except Invalid as invalid:
        return None, [fault.under(pointer) for fault in invalid.faults]
    faults = [
        fault
        for place, expression in template.expressions
        for fault in _references(expression, pointer + place, scope)
    ]
    return template, faults + [fault.under(pointer) for fault in check_names(template, allowed=secrets)]


def _references(expression: Expression, pointer: str, scope: _Scope) -> Iterator[Fault]:
    for path in sorted(expression.references):
        if path[0] == ROOT:
            continue  # see definition_secrets
        named = f"{'.'.join(path[:2])!r} in {expression.text.strip()!r} names nothing"
        if path[0] not in scope.roots:
            yield Fault(
                pointer,
                f"{path[0]!r} in {expression.text.strip()!r} names nothing",
                close_match(path[0], scope.roots),
            )
        elif len(path) < 2:
            continue
        elif path[0] == "params" and path[1] not in scope.params:
            yield Fault(pointer, named, close_match(path[1], scope.params) or "the task has no params")
        elif path[0] == "steps" and path[1] not in scope.steps:
            if path[1] in scope.later:
                yield Fault(pointer, named, "only steps before this one have an output yet")
            else:
                yield Fault(
                    pointer, named, close_match(path[1], scope.steps) or "no step comes before this one"
                )


def _steps(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    pipeline = document.get("pipeline")
    for index, step in enumerate(pipeline if isinstance(pipeline, list) else []):
        if isinstance(step, dict):
            yield f"/pipeline/{index}", step


def _names(step: Mapping[str, Any]) -> dict[str, str]:
    """The names a step's output has, by the field that gives it; one said twice in a step is one."""
    names = {field: step[field] for field in ("id", "save_as") if isinstance(step.get(field), str)}
    if names.get("id") == names.get("save_as"):
        names.pop("save_as", None)
    return names


def _check_key(document: Mapping[str, Any], scope: _Scope) -> list[Fault]:
    policy = document.get("policy")
    concurrency = policy.get("concurrency") if isinstance(policy, dict) else None
    key = concurrency.get("key") if isinstance(concurrency, dict) else None
    if key is None:
        return []
    return check_template(key, "/policy/concurrency/key", _Scope(KEY_ROOTS, scope.params, set()))
