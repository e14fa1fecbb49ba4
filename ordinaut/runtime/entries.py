"""What one stream entry means: the appends that record it, and the copies for `ordinaut:dead`. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any

from ordinaut.domain import ids
from ordinaut.domain.events import NewEvent
from ordinaut.domain.matching import MAX_ENTRY, BadEntry, Payload, envelope, parse_entry
from ordinaut.domain.run import run_stream
from ordinaut.domain.task import Task
from ordinaut.log.append import Append
from ordinaut.runtime.listening import Listener, Listening
from ordinaut.runtime.triggers import requires, verdicts

ACTOR = "intake"

OWN = b"ordinaut-"
"""Fields that begin so were added by a step (`stream.add`); they are about the entry, not part of it."""

CORRELATION, DEPTH = b"ordinaut-correlation", b"ordinaut-depth"

MAX_KEPT = 16 * 1024
"""A rejected entry of so many bytes, or less, is in its event whole."""

MAX_SHOWN_FIELDS, MAX_SHOWN = 50, 1000
"""How much of a larger one its event shows: this many fields, this many characters of each."""

_DEAD_NAMES = frozenset({b"reason", b"stream", b"id", b"space", b"task", b"shortened"})
_ORIGINAL = b"original:"


@dataclass(slots=True)  # not frozen: see ordinaut/domain/events.py
class Entry:
    """An entry of a Redis stream as it was read; `id` is `<milliseconds>-<sequence>`.

    `taken` are streams of the log that would hold a verdict on it, and hold one on another entry that had
    the same id (see ordinaut/runtime/lives.py).
    """

    stream: str
    id: str
    fields: Mapping[bytes, bytes]
    taken: frozenset[str] = frozenset()


def digest(fields: Mapping[bytes, bytes]) -> str:
    """16 hexadecimal digits that stand for an entry's fields, in their order."""
    framed = [b"%d %d %b%b" % (len(name), len(value), name, value) for name, value in fields.items()]
    return blake2b(b"".join(framed), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class History:
    """How an entry has fared: how often it was delivered without being acknowledged, to whom last, and how
    many seconds ago that was."""

    deliveries: int
    consumer: str
    idle_seconds: float

    def public(self) -> dict[str, Any]:
        """As events hold it."""
        return {
            "deliveries": self.deliveries,
            "last_consumer": self.consumer,
            "idle_seconds": round(self.idle_seconds, 3),
        }


OfAge = Callable[[Sequence[Listener]], Sequence[Listener]]
"""Leaves out the tasks that are younger than an entry."""

Decided = tuple[Append, dict[bytes, bytes] | None]
"""What is to be appended, and the entry's copy for `ordinaut:dead` if that is a rejection."""


def decide(
    entry: Entry, listening: Listening, of_age: OfAge | None = None, *, now: datetime, space: str
) -> list[Decided]:
    """The verdict on `entry` for each task that listens to its stream (of those, where `of_age` chooses some,
    for these).

    A run is requested (or the occurrence skipped: paused, snoozed, chained too deeply) for those whose
    trigger matches; a trigger that fails on the entry is a rejection for that task alone. An entry that
    cannot be read is rejected once in each space that listens, or in `space` when nobody does any more.
    """
    try:
        payload, correlation, depth = _read(entry.fields)
        seen = envelope(payload, stream=entry.stream, entry_id=entry.id)
    except BadEntry as error:
        listeners = listening if of_age is None else of_age(listening)
        spaces = {listener.task.space for listener in listeners} or {space}
        return [reject(entry, str(error), space=each) for each in sorted(spaces)]
    cause = {"kind": "stream", "stream": entry.stream, "id": entry.id}
    decided: list[Decided] = []
    concerned = listening.concerned(seen)
    if of_age is not None:
        concerned = of_age(concerned)
    fields = ""
    for verdict in verdicts(concerned, seen, cause, now=now, depth=depth):
        task = verdict.task
        if verdict.event is None:
            decided.append(reject(entry, verdict.error or "", space=task.space, task=task))
            continue
        fields = fields or digest(entry.fields)
        run = ids.entry_run_id(task.space, entry.stream, entry.id, task.id)
        if entry.taken and run_stream(run) in entry.taken:
            run = ids.entry_run_id(task.space, entry.stream, entry.id, task.id, fields)
        event = NewEvent(verdict.event.type, {**verdict.event.data, "digest": fields})
        append = Append(
            run_stream(run), 0, (event,), task.space, ACTOR, correlation or run, _reference(entry),
            requires(task),
        )  # fmt: skip
        decided.append((append, None))
    return decided


def reject(
    entry: Entry, reason: str, *, space: str, task: Task | None = None, history: History | None = None
) -> tuple[Append, dict[bytes, bytes]]:
    """EventRejected, for one task or for the entry as such, and the copy for `ordinaut:dead`. `history` tells
    of an entry that was delivered too often."""
    fields = digest(entry.fields) if entry.fields else ""
    about = (space, entry.stream, entry.id, task.id if task else "")
    rejection = ids.rejection_id(*about)
    if f"event-{rejection}" in entry.taken:
        rejection = ids.rejection_id(*about, fields)
    data: dict[str, Any] = {"stream": entry.stream, "id": entry.id, "reason": reason[:MAX_SHOWN]}
    if task is not None:
        data |= {"task": task.id, "name": task.name}
    if history is not None:
        data["history"] = history.public()
    data["entry"] = shown = _shown(entry.fields)
    if len(shown) > 1:
        data["order"] = list(shown)  # jsonb has one of its own, and the digest is of the entry's
    if fields:
        data["digest"] = fields
    event = NewEvent("EventRejected", data)
    append = Append(f"event-{rejection}", 0, (event,), space, ACTOR, rejection, _reference(entry))
    return append, dead_letter(entry, reason, space=space, task=task)


def dead_letter(entry: Entry, reason: str, *, space: str, task: Task | None) -> dict[bytes, bytes]:
    """The fields of the copy in `ordinaut:dead`: why (`reason`), where it came from (`stream`, `id`), whom
    it concerned (`space`, `task`), and the entry's own.

    An own field with one of these names, or one that begins with `original:`, is kept as
    `original:<name>`. The values of an entry that is too large are cut, and `shortened` says so.
    """
    about = {
        b"reason": reason[:MAX_SHOWN].encode(errors="replace"),
        b"stream": entry.stream.encode(),
        b"id": entry.id.encode(),
        b"space": space.encode(),
    }
    if task is not None:
        about[b"task"] = task.name.encode()
    fields: Iterable[tuple[bytes, bytes]] = entry.fields.items()
    if sum(len(name) + len(value) for name, value in fields) > MAX_ENTRY:
        about[b"shortened"] = b"true"
        fields = [(name[:MAX_SHOWN], value[:MAX_SHOWN]) for name, value in list(fields)[:MAX_SHOWN_FIELDS]]
    for name, value in fields:
        taken = name in _DEAD_NAMES or name.startswith(_ORIGINAL)
        about[_ORIGINAL + name if taken else name] = value
    return about


def original_fields(copy: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """An entry's own fields, from its copy in `ordinaut:dead`."""
    return {name.removeprefix(_ORIGINAL): value for name, value in copy.items() if name not in _DEAD_NAMES}


def _read(fields: Mapping[bytes, bytes]) -> tuple[Payload, str | None, int]:
    """What the entry holds, and (from `stream.add`) the correlation and the depth it goes on with."""
    own = [name for name in fields if name.startswith(OWN)]
    if not own:
        return parse_entry(fields), None, 0
    payload = parse_entry({name: value for name, value in fields.items() if name not in own})
    depth = fields.get(DEPTH, b"")
    # Anybody may write these fields; what is not plausible counts as not written.
    deep = int(depth) + 1 if depth.isdigit() and len(depth) < 10 else 0
    correlation = fields.get(CORRELATION, b"").decode(errors="replace")
    plausible = 0 < len(correlation) <= 256 and correlation.isprintable() and "�" not in correlation
    return payload, correlation if plausible else None, deep


def _reference(entry: Entry) -> str:
    return f"redis:{entry.stream}/{entry.id}"


def _shown(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """The fields as text that can be stored; shortened where they are more than `MAX_KEPT` bytes."""
    if sum(len(name) + len(value) for name, value in fields.items()) <= MAX_KEPT:
        return {_text(name, MAX_KEPT): _text(value, MAX_KEPT) for name, value in fields.items()}
    shown = list(fields.items())[:MAX_SHOWN_FIELDS]
    return {_text(name, MAX_SHOWN): _text(value, MAX_SHOWN) for name, value in shown}


def _text(value: bytes, most: int) -> str:
    text = value[: 4 * most].decode(errors="replace").replace("\x00", "�")
    return text if len(text) <= most and len(value) <= 4 * most else text[:most] + "…"
