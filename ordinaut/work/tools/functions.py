"""Python functions as tools: the schemas follow from the type hints.

    @tool(name="text.shout")
    def shout(text: str, times: int = 1) -> str:
        \"\"\"Says it louder.\"\"\"
        return text.upper() + "!" * times

A parameter annotated `StepContext` gets the step's context. A plain function runs in a thread; one
that must be cancellable, or that waits much, is better `async`.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic_core import PydanticSerializationError

from ordinaut.domain.schema_faults import pointer_to
from ordinaut.work.tools.base import StepContext, Tool
from ordinaut.work.tools.errors import ToolFault
from ordinaut.work.tools.samples import sample_of

Function = Callable[..., Any]


def tool(
    *, name: str, description: str | None = None, sample_output: Any = None
) -> Callable[[Function], Tool]:
    """Decorator that makes a function a `Tool`, to be offered by an entry point `ordinaut.tools`.

    `sample_output` is what simulated runs get; without it, something of the return type. Raises
    ValueError or TypeError for a name or a function that cannot be a tool.
    """

    def decorate(function: Function) -> Tool:
        return from_function(function, name=name, description=description, sample_output=sample_output)

    return decorate


def from_function(
    function: Function, *, name: str, description: str | None = None, sample_output: Any = None
) -> Tool:
    """The tool that calls `function` with the members of its input as keyword arguments.

    Arguments are checked and converted as their type hints say (an annotated `datetime` arrives as
    one), the result is converted to JSON. Raises TypeError for positional-only parameters, `*args`,
    hints that cannot be resolved or have no JSON Schema.
    """
    try:
        signature = inspect.signature(function, eval_str=True)
        model, fields, context = _arguments(name, signature)
        hint = signature.return_annotation
        result: TypeAdapter[Any] = TypeAdapter(Any if hint is inspect.Signature.empty else hint)
        takes = model.model_json_schema()
        gives = result.json_schema(mode="serialization")
    except Exception as error:
        raise TypeError(f"{name}: the function cannot be a tool: {error}") from error
    return Tool(
        name=name,
        description=description or inspect.getdoc(function) or "",
        input_schema={key: value for key, value in takes.items() if key != "title"},
        output_schema=gives,
        call=_caller(function, model, fields, context, result),
        sample_output=sample_of(gives) if sample_output is None else sample_output,
    )


def _arguments(name: str, signature: inspect.Signature) -> tuple[type[BaseModel], dict[str, str], str | None]:
    """A model of the input, its fields with the parameter each is for, and the context's parameter."""
    definitions: dict[str, Any] = {}
    fields: dict[str, str] = {}
    context, extra = None, "forbid"
    for number, parameter in enumerate(signature.parameters.values()):
        hint = Any if parameter.annotation is parameter.empty else parameter.annotation
        if hint is StepContext:
            context = parameter.name
        elif parameter.kind is parameter.VAR_KEYWORD:
            extra = "allow"
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise TypeError(f"parameter {parameter.name!r} cannot be given by name")
        else:
            # Parameters may have names that a model's field cannot have ("schema", "_x").
            field = f"p{number}"
            default = ... if parameter.default is parameter.empty else parameter.default
            definitions[field] = (hint, Field(default, alias=parameter.name, title=parameter.name))
            fields[field] = parameter.name
    config = ConfigDict(extra="allow" if extra == "allow" else "forbid", arbitrary_types_allowed=False)
    return create_model(name, __config__=config, **definitions), fields, context


def _caller(
    function: Function,
    model: type[BaseModel],
    fields: Mapping[str, str],
    context: str | None,
    result: TypeAdapter[Any],
) -> Callable[[Any, StepContext], Awaitable[Any]]:
    is_async = inspect.iscoroutinefunction(function)

    async def call(given: Any, ctx: StepContext) -> Any:
        try:
            checked = model.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise ToolFault(pointer_to(first["loc"]), first["msg"]) from None
        arguments = {parameter: getattr(checked, field) for field, parameter in fields.items()}
        arguments |= checked.model_extra or {}
        if context is not None:
            arguments[context] = ctx
        if is_async:
            output = await function(**arguments)
        else:
            # A thread cannot be stopped: after a timeout or a cancel it is left to itself.
            output = await anyio.to_thread.run_sync(partial(function, **arguments), abandon_on_cancel=True)
        try:
            return result.dump_python(output, mode="json", warnings=False)
        except (PydanticSerializationError, UnicodeDecodeError) as error:
            raise ToolFault("", f"is not JSON: {error}", place="output") from None

    return call
