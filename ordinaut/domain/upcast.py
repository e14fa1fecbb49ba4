"""Old events read as new ones.

Events are never rewritten. When the shape of an event type changes, its old versions are lifted to
the current one here, on read, one step a version; `tests/unit/corpus/` keeps one of every version
that was ever written.
"""

from collections.abc import Callable

from ordinaut.domain.events import SCHEMA_VERSION, Event

Upcaster = Callable[[Event], Event]

UPCASTERS: dict[tuple[str, int], Upcaster] = {}
"""(event type, schema version it is written in) to the function that lifts it by one version.
Empty while version 1 is the only one there is."""


def upcast(event: Event) -> Event:
    """The event in the current schema version; a newer one than we know is refused loudly."""
    if event.schema == SCHEMA_VERSION:
        return event
    if event.schema > SCHEMA_VERSION:
        raise ValueError(
            f"event {event.reference} has schema version {event.schema}, this program knows up to"
            f" {SCHEMA_VERSION}: it was written by a newer Ordinaut"
        )
    while (lift := UPCASTERS.get((event.type, event.schema))) is not None:
        event = lift(event)
    return event
