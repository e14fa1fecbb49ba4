"""The tasks that listen to one stream, and which of them an entry may concern."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ordinaut.domain.definition import Definition
from ordinaut.domain.expressions import Expression
from ordinaut.domain.matching import Trigger
from ordinaut.domain.schedules.spec import trigger_of
from ordinaut.domain.task import Task
from ordinaut.domain.trigger import On, sources_of
from ordinaut.domain.where_index import WhereIndex

ANY = "*"
"""In the name of a stream it stands for any characters, or none: the task listens to every such stream."""


@dataclass(frozen=True)
class Listener:
    """A task that listens to a source (a stream, a pattern of streams, or a type of event of the log), as a
    whole or for one `part` of its pattern; its definition is compiled when the first entry is held against
    it."""

    task: Task
    definition: Definition
    source: str
    part: str | None = None

    @cached_property
    def on(self) -> On:
        """What starts a run, or is collected. Raises `ExpressionError` or `Invalid` for what is wrong."""
        on = self.definition.on
        assert on is not None
        return on if on.parts is None else on.parts[str(self.part)]

    @cached_property
    def trigger(self) -> Trigger:
        """The compiled trigger. Raises `ExpressionError` or `Invalid` when it does not compile."""
        on = self.on
        return Trigger(self.task.id, self.task.name, self.task.space, self.source, on.where, on.input)

    def hears(self, source: str) -> bool:
        """Whether it listens to a stream (or to a type of event of the log)."""
        return self.source == source or (is_pattern(self.source) and matches(self.source, source))


def listeners_of(task: Task, definition: Definition) -> list[Listener]:
    """A task's listeners: none, one, or one for each part of its pattern."""
    on = trigger_of(definition.schedule)
    if on is None:
        return []
    return [Listener(task, definition, source, part) for part, source in sources_of(on).items()]


class Listening(Sequence[Listener]):
    """The tasks that listen to one stream, the longest known first."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    def __len__(self) -> int:
        return len(self._listeners)

    def __getitem__(self, index: Any) -> Any:
        return self._listeners[index]

    def concerned(self, seen: Mapping[str, Any]) -> Sequence[Listener]:
        """Those that the entry with the envelope `seen` may concern: no other's `where` holds for it."""
        return self._index.candidates(seen)

    @cached_property
    def _index(self) -> WhereIndex[Listener]:
        return WhereIndex(self._listeners, _where)


def _where(listener: Listener) -> Expression | None:
    return listener.trigger.where


def is_pattern(stream: str) -> bool:
    """Whether the name stands for many streams."""
    return ANY in stream


def matches(pattern: str, stream: str) -> bool:
    """Whether `stream` is one of those that `pattern` stands for."""
    first, *middle, last = pattern.split(ANY)
    at, end = len(first), len(stream) - len(last)
    if at > end or not stream.startswith(first) or not stream.endswith(last):
        return False
    for part in middle:
        at = stream.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True
