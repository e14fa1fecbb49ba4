"""`log.write`: a line in the worker's structured log."""

from collections.abc import Mapping
from typing import Any

from ordinaut.work.tools.base import StepContext, Tool


async def _write(given: Mapping[str, Any], ctx: StepContext) -> dict[str, Any]:
    log = ctx.log.bind(run=ctx.run_id, task=ctx.task, correlation=ctx.correlation, step=ctx.step_id)
    write = {"debug": log.debug, "info": log.info, "warning": log.warning, "error": log.error}
    # Under a key of their own, so that no field can pass for the line's run, level or time.
    extra = {"fields": given["fields"]} if given.get("fields") else {}
    write[given.get("level", "info")](given["message"], **extra)
    return {}


WRITE = Tool(
    name="log.write",
    description="Writes one line to the worker's log, with the run, the task and the correlation.",
    input_schema={
        "type": "object",
        "properties": {
            "message": {"type": "string", "minLength": 1, "maxLength": 10_000},
            "level": {"enum": ["debug", "info", "warning", "error"], "default": "info"},
            "fields": {"type": "object"},
        },
        "required": ["message"],
        "additionalProperties": False,
    },
    output_schema={"type": "object", "additionalProperties": False},
    call=_write,
    sample_output={},
    secrets=False,
)
