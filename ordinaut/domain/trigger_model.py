"""The shape of `on`: what a task listens to, and the pattern by which it collects what it hears."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from ordinaut.domain.definition_model import (
    MAX_STREAM,
    STEP_PATTERN,
    STREAM_PATTERN,
    Duration,
    DurationOrZero,
    Model,
    close_match,
)
from ordinaut.domain.events import EVENT_TYPES
from ordinaut.domain.patterns import LARGEST

MOST_PARTS = 10
"""The most parts a pattern has."""


def _event_type(value: Any) -> Any:
    if isinstance(value, str) and value in EVENT_TYPES:
        return value
    raise PydanticCustomError(
        "event_type", "not a type of event of the log", {"hint": close_match(str(value)[:100], EVENT_TYPES)}
    )


Stream = Annotated[str, Field(min_length=1, max_length=MAX_STREAM, pattern=STREAM_PATTERN)]
EventType = Annotated[str, BeforeValidator(_event_type)]
Key = Annotated[str, Field(min_length=1, max_length=4096)]


class DebounceModel(Model):
    """`on.debounce`: one run, for the last event, when nothing has come for `quiet`, or after `max_wait`."""

    quiet: Duration
    max_wait: Duration | None = None
    lateness: DurationOrZero = "0s"


class BatchModel(Model):
    """`on.batch`: one run for `size` events, or for those that came within `time`."""

    size: int = Field(default=100, ge=1, le=LARGEST)
    time: Duration
    lateness: DurationOrZero = "0s"


class ThrottleModel(Model):
    """`on.throttle`: at most `limit` runs in a `window`, for the first events in it or for the last."""

    limit: int = Field(default=1, ge=1, le=1000)
    window: Duration
    keep: Literal["first", "last"] = "first"
    lateness: DurationOrZero = "0s"


class SourceModel(Model):
    """An event that is waited for: of a stream (or of all that a pattern such as `orders.*` stands for), or
    of a type of the log's own. Which of the two is looked at in domain/trigger.py."""

    stream: Stream | None = None
    event: EventType | None = None
    where: str | None = None
    input: Any = None
    key: Key | None = None


class PartModel(SourceModel):
    """One of the events of `on.sequence` or `on.all_of`."""

    name: str = Field(pattern=STEP_PATTERN)


class TogetherModel(Model):
    """`on.sequence` and `on.all_of`: one run when an event of each part came within `within`."""

    within: Duration
    lateness: DurationOrZero = "0s"
    events: list[PartModel] = Field(min_length=2, max_length=MOST_PARTS)


class AbsentModel(Model):
    """`on.absent`: one run when no `expected` event (None: another like `after`) came within `within` of the
    event `after`."""

    within: Duration
    lateness: DurationOrZero = "0s"
    after: SourceModel
    expected: SourceModel | None = None


class _Listening(Model):
    where: str | None = None
    input: Any = None
    key: Key | None = None
    debounce: DebounceModel | None = None
    batch: BatchModel | None = None
    throttle: ThrottleModel | None = None


class OnModel(_Listening):
    """`on`: the entries of which stream (or of all that a pattern such as `orders.*` stands for) start a run.
    `where` and `input` see the entry."""

    stream: Stream


class OnEventModel(_Listening):
    """`on`: the log's own events of which type, in the task's space, start a run."""

    event: EventType


class OnPartsModel(Model):
    """`on` with a pattern of several parts; `stream` or `event` is for those that name none."""

    stream: Stream | None = None
    event: EventType | None = None
    key: Key | None = None
    sequence: TogetherModel | None = None
    all_of: TogetherModel | None = None
    absent: AbsentModel | None = None
