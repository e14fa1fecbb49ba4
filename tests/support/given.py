"""Given these events, when this is decided, then those events follow."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Self, TypeVar

import pytest

from ordinaut.domain.errors import OrdinautError
from ordinaut.domain.events import Event, NewEvent

NOON = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)

State = TypeVar("State")


def logged(event: NewEvent, version: int, stream: str = "stream-1", at: datetime | None = None) -> Event:
    """The event as the log would hold it, one second after the one before unless `at` is given."""
    when = at or NOON + timedelta(seconds=version)
    return Event(
        version, "default", stream, version, event.type, 1, when, "test", "c-1", None, dict(event.data)
    )


def folded(state: State, evolve: Callable[[State, Event], None], events: Sequence[NewEvent]) -> State:
    """The state these events make of `state`."""
    for version, event in enumerate(events, 1):
        evolve(state, logged(event, version))
    return state


class Given(Generic[State]):
    """`Given(state, evolve, *events).when(decision, *arguments).then(*events)`."""

    def __init__(self, state: State, evolve: Callable[[State, Event], None], *events: NewEvent) -> None:
        self.state = folded(state, evolve, events)
        self._decide: Callable[[], Any] = lambda: []

    def when(self, decision: Callable[..., Any], *arguments: Any, **named: Any) -> Self:
        """What is to be decided: `decision(state, *arguments)`."""
        self._decide = lambda: decision(self.state, *arguments, **named)
        return self

    def then(self, *expected: NewEvent) -> None:
        """Exactly these events were decided; none means nothing happens."""
        decided = self._decide()
        events = [decided] if isinstance(decided, NewEvent) else list(decided)
        assert [(e.type, dict(e.data)) for e in events] == [(e.type, dict(e.data)) for e in expected]

    def then_refused(self, error: type[OrdinautError], words: str) -> None:
        """It was refused, in words that match this pattern."""
        with pytest.raises(error, match=words):
            self._decide()
