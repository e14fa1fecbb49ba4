"""Holding a step's `with` against its tool's input schema when the task is defined.

What a template fills in is known when the step runs, and checked then. Here the literal members are
judged, each by itself: schemas come from anybody, so only what `properties`, `required` and
`additionalProperties: false` at the top of one say is taken for certain.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from referencing.exceptions import Unresolvable

from ordinaut.domain.definition_model import close_match
from ordinaut.domain.definition_secrets import secret_places
from ordinaut.domain.errors import Fault
from ordinaut.domain.expressions import Template, compile_template
from ordinaut.domain.jsonvalues import escape
from ordinaut.domain.schema_faults import schema_fault, schema_validator

RECORDS = "what this tool is given is recorded, so it must not get a secret"


class ToolInput:
    """What one tool takes: `schema` is a JSON Schema 2020-12, `secrets` whether it may be given any.

    Raises ValueError when `schema` is not a valid schema.
    """

    def __init__(self, name: str, schema: Any, *, secrets: bool = True) -> None:
        self._name = name
        self._secrets = secrets
        self._schema: Mapping[str, Any] = schema if isinstance(schema, Mapping) else {}
        self._validator = schema_validator(schema) if schema not in ({}, True) else None
        # Made once: it takes longer than to validate with them.
        self._known: dict[str, Validator] = {}
        if self._validator is not None:
            for member, inner in self._schema.get("properties", {}).items():
                self._known[member] = self._validator.evolve(schema=inner)

    def faults(self, given: Template, pointer: str) -> list[Fault]:
        """What is certainly wrong with a `with`, with pointers below `pointer`."""
        faults = [] if self._secrets else [Fault(place, RECORDS) for place, _ in secret_places(given)]
        if self._validator is not None:
            filled = {place.split("/", 2)[1] for place, _ in given.expressions if place}
            if isinstance(given.value, dict):
                faults += self._members(given.value, filled)
            elif not given.expressions:
                faults += _judge(self._validator, given.value, "")
        return [fault.under(pointer) for fault in faults]

    def _members(self, given: Mapping[str, Any], filled: set[str]) -> Iterator[Fault]:
        """`filled` are the (escaped) names of the members that hold a `${…}`."""
        known = self._known
        others = self._schema.get("patternProperties", {})
        closed = self._schema.get("additionalProperties") is False
        for name, value in given.items():
            place = f"/{escape(name)}"
            if name not in known and closed and not any(re.search(pattern, name) for pattern in others):
                yield Fault(place, f"{self._name} takes no {name!r}", close_match(name, known))
            elif name in known and escape(name) not in filled:
                # A template without expressions holds its values as they will be; others as they are written.
                literal = compile_template(value).value if filled else value
                yield from _judge(known[name], literal, place)
        for name in self._schema.get("required", ()):
            if name not in given:
                yield Fault(f"/{escape(name)}", f"{self._name} needs {name!r}, which is missing")


def _judge(validator: Validator, value: Any, place: str) -> list[Fault]:
    try:
        error = best_match(validator.iter_errors(value))
    except Unresolvable:
        return []  # told when the step runs; whoever defines the task cannot mend the tool
    return [] if error is None else [schema_fault(error).under(place)]


def tool_inputs(described: Mapping[str, Mapping[str, Any]]) -> dict[str, ToolInput]:
    """What each tool takes, by name, of descriptions with `input_schema` and, if not true, `secrets`."""
    return {
        name: ToolInput(name, tool["input_schema"], secrets=tool.get("secrets", True))
        for name, tool in described.items()
    }
