"""A backfill: past instants of a task's schedules, or past entries of its stream (a replay), that are run
after all. What its events make it (`evolve`), what may happen to it next, and which run an item gets. Pure.

What it will run is decided when it is asked for and stands in its first event, so that it runs what was
shown whatever becomes of the schedule or the stream. An item without a verdict gets the run that a clock (or
intake) would have given it (I7). The verdict of one that was skipped stays as it is (I8); its run has an id
of its own, the same for every backfill. So however many backfills overlap, an item has one run, unless one
more is asked for.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any, Literal

from ordinaut.domain import planned
from ordinaut.domain.definition import Definition
from ordinaut.domain.errors import NotPossible
from ordinaut.domain.events import Event, NewEvent
from ordinaut.domain.planned import Ledger, Planned, Replayed, Source
from ordinaut.domain.request import one_at_a_time, request_run
from ordinaut.domain.run import run_stream
from ordinaut.domain.task import Task

MOST_INSTANTS = 10_000
"""How many instants of a task's schedules, or entries of a stream, one backfill may reach over."""

MOST_PARALLEL = 100

PRIORITY = 0
"""Of a backfill's runs, whatever the task's policy says: everything else that is due goes first."""

ORDERS = ("oldest", "newest")

SCHEDULE = Source()

_COUNTED: Mapping[bool, tuple[str, tuple[Ledger, ...]]] = {
    True: ("instants", ("expected", "excluded")),
    False: ("entries", ("unmatched", "rejected")),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for, run in `order`, `max_parallel` at once; `rerun`: also what has a run.

    `since` and `until` say what it reaches over: instants in ISO 8601, `until` not included; of a replay the
    ids of its first and last entry (None: open).
    """

    since: str | None
    until: str | None
    order: str = "oldest"
    max_parallel: int = 1
    rerun: bool = False
    reason: str | None = None
    source: Source = SCHEDULE

    def sorted(self, found: Sequence[Planned]) -> list[Planned]:
        """What was found, oldest first, in the order it is run in."""
        return list(reversed(found)) if self.order == "newest" else list(found)

    def counts(self, found: Sequence[Planned]) -> dict[str, int]:
        """How many `instants` (or `entries`) there are, how many `run`, and why the others do not."""
        what, others = _COUNTED[self.source.kind == "schedule"]
        verdicts = Counter(one.verdict for one in found)
        has_run = sum(one.will_run(rerun=True) and not one.will_run(rerun=False) for one in found)
        return {
            what: len(found),
            "run": sum(one.will_run(rerun=self.rerun) for one in found),
            "has_run": 0 if self.rerun else has_run,
            **{verdict: verdicts[verdict] for verdict in others},
        }


@dataclass(slots=True)
class Backfill:
    """A backfill as its events up to `stream_version` make it. `plan` is in the order of running."""

    id: str
    space: str = "default"
    task_id: str = ""
    task: str = ""
    state: Literal["running", "stopped", "finished"] = "running"
    source: Source = SCHEDULE
    since: str | None = None
    until: str | None = None
    order: str = "oldest"
    max_parallel: int = 1
    rerun: bool = False
    reason: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    plan: tuple[Planned, ...] = ()
    correlation: str = ""
    requested_by: str = ""
    requested_at: datetime | None = None
    stopped_by: str | None = None
    stop_reason: str | None = None
    ended_at: datetime | None = None
    stream_version: int = 0


def backfill_stream(backfill_id: str) -> str:
    """The stream that holds a backfill's events."""
    return f"backfill-{backfill_id}"


def evolve(backfill: Backfill, event: Event) -> None:
    """Fold one event into the backfill, in place."""
    data = event.data
    match event.type:
        case "BackfillRequested":
            backfill.space, backfill.correlation = event.space, event.correlation
            backfill.task_id, backfill.task = data["task"], data["name"]
            backfill.source = Source(**data.get("source", {}))  # the first ones had none
            backfill.since, backfill.until = data["from"], data["to"]
            backfill.order, backfill.max_parallel = data["order"], data["max_parallel"]
            backfill.rerun, backfill.reason = data["rerun"], data["reason"]
            backfill.counts = data["counts"]
            backfill.plan = planned.read(data["plan"])
            backfill.requested_by, backfill.requested_at = event.actor, event.at
        case "BackfillStopped":
            backfill.state = "stopped"
            backfill.stopped_by, backfill.stop_reason = event.actor, data["reason"]
            backfill.ended_at = event.at
        case "BackfillFinished":
            backfill.state, backfill.ended_at = "finished", event.at
        case _:
            raise ValueError(f"{event.type} is not an event of a backfill")
    backfill.stream_version = event.version


def fold(backfill_id: str, events: Iterable[Event]) -> Backfill:
    """The backfill that these events of its stream, from the first on, make."""
    backfill = Backfill(backfill_id)
    for event in events:
        evolve(backfill, event)
    return backfill


def request(task: Task, wanted: Wanted, found: Sequence[Planned]) -> list[NewEvent]:
    """Begin a backfill of the task; one that has nothing to run is finished at once.

    `found` are the task's instants, or a stream's entries, between `wanted.since` and `wanted.until`, oldest
    first.
    """
    chosen = [one for one in wanted.sorted(found) if one.will_run(rerun=wanted.rerun)]
    data = {
        "task": task.id,
        "name": task.name,
        "source": wanted.source.public(),
        "from": wanted.since,
        "to": wanted.until,
        "order": wanted.order,
        "max_parallel": wanted.max_parallel,
        "rerun": wanted.rerun,
        "reason": wanted.reason,
        "counts": wanted.counts(found),
        "plan": [planned.written(list(group)) for _, group in groupby(chosen, planned.alike)],
    }
    requested = NewEvent("BackfillRequested", data)
    return [requested] if chosen else [requested, NewEvent("BackfillFinished", _about(task.id, task.name))]


def stop(backfill: Backfill, reason: str | None) -> list[NewEvent]:
    """Request no more of its runs; those under way go on. No event when it is stopped already."""
    if backfill.state == "stopped":
        return []
    if backfill.state == "finished":
        raise NotPossible(f"the backfill {backfill.id} has finished already")
    return [NewEvent("BackfillStopped", _about(backfill.task_id, backfill.task) | {"reason": reason})]


def finish(backfill: Backfill) -> list[NewEvent]:
    """End a backfill whose last run has ended; no event when it has ended in another way."""
    if backfill.state != "running":
        return []
    return [NewEvent("BackfillFinished", _about(backfill.task_id, backfill.task))]


@dataclass(frozen=True, slots=True)
class Place:
    """The run an item may get, as long as the streams in `requires` are at these versions; `verdict` and
    `reason` are what the log says of the item."""

    run_id: str
    requires: Mapping[str, int]
    verdict: Ledger
    reason: str | None


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do for an item: it has the run `run_id`, which is the backfill's own or not."""

    run_id: str
    own: bool


def place(backfill: Backfill, one: Planned, first: Mapping[str, Event]) -> Place | Done:
    """Where the run of a planned item goes, or that it has one.

    `first` holds the first events of those of its `candidates` that exist, by run id. The answer is good as
    long as there are no more, which `Place.requires` and the expected version 0 see to.
    """
    scheduled, own, again = one.candidates(backfill.id, backfill.task_id)
    runs = {id: event for id, event in first.items() if event.type == "RunRequested"}
    for run_id in (again, own, scheduled):
        if run_id in runs and runs[run_id].data["cause"].get("backfill") == backfill.id:
            return Done(run_id, own=True)
    skipped = first[scheduled] if scheduled in first and scheduled not in runs else None
    if skipped is not None and skipped.type == "EventCollected" and not backfill.rerun:
        return Done(scheduled, own=False)
    verdict, reason = one.verdict, one.reason
    if skipped is not None:
        verdict, reason = "skipped", skipped.data.get("reason", "collected")
    elif scheduled in runs:
        verdict, reason = "fired", None
    if taken := next((run_id for run_id in (scheduled, own) if run_id in runs), None):
        return Place(again, {}, verdict, reason) if backfill.rerun else Done(taken, own=False)
    if verdict == "none":
        return Place(scheduled, {run_stream(own): 0}, verdict, reason)
    return Place(own, {run_stream(scheduled): int(skipped is not None)}, verdict, reason)


def request_backfilled(
    backfill: Backfill, task: Task, definition: Definition, one: Planned, place: Place, now: datetime
) -> NewEvent:
    """RunRequested for one item. `task` and `definition` are those in force at an instant, of a replay those
    in force when it was asked for."""
    cause = one.cause(backfill.id, backfill.source, now) | {"verdict": place.verdict, "reason": place.reason}
    extra: dict[str, Any] = {"priority": PRIORITY}
    if isinstance(one, Replayed):
        if one.digest is not None:
            extra["digest"] = one.digest  # as intake does, so that another entry with the id is told apart
        return request_run(task, definition, cause, one.input, depth=one.depth, extra=extra)
    return request_run(task, definition, cause, {}, extra=extra | one_at_a_time(task, definition))


def _about(task_id: str, name: str) -> dict[str, Any]:
    return {"task": task_id, "name": name}
