"""`stream.add`: one entry more in a Redis stream (XADD).

Redis and the log cannot commit together, so a worker that dies between the two adds the entry again
on the next attempt: at least once, as every step. Each entry therefore carries the field
`ordinaut-key`, the step's idempotency key and the same on every attempt; a reader that must not act
twice keeps the keys it has seen. `ordinaut-correlation` and `ordinaut-depth` let a task that the
entry triggers know what caused it (I10), so that chains stay bounded. These names are reserved.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from redis.exceptions import (
    ClusterError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
    TryAgainError,
)

from ordinaut.domain.definition_model import MAX_STREAM
from ordinaut.work.tools.base import StepContext, Tool
from ordinaut.work.tools.errors import ToolError

KEY_FIELD = "ordinaut-key"
CORRELATION_FIELD = "ordinaut-correlation"
DEPTH_FIELD = "ordinaut-depth"

_PASSING = (ConnectionError, TimeoutError, OutOfMemoryError, ReadOnlyError, TryAgainError, ClusterError)


async def _add(given: Mapping[str, Any], ctx: StepContext) -> dict[str, Any]:
    fields: dict[Any, Any] = _fields(given) | {
        KEY_FIELD: ctx.idempotency_key,
        CORRELATION_FIELD: ctx.correlation,
        DEPTH_FIELD: str(ctx.depth),
    }
    try:
        entry = await ctx.services.redis.xadd(
            given["stream"], fields, maxlen=given.get("maxlen"), approximate=True
        )
    except RedisError as error:
        message = f"XADD {given['stream']}: {error or type(error).__name__}"
        raise ToolError(message, retryable=isinstance(error, _PASSING)) from error
    return {"id": entry.decode() if isinstance(entry, bytes) else str(entry)}


def _fields(given: Mapping[str, Any]) -> dict[str, str]:
    if "data" in given:
        return {"data": orjson.dumps(given["data"]).decode()}
    return {name: _text(value) for name, value in given["fields"].items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


ADD = Tool(
    name="stream.add",
    description="Adds an entry to a Redis stream: `data` as JSON in one field, or flat `fields`.",
    input_schema={
        "type": "object",
        "properties": {
            "stream": {
                "description": "a Redis key; those that start with ordinaut: are Ordinaut's own",
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_STREAM,
                "pattern": "^(?!ordinaut:)",
            },
            "data": {},
            "fields": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"type": ["string", "number", "boolean"]},
                "propertyNames": {
                    "description": "names that start with ordinaut- are reserved",
                    "pattern": "^(?!ordinaut-)",
                },
            },
            "maxlen": {"type": "integer", "minimum": 1},
        },
        "required": ["stream"],
        "additionalProperties": False,
        "allOf": [
            {
                "description": "give either data or fields",
                "oneOf": [{"required": ["data"]}, {"required": ["fields"]}],
            }
        ],
    },
    output_schema={
        "type": "object",
        "properties": {"id": {"type": "string"}},
        "required": ["id"],
        "additionalProperties": False,
    },
    call=_add,
    sample_output={"id": "0-1"},
    secrets=False,
)
