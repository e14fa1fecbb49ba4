"""One call of a tool: check what goes in, call, check what comes out.

Whatever goes wrong on the way becomes a `ToolError` that says whether another attempt makes sense.
Cancellation passes through untouched.
"""

import asyncio
import math
from collections.abc import Callable, Collection
from typing import Any

import orjson

from ordinaut.domain.errors import OrdinautError, Unavailable, VersionConflict
from ordinaut.domain.schema_faults import pointer_to
from ordinaut.work.tools.base import StepContext, Tool
from ordinaut.work.tools.errors import ToolError, ToolFault

OUTPUT_LIMIT = 1024 * 1024
"""How large an output may be, in bytes of JSON: it is kept in the log for ever."""

_MESSAGE_LIMIT = 1000
# orjson would write these its own way; a tool's schema describes JSON, so the tool converts them.
_PLAIN_ONLY = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


async def call_tool(tool: Tool, rendered_input: Any, ctx: StepContext, timeout_seconds: float) -> Any:
    """Call `tool` with a step's rendered `with` and return its output: plain JSON, at most 1 MiB.

    With `ctx.simulate` nothing is called: the tool's sample is the output. Raises `ToolError`, always
    and only: not retryable for input or output of the wrong shape, retryable for a timeout
    (`timeout_seconds` for the whole call) and for an error the tool did not foresee.
    """
    if tool.immediate is not None:
        return call_immediate(tool, rendered_input, ctx.marked)
    tool.validate_input(rendered_input, ctx.marked)
    if ctx.simulate:
        return plain_json(tool.sample_output)
    else:
        output = await _call_within(tool, rendered_input, ctx, timeout_seconds)
    output = plain_json(output)
    tool.validate_output(output)
    return output


def call_immediate(tool: Tool, rendered_input: Any, marked: Collection[str] = ()) -> Any:
    """`call_tool` for a tool that is `immediate`: of the context it needs what is `marked`, and there is
    nothing to wait for."""
    assert tool.immediate is not None
    tool.validate_input(rendered_input, marked)
    output = plain_json(_call_immediate(tool, tool.immediate, rendered_input))
    tool.validate_output(output)
    return output


def plain_json(value: Any) -> Any:
    """`value` as it will be read back from the log, in new objects.

    Raises `ToolFault` for what the log cannot hold: what is not JSON, a number that is not finite, a
    NUL character, more than 1 MiB.
    """
    try:
        encoded = orjson.dumps(value, option=_PLAIN_ONLY)
    except TypeError as error:
        raise ToolFault("", f"is not JSON: {error}", place="output") from None
    if len(encoded) > OUTPUT_LIMIT:
        message = f"is {len(encoded)} bytes of JSON, and at most {OUTPUT_LIMIT} are kept"
        raise ToolFault("", message, place="output")
    # Both are rare, so a look at the bytes spares the walk: orjson writes NaN and Infinity as null.
    if b"null" in encoded or b"\\u0000" in encoded:
        _refuse_unstorable(value, ())
    return orjson.loads(encoded)


def _call_immediate(tool: Tool, function: Callable[[Any], Any], rendered_input: Any) -> Any:
    try:
        return function(rendered_input)
    except Exception as error:
        # A pure function would only fail the same way again.
        raise _tool_error(tool, error, retryable=False) from error


async def _call_within(tool: Tool, rendered_input: Any, ctx: StepContext, timeout_seconds: float) -> Any:
    try:
        async with asyncio.timeout(timeout_seconds) as limit:
            return await tool.call(rendered_input, ctx)
    except TimeoutError as error:
        if limit.expired():
            message = f"{tool.name} took longer than {timeout_seconds:g} s"
            raise ToolError(message, retryable=True, details={"timeout": timeout_seconds}) from error
        raise _tool_error(tool, error) from error
    except Exception as error:
        raise _tool_error(tool, error) from error


def _tool_error(tool: Tool, error: Exception, retryable: bool = True) -> ToolError:
    match error:
        case ToolError():
            return error
        case OrdinautError():
            again = isinstance(error, Unavailable | VersionConflict)
            faults = [{"pointer": fault.pointer, "message": fault.message} for fault in error.faults]
            details = {"faults": faults} if faults else {}
            return ToolError(error.message[:_MESSAGE_LIMIT], retryable=again, details=details)
        case _:
            told = f"{tool.name}: {type(error).__name__}: {error}"
            return ToolError(told[:_MESSAGE_LIMIT], retryable=retryable)


def _refuse_unstorable(value: Any, path: tuple[str | int, ...]) -> None:
    match value:
        case str():
            if "\0" in value:
                raise ToolFault(pointer_to(path), "holds a NUL character (U+0000)", place="output")
        case float():
            if not math.isfinite(value):
                raise ToolFault(pointer_to(path), "is not a finite number", place="output")
        case dict():
            for name, member in value.items():
                if "\0" in name:
                    raise ToolFault(pointer_to(path), "has a name with a NUL character", place="output")
                _refuse_unstorable(member, (*path, name))
        case list() | tuple():
            for index, item in enumerate(value):
                _refuse_unstorable(item, (*path, index))
