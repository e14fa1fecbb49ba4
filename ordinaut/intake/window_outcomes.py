"""What follows from windows, as appends: WindowClosed, runs, and the verdict on events that start none."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ordinaut.domain import ids
from ordinaut.domain.errors import VersionConflict
from ordinaut.domain.events import Event, NewEvent, reference
from ordinaut.domain.patterns import Closing, Drop, Held, Start, input_of
from ordinaut.domain.request import request_run, skip_occurrence
from ordinaut.domain.run import run_stream
from ordinaut.domain.task import Task
from ordinaut.log.append import Append, Connection, append
from ordinaut.log.read import COLUMNS, to_event
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import requires
from ordinaut.runtime.windows import Row

ACTOR = "intake"

SHOWN = 100
"""Of how many of its events a run's cause tells; of more, the first."""


class TaskChanged(Exception):
    """A task changed while its window was ended: the transaction is to be taken back and done again."""


class Outcomes:
    """Gathers what is decided in one transaction, then appends it."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._decided: list[tuple[Row, Start | Drop, Closing | None]] = []
        self._closed: list[tuple[Row, Closing]] = []
        self.bytes = 0
        """How much input the runs have."""

    @property
    def requested(self) -> int:
        """How many runs that may ask for."""
        return sum(isinstance(outcome, Start) for _, outcome, _ in self._decided)

    def close(self, row: Row, closing: Closing) -> None:
        """A window ended."""
        self._closed.append((row, closing))
        for outcome in closing.outcomes:
            self.decide(row, outcome, closing)

    def decide(self, row: Row, outcome: Start | Drop, closing: Closing | None = None) -> None:
        """What becomes of some events."""
        self._decided.append((row, outcome, closing))
        if isinstance(outcome, Start):
            self.bytes += sum(each.size for each in _given(outcome, closing))

    async def append(self, connection: Connection) -> None:
        """Append all of it; make this the last thing the transaction does. Raises `TaskChanged`."""
        events = await self._events(connection)
        items: list[Append] = []
        for row, closed in self._closed:
            items.append(_window_closed(row, closed, events))
        for row, outcome, closing in self._decided:
            if isinstance(outcome, Start):
                items.append(await self._run(connection, row, outcome, closing, events))
            else:
                items.append(_dropped(events[outcome.event.position], outcome.reason))
        if not items:
            return
        for item, found in zip(items, await append(connection, items), strict=True):
            # On its own stream: it has been there since another life of the table.
            if isinstance(found, VersionConflict) and found.stream != item.stream:
                raise TaskChanged

    async def _events(self, connection: Connection) -> dict[int, Event]:
        """The collected events that something is decided on, by position."""
        positions = {
            each.position
            for _, outcome, _ in self._decided
            for each in (outcome.events if isinstance(outcome, Start) else (outcome.event,))
        } | {closing.held[-1].position for _, closing in self._closed}
        given = {
            each.position
            for _, outcome, closing in self._decided
            if isinstance(outcome, Start)
            for each in _given(outcome, closing)
        }
        rows = await connection.fetch(
            f"""SELECT {COLUMNS.removesuffix("data")}
                       CASE WHEN position = ANY ($2) THEN data ELSE data - 'input' END AS data
                  FROM events WHERE position = ANY ($1)""",
            sorted(positions), sorted(given),
        )  # fmt: skip
        return {row["position"]: to_event(row) for row in rows}

    async def _run(
        self,
        connection: Connection,
        row: Row,
        outcome: Start,
        closing: Closing | None,
        events: dict[int, Event],
    ) -> Append:
        held = outcome.events
        collected = [events[each.position] for each in held]
        latest = collected[-1]
        task = await self._system.tasks.load(row.task_id, connection)
        cause = _cause(row, outcome, collected, events)
        depth = max(int(event.data["depth"]) for event in collected)
        reason = task.skip_reason(self._system.time.now())
        if reason is None and _before(task, outcome, collected):
            reason = "retired"
        if reason is not None:
            verdict = skip_occurrence(task, cause, reason, {"depth": depth} if depth else None)
        else:
            payload = input_of(outcome, {event.position: event.data for event in collected})
            definition = await self._system.tasks.definition(task.id, task.version)
            verdict = request_run(task, definition, cause, payload, depth=depth)
        run = ids.window_run_id(_ms(held[-1].at), row.task_id, row.key, *_ends(held))
        because = latest.reference if closing is None else reference(_window_stream(row, closing), 1)
        return Append(
            run_stream(run), 0, (verdict,), task.space, ACTOR, latest.correlation, because, requires(task)
        )


def _before(task: Task, outcome: Start, collected: Sequence[Event]) -> bool:
    """Whether that was collected for a task of this name that has been retired since."""
    created = task.created_at
    before = [created is not None and event.at < created for event in collected]
    return any(before) if outcome.parts else all(before)


def _given(outcome: Start, closing: Closing | None) -> Sequence[Held]:
    """The events whose input the run gets."""
    every = outcome.parts or (closing is not None and closing.pattern.kind == "batch")
    return outcome.events if every else outcome.events[-1:]


def _cause(row: Row, outcome: Start, collected: Sequence[Event], events: dict[int, Event]) -> dict[str, Any]:
    held, latest = outcome.events, collected[-1]
    return {
        "kind": "window",
        "pattern": latest.data["pattern"]["kind"],
        "key": row.key,
        "count": len(held),
        "from": _iso(held[0].at),
        "to": _iso(held[-1].at),
        "events": _causes(outcome, collected, events)[:SHOWN],
    }


def _causes(outcome: Start, collected: Sequence[Event], events: dict[int, Event]) -> list[dict[str, Any]]:
    if outcome.parts:
        return [{"part": name, **events[held.position].data["cause"]} for name, held in outcome.parts]
    return [event.data["cause"] for event in collected]


def _window_closed(row: Row, closing: Closing, events: dict[int, Event]) -> Append:
    held = closing.held
    latest = events[held[-1].position]
    data = {
        "task": row.task_id,
        "name": row.task,
        "key": row.key,
        "pattern": closing.pattern.kind,
        "reason": closing.reason,
        "count": len(held),
        "from": _iso(held[0].at),
        "to": _iso(held[-1].at),
        "positions": sorted(each.position for each in held),
    }
    return Append(
        _window_stream(row, closing), 0, (NewEvent("WindowClosed", data),), row.space, ACTOR,
        latest.correlation, latest.reference,
    )  # fmt: skip


def _window_stream(row: Row, closing: Closing) -> str:
    held = closing.held
    return f"window-{ids.window_run_id(_ms(held[0].at), row.task_id, row.key, *_ends(held))}"


def _ends(held: Sequence[Held]) -> tuple[int, int]:
    positions = [each.position for each in held]
    return min(positions), max(positions)


def _dropped(event: Event, reason: str) -> Append:
    """The second event of its stream: it was collected, and comes to nothing."""
    data = {name: event.data[name] for name in ("task", "name", "task_version", "cause", "key", "depth")}
    skipped = NewEvent("OccurrenceSkipped", data | {"reason": reason})
    return Append(event.stream, 1, (skipped,), event.space, ACTOR, event.correlation, event.reference)


def _ms(at: datetime) -> int:
    return max(0, int(at.timestamp() * 1000))


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()
