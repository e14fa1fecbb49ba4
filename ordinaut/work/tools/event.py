"""`event.publish`: an event that other tasks can be triggered by, as durable as the log itself."""

from collections.abc import Mapping
from typing import Any

from ordinaut.domain.definition_model import MAX_STREAM
from ordinaut.work.tools.base import StepContext, Tool


async def _publish(given: Mapping[str, Any], ctx: StepContext) -> dict[str, Any]:
    answer = await ctx.services.publish(given["stream"], given.get("data"), ctx)
    return {"id": answer["id"], "runs": list(answer["runs"])}


PUBLISH = Tool(
    name="event.publish",
    description="Publishes an event to a stream and gives its id and the runs it requested.",
    input_schema={
        "type": "object",
        "properties": {
            "stream": {"type": "string", "minLength": 1, "maxLength": MAX_STREAM},
            "data": {},
        },
        "required": ["stream"],
        "additionalProperties": False,
    },
    output_schema={
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "runs": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["id", "runs"],
        "additionalProperties": False,
    },
    call=_publish,
    sample_output={"id": "00000000-0000-8000-8000-000000000000", "runs": []},
    secrets=False,
)
