"""The shape of a task definition: pydantic models, and their errors as faults a person can mend.

What spans several places (ids used twice, references to steps that do not exist) is checked in
definition_checks; the schedule is read by ordinaut.domain.schedules.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from ordinaut.domain.durations import format_duration, parse_duration
from ordinaut.domain.errors import Fault
from ordinaut.domain.jsonvalues import escape
from ordinaut.domain.policy import Backoff, Overlap

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,127}\Z"
STEP_PATTERN = r"^[A-Za-z_][A-Za-z0-9_-]{0,63}\Z"
TOOL_PATTERN = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+\Z"
STREAM_PATTERN = r"^(?!ordinaut:)"

MAX_STREAM = 512
"""The longest name of a stream, in characters."""
MAX_STEPS = 100
LONGEST = timedelta(days=366)
"""The longest duration a definition may name."""

_PATTERNS = {
    NAME_PATTERN: "lower-case letters, digits, '.', '_' and '-', at most 128, the first a letter or digit",
    STEP_PATTERN: "letters, digits, '_' and '-', at most 64, the first a letter or '_'",
    TOOL_PATTERN: "a tool and its operation, such as http.get",
    STREAM_PATTERN: "streams named ordinaut:… are the system's own",
}
_DURATION = "such as 90s, 15m, 2h or PT1H30M"


def _duration(value: Any, *, zero: bool) -> str:
    if zero and not isinstance(value, bool) and value in (0, "0"):
        return format_duration(timedelta(0))
    if not isinstance(value, str):
        raise PydanticCustomError("duration", "a duration is text", {"hint": _DURATION})
    try:
        duration = parse_duration(value)
    except (ValueError, OverflowError) as error:
        raise PydanticCustomError("duration", "{reason}", {"reason": str(error)}) from error
    if duration > LONGEST:
        raise PydanticCustomError("duration", "the duration is longer than a year", {"hint": _DURATION})
    if duration < timedelta(0) or (duration == timedelta(0) and not zero):
        raise PydanticCustomError("duration", "the duration must be more than 0", {"hint": _DURATION})
    return format_duration(duration)


Duration = Annotated[str, BeforeValidator(lambda value: _duration(value, zero=False))]
DurationOrZero = Annotated[str, BeforeValidator(lambda value: _duration(value, zero=True))]


Bag = BeforeValidator(lambda value: {} if value is None else value)
"""An object where `null` (an empty key in YAML) is the empty object."""


def _schedule(value: Any) -> Any:
    if value is None or isinstance(value, (dict, list)):
        return value
    raise PydanticCustomError(
        "schedule", "an object is needed, or a list of them", {"hint": "{cron: 0 8 * * *}"}
    )


Schedule = Annotated[
    Any,
    BeforeValidator(_schedule),
    WithJsonSchema(
        {"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}, {"type": "null"}]}
    ),
]
"""One schedule, or a list of them."""


class Model(BaseModel):
    """Refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, regex_engine="python-re")


class RetryModel(Model):
    """`retry` of a step; `max_attempts: 1` is no retry."""

    max_attempts: int = Field(default=1, ge=1, le=100)
    backoff: Backoff = "exponential"
    base: DurationOrZero = "1s"
    max: Duration = "1m"
    jitter: bool = True


class StepModel(Model):
    """One step of the pipeline."""

    id: str = Field(pattern=STEP_PATTERN)
    uses: str = Field(pattern=TOOL_PATTERN, max_length=128)
    with_: Annotated[Any, Bag] = Field(default_factory=dict, alias="with")
    if_: str | None = Field(default=None, alias="if")
    retry: Annotated[RetryModel, Bag] = RetryModel()
    timeout: Duration = "30s"
    save_as: str | None = Field(default=None, pattern=STEP_PATTERN)
    title: str | None = Field(default=None, max_length=500)


class ConcurrencyModel(Model):
    """`policy.concurrency`."""

    key: str = Field(min_length=1, max_length=4096)
    limit: int = Field(ge=1, le=10_000)


class CatchUpAllModel(Model):
    """The bounds of `catch_up: {all: …}`; `window: null` is no bound on the age."""

    max: int = Field(default=1000, ge=1, le=10_000)
    window: Duration | None = None


class CatchUpModel(Model):
    """`catch_up: {all: …}`."""

    all: CatchUpAllModel


def _catch_up(value: Any) -> Any:
    if value in ("none", "latest", "all") or isinstance(value, dict):
        return {"all": {}} if value == "all" else value
    raise PydanticCustomError(
        "catch_up", "not a way to catch up", {"hint": "none, latest, all, or {all: {max: 100, window: 1d}}"}
    )


CatchUp = Annotated[
    Annotated[Literal["none", "latest"], Tag("<word>")] | Annotated[CatchUpModel, Tag("<bounds>")],
    Discriminator(lambda value: "<word>" if isinstance(value, str) else "<bounds>"),
    BeforeValidator(_catch_up),
]


class PolicyModel(Model):
    """`policy`: 0 is the least urgent priority and 9 the most."""

    priority: int = Field(default=5, ge=0, le=9)
    timeout: Duration = "1h"
    max_attempts: int = Field(default=5, ge=1, le=100)
    concurrency: ConcurrencyModel | None = None
    catch_up: CatchUp = "latest"
    overlap: Overlap = "skip"
    jitter: DurationOrZero = "0s"


class TaskModel(Model):
    """A whole definition; `schedule` is looked into elsewhere."""

    name: str = Field(pattern=NAME_PATTERN)
    title: str | None = Field(default=None, max_length=500)
    labels: Annotated[dict[str, str], Bag] = Field(default_factory=dict)
    schedule: Schedule = None
    params: Annotated[dict[str, Any], Bag] = Field(default_factory=dict)
    pipeline: list[StepModel] = Field(min_length=1, max_length=MAX_STEPS)
    policy: Annotated[PolicyModel, Bag] = PolicyModel()


def close_match(word: str, known: Iterable[str]) -> str:
    """A hint naming what is most like `word`, or all there is when nothing is (and it is not too much)."""
    choices = sorted(known)
    if matches := difflib.get_close_matches(word, choices, n=1, cutoff=0.6):
        return f"did you mean {matches[0]!r}?"
    return f"known here: {', '.join(choices)}" if 0 < len(choices) <= 20 else ""


def read_model(
    model: type[Model], document: Mapping[str, Any], pointer: str = ""
) -> tuple[dict[str, Any], list[Fault]]:
    """`document` with the model's defaults filled in; or every place where it has not the model's shape,
    with pointers below `pointer` (and nothing filled in)."""
    try:
        return model.model_validate(document).model_dump(by_alias=True), []
    except ValidationError as error:
        found = error.errors(include_url=False)
        return {}, [_fault(model, one, pointer) for one in found]


_BRANCHES = frozenset({"<word>", "<bounds>"})
"""What pydantic adds to a location to say which part of `catch_up` it tried."""


_NEEDED = {
    "model_type": "an object is needed",
    "dict_type": "an object is needed",
    "list_type": "a list is needed",
    "string_type": "text is needed",
    "int_type": "a whole number is needed",
    "bool_type": "true or false is needed",
}


def _fault(model: type[Model], error: ErrorDetails, prefix: str) -> Fault:
    place = [part for part in error["loc"] if part not in _BRANCHES]
    pointer = prefix + "".join("/" + escape(part) for part in place)
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            name = str(place[-1])
            return Fault(
                pointer, f"there is no field {name!r}", close_match(name, _fields_at(model, place[:-1]))
            )
        case "missing":
            return Fault(pointer, f"the field {str(place[-1])!r} is missing")
        case "string_pattern_mismatch":
            if context["pattern"] not in _PATTERNS:
                return Fault(pointer, "streams named ordinaut:… are the system's own", "name another stream")
            return Fault(
                pointer, f"{_shown(error['input'])} is not allowed here", _PATTERNS[context["pattern"]]
            )
        case "literal_error":
            return Fault(pointer, f"{_shown(error['input'])} is not allowed here", f"{context['expected']}")
        case "too_short" if place == ["pipeline"]:
            return Fault(pointer, "a pipeline has at least one step", "[{id: …, uses: tool.operation}]")
    if needed := _NEEDED.get(error["type"]):
        return Fault(pointer, f"{_shown(error['input'])} is not allowed here", needed)
    message = error["msg"][:1].lower() + error["msg"][1:]
    return Fault(pointer, message.replace("input should", "it should"), str(context.get("hint", "")))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _fields_at(model: type[Model], place: list[int | str]) -> list[str]:
    there = model
    for name in (part for part in place if isinstance(part, str)):
        fields = {field.alias or name: field for name, field in there.model_fields.items()}
        there = next(_models_in(fields[name].annotation))
    names = [field.alias or name for name, field in there.model_fields.items()]
    return [*names, "on"] if there is TaskModel else names


def _models_in(annotation: Any) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
