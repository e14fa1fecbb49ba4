"""What a tool is, and what it gets to work with.

A tool is a named function with a JSON Schema for what it takes and one for what it gives. It has no
state of its own: everything it may touch outside comes with the step's context.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from ordinaut.work.tools.schemas import Check, compile_schema

TOOL_NAME = re.compile(r"[a-z][a-z0-9_-]*\.[a-z][a-z0-9_-]*")

Schema = Mapping[str, Any] | bool


class Services(Protocol):
    """What tools need from outside; the worker provides it."""

    @property
    def http(self) -> httpx.AsyncClient:
        """A client as `ordinaut.work.tools.http.new_client` makes it: shared, and without cookies."""

    @property
    def redis(self) -> Redis:
        """The Redis where streams are; with or without decoded responses."""

    async def publish(self, stream: str, data: Any, context: "StepContext") -> dict[str, Any]:
        """Accept an event durably, as `POST /v1/events` does: `{"id": …, "runs": [id, …]}`.

        Calling it again with the same `context.idempotency_key` gives the same answer and no second
        event. Raises an `OrdinautError` for what cannot be accepted.
        """


@dataclass(frozen=True, slots=True)
class StepContext:
    """Which step of which run is calling, and what it may use.

    `attempt` counts from 1; `idempotency_key` is `<run_id>/<step_id>`, so the same on every attempt
    (I9). What the step brings forth is recorded in the name of `actor` (the worker), with `causation`, the
    run's last event when the step began, as its cause (I10). `depth` says how many runs have caused each
    other up to this one. `simulate` means that nothing outside may be touched; `call_tool` sees to it.
    `marked` are the places of the input (JSON Pointers) where a mark stands in for a secret; only simulated
    runs have any.
    """

    run_id: str
    task: str
    space: str
    step_id: str
    attempt: int
    idempotency_key: str
    correlation: str
    actor: str
    causation: str
    depth: int
    simulate: bool
    services: Services
    log: FilteringBoundLogger
    marked: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """Something a step can do: `uses: <name>`, with input and output of a declared shape.

    - `name`: `tool.operation`, in lower case.
    - `input_schema`, `output_schema`: JSON Schema 2020-12; `{}` accepts everything and costs nothing.
    - `call(input, context)`: does the work; raises `ToolError` when it cannot.
    - `sample_output`: what a simulated run (`simulate: true`) gets instead of a call.
    - `immediate(input)`: for a pure function, which touches nothing outside and returns at once: it
      is then used instead of `call`, without a timeout around it, and in simulated runs too.
    - `secrets`: whether its input may hold `${secrets.…}`; not for tools that record what they are given.

    Raises ValueError for a bad name or schema.
    """

    name: str
    description: str
    input_schema: Schema
    output_schema: Schema
    call: Callable[[Any, StepContext], Awaitable[Any]]
    sample_output: Any = None
    immediate: Callable[[Any], Any] | None = None
    secrets: bool = True
    _check_input: Check | None = field(init=False, repr=False, compare=False)
    _check_output: Check | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not TOOL_NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is not a tool's name: it must be tool.operation, in lower case")
        object.__setattr__(self, "_check_input", compile_schema(self.input_schema, "input"))
        object.__setattr__(self, "_check_output", compile_schema(self.output_schema, "output"))

    def validate_input(self, value: Any, besides: Collection[str] = ()) -> None:
        """Raise `ToolFault`, naming the place, unless `value` is what the tool takes; the places `besides`
        (JSON Pointers) may hold anything."""
        if self._check_input is not None:
            self._check_input(value, besides)

    def validate_output(self, value: Any) -> None:
        """Raise `ToolFault`, naming the place, unless `value` is what the tool promises to give."""
        if self._check_output is not None:
            self._check_output(value, ())
