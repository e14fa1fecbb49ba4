"""`debug.echo`: gives back what it was given; for trying things out and for measuring."""

from typing import Any

from ordinaut.work.tools.base import StepContext, Tool


def _echo(given: Any) -> Any:
    return given


async def _call(given: Any, ctx: StepContext) -> Any:
    return given


ECHO = Tool(
    name="debug.echo",
    description="Gives back its `with`, whatever it is.",
    input_schema={},
    output_schema={},
    call=_call,
    immediate=_echo,
)
