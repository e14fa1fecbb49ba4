"""Every event there is, version 1: names (past tense), what each carries, and the envelope.

An event's *reference* is `<stream>/<version>`, for example `run-0192…/1`. It is known before the
event has a position, so a batch can refer to its own events; `causation` holds such references (or
`redis:<stream>/<entry id>`, `schedule:<task id>@<instant>`, `request:<id>` for causes from outside).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

EventType = Literal[
    "TaskCreated",
    "TaskChanged",
    "TaskPaused",
    "TaskResumed",
    "TaskSnoozed",
    "TaskRetired",
    "OccurrenceSkipped",
    "BackfillRequested",
    "BackfillStopped",
    "BackfillFinished",
    "EventReceived",
    "EventRejected",
    "EventRequeued",
    "EventDropped",
    "EventCollected",
    "WindowClosed",
    "RunRequested",
    "RunStarted",
    "StepStarted",
    "StepSucceeded",
    "StepFailed",
    "StepSkipped",
    "RunRetryScheduled",
    "RunWaiting",
    "RunResumed",
    "RunSucceeded",
    "RunFailed",
    "RunCanceled",
    "RunParked",
    "AgentRegistered",
    "KeyIssued",
    "KeyRevoked",
    "SpaceChanged",
    "HookDefined",
    "HookRemoved",
    "HookRefused",
]

EVENT_TYPES: frozenset[str] = frozenset(get_args(EventType))

RUN_ENDED: frozenset[str] = frozenset({"RunSucceeded", "RunFailed", "RunCanceled", "RunParked"})
"""The events after which a run's stream takes no more work (`retry` requests a new attempt)."""

SCHEMA_VERSION = 1
"""The schema version new events are written with; older ones are upcast on read."""


# These two are made for every event there is; a frozen dataclass takes three times as long to make. Nobody
# changes one all the same.
@dataclass(slots=True)
class NewEvent:
    """An event that was decided and is not in the log yet."""

    type: EventType
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Event:
    """An event of the log: the columns of the table `events`."""

    position: int
    space: str
    stream: str
    version: int
    type: EventType
    schema: int
    at: datetime
    actor: str
    correlation: str
    causation: str | None
    data: dict[str, Any]

    @property
    def reference(self) -> str:
        """`<stream>/<version>`: how other events name this one as their cause."""
        return f"{self.stream}/{self.version}"


def reference(stream: str, version: int) -> str:
    """The reference an event will have once it is appended."""
    return f"{stream}/{version}"
