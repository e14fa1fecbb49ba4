"""An example of what a JSON Schema describes, for simulated runs."""

from collections.abc import Mapping
from typing import Any

_BY_TYPE: dict[str, Any] = {
    "string": "",
    "integer": 0,
    "number": 0.0,
    "boolean": False,
    "array": [],
    "null": None,
}
_DEEP = 20


def sample_of(schema: Any) -> Any:
    """A small value of the shape `schema` describes: its default, its first example, or zero values.

    It has every member that is required or has a default, but keeps no rule beyond types: not
    patterns, not bounds.
    """
    return _sample(schema, schema, 0)


def _sample(schema: Any, root: Any, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEEP:
        return None
    if "$ref" in schema:
        return _sample(_resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema or "default" in schema:
        return schema.get("const", schema.get("default"))
    for choices in (schema.get("examples"), schema.get("enum")):
        if choices:
            return choices[0]
    for branches in (schema.get("anyOf"), schema.get("oneOf"), schema.get("allOf")):
        if branches:
            return _sample(branches[0], root, depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object" or "properties" in schema:
        members = schema.get("properties", {})
        # Not every member: optional ones may hold the schema itself again, several times over.
        wanted = [*schema.get("required", ()), *(name for name in members if _has_default(members[name]))]
        return {name: _sample(members.get(name), root, depth + 1) for name in wanted}
    if kind == "array" and "prefixItems" in schema:
        return [_sample(item, root, depth + 1) for item in schema["prefixItems"]]
    return _BY_TYPE.get(str(kind))


def _has_default(schema: Any) -> bool:
    return isinstance(schema, Mapping) and "default" in schema


def _resolve(reference: str, root: Any) -> Any:
    found = root
    for part in reference.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
