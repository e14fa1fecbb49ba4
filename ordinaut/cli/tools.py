"""`ordinaut tool …` over HTTP."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from ordinaut.cli.client import Client
from ordinaut.cli.output import print_json, table


def list_tools(*, as_json: bool) -> int:
    """`ordinaut tool list`."""
    with Client() as client:
        found = list(client.get("/v1/tools")["items"])
    if as_json:
        print_json(found)
        return 0
    table(
        ("tool", "takes", "gives", "description"),
        [
            (
                escape(tool["name"]), escape(_fields(tool["input_schema"])),
                escape(_fields(tool["output_schema"])), escape(tool["description"]),
            )
            for tool in found
        ],
        empty="No tools.",
    )  # fmt: skip
    return 0


def _fields(schema: Mapping[str, Any] | bool) -> str:
    """An object's fields, those that may be left out with a question mark; else the type."""
    if not isinstance(schema, Mapping):
        return "anything" if schema else "nothing"
    fields = schema.get("properties")
    if not fields:
        return str(schema.get("type") or "anything")
    required = schema.get("required", ())
    return ", ".join(name if name in required else f"{name}?" for name in fields)
