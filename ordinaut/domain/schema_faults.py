"""What a value that a JSON Schema (2020-12) refuses is told: a place, a sentence, what would be right.

Nothing repeats the value itself: it may be a secret, and what is told may end up in the log (I11).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry

from ordinaut.domain.errors import Fault
from ordinaut.domain.jsonvalues import escape


def schema_validator(schema: Any) -> Draft202012Validator:
    """A validator for `schema`; references are looked up in the schema only, never fetched. Raises
    ValueError when it is not a valid schema."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"not a JSON Schema (2020-12): {error.message}") from None
    return Draft202012Validator(schema, registry=Registry())


def pointer_to(path: Iterable[str | int]) -> str:
    """The JSON Pointer (RFC 6901) of a path of member names and indexes."""
    return "".join("/" + escape(part) for part in path)


def schema_fault(error: ValidationError) -> Fault:
    """What is wrong, with the JSON Pointer into the value that was checked."""
    # A description on a choice ("give json or body") tells more than its deepest failed branch.
    outer = error.parent
    while isinstance(outer, ValidationError):
        if isinstance(outer.schema, Mapping) and "description" in outer.schema:
            error = outer
        outer = outer.parent
    path, message, hint = list(error.absolute_path), "", ""
    rule, wanted, value = str(error.validator), error.validator_value, error.instance
    if rule == "required" and isinstance(value, Mapping) and isinstance(wanted, list):
        path.append(next(name for name in wanted if name not in value))
        message = "is missing"
    elif rule == "additionalProperties" and isinstance(value, Mapping) and wanted is False:
        name, known = _unknown_member(error.schema, value)
        path.append(name)
        message, hint = "is not known here", f"known: {', '.join(known)}" if known else "nothing is"
    else:
        message = _sentence(rule, wanted, value)
    if isinstance(error.schema, Mapping) and rule not in ("required", "additionalProperties", "type"):
        hint = str(error.schema.get("description", ""))
    return Fault(pointer_to(path), message, hint)


def _unknown_member(schema: Any, value: Mapping[str, Any]) -> tuple[str, list[str]]:
    known = sorted(schema.get("properties", {}))
    return next((name for name in value if name not in known), ""), known


def _sentence(rule: str, wanted: Any, value: Any) -> str:
    match rule:
        case "type":
            types = wanted if isinstance(wanted, list) else [wanted]
            return f"must be {' or '.join(map(str, types))}, not {type_name(value)}"
        case "enum":
            return f"must be one of {', '.join(map(repr, wanted))}"
        case "const":
            return f"must be {wanted!r}"
        case "pattern":
            return f"does not match {wanted}"
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum" | "multipleOf":
            return f"breaks {rule} {wanted}"
        case "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties":
            return f"has size {len(value)}, breaks {rule} {wanted}"
        case "anyOf" | "oneOf":
            return "fits none of the allowed forms, or more than one where one is allowed"
        case "None":
            return "nothing is allowed here"
        case _:
            return f"breaks the schema's {rule!r}"


def type_name(value: Any) -> str:
    """What JSON calls the type of `value`."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case Mapping():
            return "object"
        case list():
            return "array"
        case _:
            return type(value).__name__
