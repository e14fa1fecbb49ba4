"""A call of a tool gives plain JSON, or an error that says whether to try again."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ordinaut.domain.errors import Invalid, OrdinautError, Unavailable, VersionConflict
from ordinaut.work.tools import debug, event, log
from ordinaut.work.tools.base import StepContext, Tool
from ordinaut.work.tools.call import OUTPUT_LIMIT, call_tool, plain_json
from ordinaut.work.tools.errors import ToolError, ToolFault
from ordinaut.work.tools.registry import BUILT_IN

Contexts = Callable[..., StepContext]

storable_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | storable_text,
    lambda inner: st.lists(inner) | st.dictionaries(storable_text, inner),
    max_leaves=20,
)


def giving(output: Any, schema: Any = True) -> Tool:
    async def call(given: Any, ctx: StepContext) -> Any:
        if isinstance(output, Exception):
            raise output
        return output

    return Tool("test.gives", "", {}, schema, call)


async def failure(tool: Tool, ctx: StepContext, given: Any = None) -> ToolError:
    with pytest.raises(ToolError) as caught:
        await call_tool(tool, given, ctx, 10)
    return caught.value


@given(json_values)
def test_plain_json_comes_back_as_it_was(value: Any) -> None:
    assert plain_json(value) == value


@given(json_values)
async def test_echo_gives_back_its_with(value: Any) -> None:
    ctx = StepContext("r", "t", "s", "i", 1, "r/i", "c", "w", "run-r/2", 0, False, None, None)  # type: ignore[arg-type]
    assert await call_tool(debug.ECHO, value, ctx, 10) == value


@pytest.mark.parametrize(
    ("output", "pointer", "told"),
    [
        ({"a": [1, "x\0y"]}, "/a/1", "NUL"),
        ({"a\0": 1}, "", "NUL"),
        ({"a": {"b/c": float("nan")}}, "/a/b~1c", "not a finite number"),
        ([None, float("-inf")], "/1", "not a finite number"),
        (object(), "", "is not JSON"),
        ({1: 2}, "", "is not JSON"),
        ({"a": 2**70}, "", "is not JSON"),
        ("\ud800", "", "is not JSON"),
        ("x" * OUTPUT_LIMIT, "", "bytes of JSON"),
    ],
)
async def test_an_output_the_log_cannot_hold_is_refused(
    context: Contexts, output: Any, pointer: str, told: str
) -> None:
    error = await failure(giving(output), context())
    assert isinstance(error, ToolFault)
    assert (error.place, error.pointer, error.retryable) == ("output", pointer, False)
    assert told in error.message


async def test_text_that_only_looks_like_nul_or_null_is_kept(context: Contexts) -> None:
    output = {"a": "\\u0000", "b": None, "c": "null"}
    assert await call_tool(giving(output), None, context(), 10) == output


async def test_an_output_of_the_wrong_shape_is_told_with_its_place(context: Contexts) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    error = await failure(giving({"n": "x"}, schema), context())
    assert error.message == "output at /n: must be integer, not string"
    assert error.as_json() == {
        "message": error.message,
        "retryable": False,
        "details": {"place": "output", "pointer": "/n"},
    }


async def test_a_call_that_takes_too_long_may_be_tried_again(context: Contexts) -> None:
    async def call(given: Any, ctx: StepContext) -> Any:
        await asyncio.Event().wait()

    with pytest.raises(ToolError, match=r"took longer than 0.01 s") as caught:
        await call_tool(Tool("test.hangs", "", {}, {}, call), {}, context(), 0.01)
    assert caught.value.retryable is True


async def test_cancelling_the_caller_is_not_an_error_of_the_tool(context: Contexts) -> None:
    began = asyncio.Event()

    async def call(given: Any, ctx: StepContext) -> Any:
        began.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(call_tool(Tool("test.hangs", "", {}, {}, call), {}, context(), 60))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(
    ("raised", "retryable"),
    [
        (ToolError("no", retryable=False), False),
        (ToolError("busy", retryable=True), True),
        (Unavailable("no database"), True),
        (VersionConflict("run-1", 1, 2), True),
        (Invalid.at("/stream", "is too long"), False),
        (OrdinautError("odd"), False),
        (ConnectionResetError("gone"), True),
        (TimeoutError(), True),
        (KeyError("x"), True),
    ],
)
async def test_every_failure_says_whether_to_try_again(
    context: Contexts, raised: Exception, retryable: bool
) -> None:
    error = await failure(giving(raised), context())
    assert error.retryable is retryable
    orjson.dumps(error.as_json())


async def test_a_fault_of_ours_keeps_its_places(context: Contexts) -> None:
    error = await failure(giving(Invalid.at("/stream", "is too long")), context())
    assert error.details == {"faults": [{"pointer": "/stream", "message": "is too long"}]}


async def test_a_pure_function_that_fails_is_not_tried_again(context: Contexts) -> None:
    tool = Tool("test.pure", "", {}, {}, debug.ECHO.call, immediate=lambda given: given["missing"])
    assert (await failure(tool, context(), {})).retryable is False


VALID_INPUT: dict[str, Any] = {
    "http.get": {"url": "http://x"},
    "http.post": {"url": "http://x", "json": {}},
    "http.request": {"url": "http://x", "method": "PUT"},
    "event.publish": {"stream": "orders", "data": 1},
    "stream.add": {"stream": "orders", "data": 1},
    "log.write": {"message": "hello"},
    "debug.echo": {"any": "thing"},
}


@pytest.mark.parametrize("tool", BUILT_IN, ids=lambda tool: tool.name)
async def test_a_simulated_step_calls_nothing(context: Contexts, tool: Tool) -> None:
    with capture_logs() as lines:
        output = await call_tool(tool, VALID_INPUT[tool.name], context(simulate=True), 10)
    assert lines == []
    tool.validate_output(output)


async def test_a_simulated_step_checks_its_input(context: Contexts) -> None:
    with pytest.raises(ToolFault):
        await call_tool(event.PUBLISH, {}, context(simulate=True), 10)


async def test_what_is_done_to_a_sample_stays_with_its_run(context: Contexts) -> None:
    first = await call_tool(event.PUBLISH, {"stream": "s"}, context(simulate=True), 10)
    first["runs"].append("x")
    assert (await call_tool(event.PUBLISH, {"stream": "s"}, context(simulate=True), 10))["runs"] == []


async def test_a_simulated_echo_is_still_an_echo(context: Contexts) -> None:
    assert await call_tool(debug.ECHO, {"a": 1}, context(simulate=True), 10) == {"a": 1}


async def test_a_published_event_is_handed_over_with_its_cause(context: Contexts) -> None:
    class Publisher:
        async def publish(self, stream: str, data: Any, ctx: StepContext) -> dict[str, Any]:
            self.got = (stream, data, ctx)
            return {"id": "e1", "runs": ("r1",), "position": 7}

    services = Publisher()
    ctx = context(services)
    output = await call_tool(event.PUBLISH, {"stream": "orders", "data": {"id": 7}}, ctx, 10)
    assert output == {"id": "e1", "runs": ["r1"]}
    assert services.got == ("orders", {"id": 7}, ctx)


async def test_a_written_line_carries_run_task_and_correlation(context: Contexts) -> None:
    said = {"message": "done", "level": "warning", "fields": {"run": "another", "event": "x"}}
    with capture_logs() as lines:
        assert await call_tool(log.WRITE, said, context(), 10) == {}
    assert lines == [
        {
            "event": "done",
            "log_level": "warning",
            "run": "run-1",
            "task": "backup",
            "correlation": "corr-1",
            "step": "first",
            "fields": {"run": "another", "event": "x"},
        }
    ]
