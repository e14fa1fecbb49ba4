"""JSON Schema (2020-12) for what tools take and give: compiled once, faults told with their place."""

from collections.abc import Callable, Collection
from typing import Any

from jsonschema.exceptions import best_match
from referencing.exceptions import Unresolvable

from ordinaut.domain.schema_faults import pointer_to, schema_fault, schema_validator
from ordinaut.work.tools.errors import ToolFault

Check = Callable[[Any, Collection[str]], None]
"""Takes a value, and the places in it (JSON Pointers) where nothing is to be found wrong."""


def compile_schema(schema: Any, place: str) -> Check | None:
    """A function that raises `ToolFault` for a value the schema refuses; `place` is "input" or "output".

    None stands for a schema that accepts everything, so that it costs nothing. Raises ValueError when
    `schema` is itself not a valid schema. References are looked up in the schema only, never fetched.
    """
    if schema is True or schema == {}:
        return None
    validator = schema_validator(schema)

    def check(value: Any, besides: Collection[str] = ()) -> None:
        try:
            errors = validator.iter_errors(value)
            if besides:
                errors = (one for one in errors if pointer_to(one.absolute_path) not in besides)
            error = best_match(errors)
        except Unresolvable as missing:
            raise ToolFault("", f"the tool's schema refers to {missing.ref}", place=place) from None
        if error is not None:
            fault = schema_fault(error)
            raise ToolFault(fault.pointer, fault.message, place=place, hint=fault.hint)

    return check
