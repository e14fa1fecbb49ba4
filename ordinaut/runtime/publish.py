"""Accepting an event that comes by POST /v1/events or from a step: the same as a stream entry, durable.

The event goes into the log (EventReceived) with the list of the tasks it concerns, and each of those
gets its verdict (RunRequested or OccurrenceSkipped). All of it is handed to the appender at once, which
is one commit unless the batch is cut where it is full. It is acknowledged when all of it is on disk; if
it was cut and the rest failed, whoever sent it hears `Unavailable`, and sending it again with the same
event id completes what is missing and repeats nothing.
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ordinaut.domain import ids
from ordinaut.domain.definition import load_definition
from ordinaut.domain.definition_model import MAX_STREAM
from ordinaut.domain.errors import AlreadyExists, Fault, Invalid, VersionConflict
from ordinaut.domain.events import Event, NewEvent, reference
from ordinaut.domain.jsonvalues import faults_in, text_fault
from ordinaut.domain.matching import Payload, envelope, payload_of
from ordinaut.domain.request import skip_occurrence
from ordinaut.domain.run import run_stream
from ordinaut.log.append import Append
from ordinaut.log.read import read_streams
from ordinaut.runtime.listening import Listener, Listening
from ordinaut.runtime.streams import RESERVED
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex, Verdict, requires, verdicts


def event_stream(event_id: str) -> str:
    """The stream that holds an event that was received or rejected."""
    return f"event-{event_id}"


def event_run_id(event_id: str, task_id: str) -> str:
    """The run a task gets for one event; `event_id` is a UUID that begins with its milliseconds."""
    return ids.cause_id(uuid.UUID(event_id).int >> 80, "event", event_id, task_id)


async def publish_event(
    system: System,
    index: TriggerIndex,
    *,
    space: str,
    stream: str,
    data: Any,
    event_id: str,
    actor: str,
    correlation: str,
    causation: str | None,
    depth: int,
) -> dict[str, Any]:
    """Accept an event: `{"id": event id, "runs": [ids of the runs it requested], "position": N}`, where N
    is the position of the last event that was appended for it.

    `event_id` is a UUID version 8 (see ids). Called again with the same one it gives the same answer,
    whatever else has changed. `depth` says how many runs have caused one another up to this event.
    Raises `Invalid` with every fault of `stream` and `data`, `AlreadyExists` when the id belongs to an
    event of another space, `Unavailable` when it is not known whether the event was recorded.
    """
    payload = _checked(stream, data)
    publication = _Publication(system, space, stream, event_id, actor, correlation, depth)
    return await publication.publish(index, payload, data, causation)


def _checked(stream: str, data: Any) -> Payload:
    faults = [fault.under("/data") for fault in faults_in(data)]
    if not stream or len(stream) > MAX_STREAM:
        faults.append(Fault("/stream", f"a stream's name has 1 to {MAX_STREAM} characters"))
    elif fault := text_fault(stream):
        faults.append(Fault("/stream", fault))
    elif stream.startswith(RESERVED):
        faults.append(
            Fault("/stream", f"streams named {RESERVED}… are the system's own", "name another stream")
        )
    if faults:
        raise Invalid.all_of(faults)
    return payload_of(data)


class _Publication:
    """One event on its way into the log."""

    def __init__(
        self, system: System, space: str, stream: str, event_id: str, actor: str, correlation: str, depth: int
    ) -> None:
        self._system = system
        self._space = space
        self._stream = stream
        self._id = event_id
        self._actor = actor
        self._correlation = correlation
        self._depth = depth
        self._cause = {"kind": "event", "stream": stream, "id": event_id}

    async def publish(
        self, index: TriggerIndex, payload: Payload, data: Any, causation: str | None
    ) -> dict[str, Any]:
        await index.refresh()
        found = self._verdicts(index.listening(self._stream, self._space), payload)
        received = NewEvent(
            "EventReceived",
            {
                "stream": self._stream, "data": data, "depth": self._depth,
                "tasks": [verdict.task.id for verdict in found],
            },
        )  # fmt: skip
        first = self._append(event_stream(self._id), received, causation)
        # With the event's stream required not to be there yet, a repetition adds nothing by itself.
        unheard = {event_stream(self._id): 0}
        outcomes = await self._system.appender.append_all(
            [first, *(self._of_task(verdict, unheard) for verdict in found)]
        )
        if not any(isinstance(outcome, VersionConflict) for outcome in outcomes):
            positions = [outcome.position for outcome in outcomes if not isinstance(outcome, VersionConflict)]
            runs = [self._run(one) for one in found if one.event and one.event.type == "RunRequested"]
            return {"id": self._id, "runs": runs, "position": max(positions)}
        return await self._complete(payload)

    async def _complete(self, payload: Payload) -> dict[str, Any]:
        """The answer from what the log holds, after giving the tasks that lack a verdict theirs."""
        while True:
            received, decided = await self._read_back()
            missing = [task for task in received.data["tasks"] if task not in decided]
            if not missing:
                runs = [
                    event.stream.removeprefix("run-")
                    for event in decided.values()
                    if event.type == "RunRequested"
                ]
                position = max([received.position, *(event.position for event in decided.values())])
                return {"id": self._id, "runs": runs, "position": position}
            late = [await self._late_verdict(task, payload) for task in missing]
            await self._system.appender.append_all([self._of_task(verdict, {}) for verdict in late])

    async def _read_back(self) -> tuple[Event, dict[str, Event]]:
        """EventReceived, and by task the first event of what it led to."""
        own = event_stream(self._id)
        async with self._system.pool.acquire() as connection:
            received = (await read_streams(connection, [own]))[own][0]
            if received.space != self._space or received.type != "EventReceived":
                raise AlreadyExists(f"the event id {self._id} is in use")
            tasks: Sequence[str] = received.data["tasks"]
            names = {
                name: task
                for task in tasks
                for name in (run_stream(event_run_id(self._id, task)), event_stream(self._rejection(task)))
            }
            streams = await read_streams(connection, list(names))
        by_task = {names[name]: events[0] for name, events in streams.items()}
        return received, {task: by_task[task] for task in tasks if task in by_task}

    async def _late_verdict(self, task_id: str, payload: Payload) -> Verdict:
        # The event concerned the task when it was received; that the task has changed since does not
        # leave it without a verdict (I8).
        task = await self._system.tasks.load(task_id)
        definition = load_definition(task.definition, task.name)
        if task.exists and definition.on is not None:
            found = self._verdicts(Listening([Listener(task, definition, self._stream)]), payload)
            if found:
                return found[0]
        reason = task.skip_reason(self._system.time.now()) or "changed"
        return Verdict(task, skip_occurrence(task, self._cause, reason))

    def _verdicts(self, listening: Listening, payload: Payload) -> list[Verdict]:
        if not listening:
            return []
        milliseconds = uuid.UUID(self._id).int >> 80
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
        seen = envelope(
            payload, stream=self._stream, entry_id=self._id, time=at.isoformat(timespec="milliseconds")
        )
        now = self._system.time.now()
        return list(verdicts(listening.concerned(seen), seen, self._cause, now=now, depth=self._depth))

    def _of_task(self, verdict: Verdict, required: dict[str, int]) -> Append:
        task = verdict.task
        cause = reference(event_stream(self._id), 1)
        if verdict.event is None:
            data = {"stream": self._stream, "id": self._id, "reason": verdict.error}
            rejected = NewEvent("EventRejected", data | {"task": task.id, "name": task.name})
            return self._append(event_stream(self._rejection(task.id)), rejected, cause, required)
        return self._append(run_stream(self._run(verdict)), verdict.event, cause, requires(task) | required)

    def _append(
        self, stream: str, event: NewEvent, causation: str | None, required: dict[str, int] | None = None
    ) -> Append:
        return Append(
            stream, 0, (event,), self._space, self._actor, self._correlation, causation, required or {}
        )

    def _run(self, verdict: Verdict) -> str:
        return event_run_id(self._id, verdict.task.id)

    def _rejection(self, task_id: str) -> str:
        return ids.cause_id(uuid.UUID(self._id).int >> 80, "rejected", self._id, task_id)
