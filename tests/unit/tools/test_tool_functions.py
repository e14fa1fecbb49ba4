"""Functions become tools, and packages offer them by entry point."""

import asyncio
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from ordinaut.domain.errors import NotFound
from ordinaut.work.tools.base import StepContext
from ordinaut.work.tools.call import call_tool
from ordinaut.work.tools.errors import ToolError, ToolFault
from ordinaut.work.tools.functions import from_function, tool
from ordinaut.work.tools.registry import BUILT_IN, Registry

Contexts = Callable[..., StepContext]


class Place(BaseModel):
    city: str
    people: int = 0


@tool(name="text.shout")
def shout(text: Annotated[str, Field(max_length=5)], times: int = 1, _schema: bool = False) -> str:
    """Says it louder."""
    return text.upper() + "!" * times


def test_a_function_tells_its_schemas_by_its_hints() -> None:
    assert shout.name == "text.shout"
    assert shout.description == "Says it louder."
    assert shout.input_schema == {
        "type": "object",
        "properties": {
            "text": {"type": "string", "maxLength": 5, "title": "text"},
            "times": {"type": "integer", "default": 1, "title": "times"},
            "_schema": {"type": "boolean", "default": False, "title": "_schema"},
        },
        "required": ["text"],
        "additionalProperties": False,
    }
    assert shout.output_schema == {"type": "string"}


async def test_a_function_is_called_by_name_with_its_defaults(context: Contexts) -> None:
    assert await call_tool(shout, {"text": "hey", "times": 2}, context(), 10) == "HEY!!"
    assert await call_tool(shout, {"text": "hey"}, context(), 10) == "HEY!"


@pytest.mark.parametrize(
    ("given", "pointer"),
    [({}, "/text"), ({"text": "too long"}, "/text"), ({"text": "x", "loud": True}, "/loud")],
)
async def test_a_function_is_not_called_with_what_it_does_not_take(
    context: Contexts, given: Any, pointer: str
) -> None:
    with pytest.raises(ToolFault) as caught:
        await call_tool(shout, given, context(), 10)
    assert caught.value.pointer == pointer


async def test_arguments_and_results_are_converted(context: Contexts) -> None:
    async def later(at: datetime, place: Place, by: timedelta = timedelta(hours=1)) -> tuple[datetime, Place]:
        return at + by, place

    made = from_function(later, name="time.later")
    output = await call_tool(made, {"at": "2030-01-01T00:00:00Z", "place": {"city": "Ulm"}}, context(), 10)
    assert output == ["2030-01-01T01:00:00Z", {"city": "Ulm", "people": 0}]
    with pytest.raises(ToolFault) as caught:
        await call_tool(made, {"at": "tomorrow", "place": {"city": "Ulm"}}, context(), 10)
    assert caught.value.pointer == "/at"
    assert "tomorrow" not in caught.value.message


async def test_a_simulated_function_gives_something_of_its_type(context: Contexts) -> None:
    def never(n: int) -> Place:
        raise AssertionError("called")

    made = from_function(never, name="place.find")
    assert await call_tool(made, {"n": 1}, context(simulate=True), 10) == {"city": "", "people": 0}


async def test_a_plain_function_runs_beside_the_event_loop(context: Contexts) -> None:
    def where() -> int:
        return threading.get_ident()

    made = from_function(where, name="thread.where")
    assert await call_tool(made, {}, context(), 10) != threading.get_ident()


async def test_a_plain_function_that_hangs_does_not_hold_up_its_caller(context: Contexts) -> None:
    go_on = threading.Event()

    def hang() -> None:
        go_on.wait(30)

    with pytest.raises(ToolError, match="took longer") as caught:
        await call_tool(from_function(hang, name="thread.hang"), {}, context(), 0.01)
    go_on.set()
    assert caught.value.retryable is True


async def test_a_function_may_ask_for_the_context_and_for_everything_else(context: Contexts) -> None:
    async def tell(ctx: StepContext, **more: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"key": ctx.idempotency_key, **more}

    made = from_function(tell, name="context.tell")
    assert await call_tool(made, {"a": 1}, context(), 10) == {"key": "run-1/first", "a": 1}


async def test_a_result_of_another_type_than_promised_is_a_fault(context: Contexts) -> None:
    def wrong() -> int:
        return "x"  # type: ignore[return-value]

    with pytest.raises(ToolFault, match="must be integer, not string"):
        await call_tool(from_function(wrong, name="test.wrong"), {}, context(), 10)


def _positional(a: int, /) -> None: ...
def _many(*a: int) -> None: ...
def _unknown(a: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def _no_schema(a: threading.Event) -> None: ...


@pytest.mark.parametrize("function", [_positional, _many, _unknown, _no_schema])
def test_a_function_that_cannot_be_described_is_refused(function: Callable[..., None]) -> None:
    with pytest.raises(TypeError, match=r"test\.bad: the function cannot be a tool"):
        from_function(function, name="test.bad")


OFFERED = """
from ordinaut.work.tools.functions import tool

def double(n: int) -> int:
    "Twice as much."
    return 2 * n

async def triple(n: int) -> int:
    return 3 * n

@tool(name="number.half")
def half(n: float) -> float:
    return n / 2

NUMBER = 5
"""

ENTRY_POINTS = """
[ordinaut.tools]
number.double = {module}:double
number.triple = {module}:triple
half = {module}:half
debug.echo = {module}:double
nodot = {module}:double
number.five = {module}:NUMBER
number.gone = {module}:gone
number.lost = no_such_module_anywhere:x
number.exits = {module}_exits:x
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that offers tools, installed as far as importlib.metadata can tell."""
    module = "offered_tools_for_test"
    (tmp_path / f"{module}.py").write_text(OFFERED)
    (tmp_path / f"{module}_exits.py").write_text("raise SystemExit(3)")
    info = tmp_path / "offered-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: offered\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS.format(module=module))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module, raising=False)


@pytest.mark.usefixtures("installed")
async def test_an_installed_package_offers_functions_and_tools(context: Contexts) -> None:
    registry = Registry.load()
    assert {"number.double", "number.triple", "number.half", "debug.echo"} <= set(registry.names())
    assert registry.get("number.double").description == "Twice as much."
    for name, expected in (("number.double", 8), ("number.triple", 12), ("number.half", 2.0)):
        assert await call_tool(registry.get(name), {"n": 4}, context(), 10) == expected


@pytest.mark.usefixtures("installed")
def test_an_entry_point_that_fails_is_told_by_name_and_stops_nothing() -> None:
    registry = Registry.load()
    assert {"debug.echo", "nodot", "number.five", "number.gone", "number.lost", "number.exits"} <= set(
        registry.broken
    )
    assert "ModuleNotFoundError" in registry.broken["number.lost"]
    assert "already is a tool" in registry.broken["debug.echo"]
    assert "tool.operation" in registry.broken["nodot"]
    assert registry.get("debug.echo") in BUILT_IN
    with pytest.raises(NotFound, match="could not be loaded"):
        registry.get("number.gone")


def test_an_unknown_tool_is_told_with_what_is_nearest() -> None:
    with pytest.raises(NotFound, match=r"no tool 'http\.gett'; did you mean 'http\.get'\?"):
        Registry(BUILT_IN).get("http.gett")
    with pytest.raises(NotFound, match=r"there are: debug\.echo, event\.publish"):
        Registry(BUILT_IN).get("zzz")
