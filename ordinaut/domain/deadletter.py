"""A dead letter: an entry or event that was rejected, and what became of it. Pure.

Its stream is `event-<id>`: EventRejected, and then EventRequeued or EventDropped with the reason. One that
was requeued and rejected again has EventRejected behind EventRequeued, and is dead again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from ordinaut.domain.errors import NotPossible
from ordinaut.domain.events import Event, NewEvent

State = Literal["dead", "requeued", "dropped"]
STATES: tuple[State, ...] = ("dead", "requeued", "dropped")

Kind = Literal["stream", "event", "system"]
"""What was rejected: an entry of a Redis stream, an event that was published, an event of the log itself."""


@dataclass(slots=True)
class DeadLetter:
    """A dead letter as its events up to `stream_version` make it.

    `entry_id` is the id within `stream`. `task_id` and `task` are None where the rejection concerned the
    entry as such. `fields` are the entry's in their order, as the log holds them, perhaps shortened; `digest`
    that of all of them. `history` tells of deliveries that came to nothing. `decided_*` is who requeued or
    dropped it last, `decided_in` the correlation of that.
    """

    id: str
    space: str = "default"
    kind: Kind = "stream"
    stream: str = ""
    entry_id: str = ""
    task_id: str | None = None
    task: str | None = None
    reason: str = ""
    state: State = "dead"
    rejections: int = 0
    history: dict[str, Any] | None = None
    fields: dict[str, str] | None = None
    digest: str | None = None
    rejected_at: datetime | None = None
    correlation: str = ""
    causation: str | None = None
    decided_by: str | None = None
    decision_reason: str | None = None
    decided_at: datetime | None = None
    decided_in: str = ""
    runs: list[str] = field(default_factory=list)
    stream_version: int = 0


def letter_stream(letter_id: str) -> str:
    """The stream that holds a dead letter's events."""
    return f"event-{letter_id}"


def is_letter(event: Event) -> bool:
    """Whether a stream that begins with this event is that of a dead letter."""
    return event.type == "EventRejected" and event.stream.startswith("event-") and "id" in event.data


def kind_of(causation: str | None, entry_id: str) -> Kind:
    """What was rejected, by the causation of EventRejected and the id in it."""
    if (causation or "").startswith("redis:"):
        return "stream"
    return "system" if entry_id.isascii() and entry_id.isdigit() else "event"


def evolve(letter: DeadLetter, event: Event) -> None:
    """Fold one event into the dead letter, in place."""
    data = event.data
    match event.type:
        case "EventRejected":
            letter.space, letter.correlation = event.space, event.correlation
            if letter.rejections == 0:
                letter.causation = event.causation
                letter.kind = kind_of(event.causation, data["id"])
            letter.stream, letter.entry_id = data["stream"], data["id"]
            letter.task_id, letter.task = data.get("task"), data.get("name")
            letter.reason, letter.rejected_at = data["reason"], event.at
            letter.history = data.get("history", letter.history)
            if "entry" in data:
                entry = data["entry"]
                letter.fields = {name: entry[name] for name in data.get("order", entry)}
            letter.digest = data.get("digest", letter.digest)
            letter.state = "dead"
            letter.rejections += 1
        case "EventRequeued" | "EventDropped":
            letter.state = "requeued" if event.type == "EventRequeued" else "dropped"
            letter.decided_by, letter.decided_at = event.actor, event.at
            letter.decided_in = event.correlation
            letter.decision_reason = data["reason"]
            letter.runs = list(data.get("runs", ()))
        case _:
            raise ValueError(f"{event.type} is not an event of a dead letter")
    letter.stream_version = event.version


def fold(letter_id: str, events: Iterable[Event]) -> DeadLetter:
    """The dead letter that these events of its stream, from the first on, make."""
    letter = DeadLetter(letter_id)
    for event in events:
        evolve(letter, event)
    return letter


def requeue(
    letter: DeadLetter, reason: str, found_in: str, runs: Sequence[str], again: Mapping[str, Any] | None
) -> list[NewEvent]:
    """EventRequeued, with the runs the entry has now and where its content was found; and behind it, where it
    was rejected `again`, that. Raises NotPossible when it is not dead."""
    _require_dead(letter)
    events = [NewEvent("EventRequeued", {"reason": reason, "found_in": found_in, "runs": list(runs)})]
    return events if again is None else [*events, NewEvent("EventRejected", dict(again))]


def drop(letter: DeadLetter, reason: str) -> list[NewEvent]:
    """EventDropped; nothing when it is dropped already. Raises NotPossible when it was requeued."""
    if letter.state == "dropped":
        return []
    _require_dead(letter)
    return [NewEvent("EventDropped", {"reason": reason})]


def _require_dead(letter: DeadLetter) -> None:
    if letter.state != "dead":
        raise NotPossible(
            f"the dead letter was {letter.state} by {letter.decided_by}: {letter.decision_reason}"
        )
