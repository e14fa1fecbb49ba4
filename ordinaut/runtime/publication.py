"""One event on its way into the log: what is appended for it, and what of it is in the log already."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ordinaut.domain import ids
from ordinaut.domain.definition import load_definition
from ordinaut.domain.errors import AlreadyExists
from ordinaut.domain.events import Event, NewEvent, reference
from ordinaut.domain.matching import Payload, envelope, payload_of
from ordinaut.domain.request import skip_occurrence
from ordinaut.domain.run import run_stream
from ordinaut.log.append import Append
from ordinaut.runtime.listening import Listening, listeners_of
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex, Verdict, requires, verdicts


@dataclass(frozen=True, slots=True)
class Incoming:
    """An event on its way in. `id` is a UUID version 8 (see ids): the same id is the same event. `data` may
    be a CloudEvent, which is opened for triggers as a stream entry's is."""

    stream: str
    data: Any
    id: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where events come from. `depth` says how many runs have caused one another up to them."""

    space: str
    actor: str
    correlation: str
    causation: str | None
    depth: int = 0


def event_stream(event_id: str) -> str:
    """The stream that holds an event that was received or rejected."""
    return f"event-{event_id}"


def event_run_id(event_id: str, task_id: str) -> str:
    """The run a task gets for one event; `event_id` is a UUID that begins with its milliseconds."""
    return ids.cause_id(uuid.UUID(event_id).int >> 80, "event", event_id, task_id)


class Publication:
    """One event on its way into the log."""

    def __init__(self, system: System, incoming: Incoming, origin: Origin) -> None:
        self._system = system
        self._event = incoming
        self._origin = origin
        self._payload: Payload = payload_of(incoming.data)
        self._cause = {"kind": "event", "stream": incoming.stream, "id": incoming.id}
        self.id = incoming.id
        self.stream = event_stream(incoming.id)
        self.verdicts: list[Verdict] = []

    def decide(self, index: TriggerIndex) -> None:
        """Hold the event against the triggers."""
        self.verdicts = self.decided(index.listening(self._event.stream, self._origin.space))

    def received(self) -> Append:
        """EventReceived."""
        data = {
            "stream": self._event.stream, "data": self._event.data, "depth": self._origin.depth,
            "tasks": [verdict.task.id for verdict in self.verdicts],
        }  # fmt: skip
        return self._appended(self.stream, NewEvent("EventReceived", data), self._origin.causation, {})

    def of_tasks(self, required: Mapping[str, int]) -> list[Append]:
        """The verdicts' appends."""
        return [self.of_task(verdict, required) for verdict in self.verdicts]

    def verdict_streams(self) -> list[str]:
        """The streams that the verdicts go to."""
        return [self._stream_of(verdict) for verdict in self.verdicts]

    def requested(self) -> list[str]:
        """The runs that the verdicts request."""
        return [
            self._run(one.task.id) for one in self.verdicts if one.event and one.event.type == "RunRequested"
        ]

    def own(self, streams: Mapping[str, Sequence[Event]]) -> Event:
        """EventReceived, as it was read."""
        received = streams[self.stream][0]
        if received.space != self._origin.space or received.type != "EventReceived":
            raise AlreadyExists(f"the event id {self.id} is in use")
        return received

    def streams_of(self, tasks: Sequence[str]) -> dict[str, str]:
        """Where the verdict for each of these tasks may be: task by stream."""
        return {
            name: task
            for task in tasks
            for name in (run_stream(self._run(task)), event_stream(self._rejection(task)))
        }

    async def late_verdict(self, task_id: str) -> Verdict:
        """The verdict on a task that has none yet."""
        # The event concerned the task when it was received; that the task has changed since does not
        # leave it without a verdict (I8).
        task = await self._system.tasks.load(task_id)
        if task.exists:
            listeners = listeners_of(task, load_definition(task.definition, task.name))
            found = self.decided(Listening([one for one in listeners if one.hears(self._event.stream)]))
            if found:
                return found[0]
        reason = task.skip_reason(self._system.time.now()) or "changed"
        return Verdict(task, skip_occurrence(task, self._cause, reason))

    def of_task(self, verdict: Verdict, required: Mapping[str, int]) -> Append:
        """The append of one verdict."""
        task = verdict.task
        cause = reference(self.stream, 1)
        if verdict.event is None:
            data = {"stream": self._event.stream, "id": self.id, "reason": verdict.error}
            rejected = NewEvent("EventRejected", data | {"task": task.id, "name": task.name})
            return self._appended(self._stream_of(verdict), rejected, cause, required)
        needed = {**requires(task), **required}
        return self._appended(self._stream_of(verdict), verdict.event, cause, needed)

    def _stream_of(self, verdict: Verdict) -> str:
        if verdict.event is None:
            return event_stream(self._rejection(verdict.task.id))
        return run_stream(self._run(verdict.task.id))

    def decided(self, listening: Listening) -> list[Verdict]:
        """What the event means for those that listen."""
        if not listening:
            return []
        milliseconds = uuid.UUID(self.id).int >> 80
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
        seen = envelope(
            self._payload,
            stream=self._event.stream,
            entry_id=self.id,
            time=at.isoformat(timespec="milliseconds"),
        )
        now = self._system.time.now()
        return list(verdicts(listening.concerned(seen), seen, self._cause, now=now, depth=self._origin.depth))

    def _appended(
        self, stream: str, event: NewEvent, causation: str | None, required: Mapping[str, int]
    ) -> Append:
        origin = self._origin
        return Append(
            stream, 0, (event,), origin.space, origin.actor, origin.correlation, causation, required
        )

    def _run(self, task_id: str) -> str:
        return event_run_id(self.id, task_id)

    def _rejection(self, task_id: str) -> str:
        return ids.cause_id(uuid.UUID(self.id).int >> 80, "rejected", self.id, task_id)
