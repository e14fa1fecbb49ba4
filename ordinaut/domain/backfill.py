"""A backfill: past instants of a task's schedules that are run after all. What its events make it (`evolve`),
what may happen to it next, and which run an instant gets. Pure.

What it will run is decided when it is asked for and stands in its first event, so that it runs what was shown
whatever becomes of the schedule. An instant without a verdict gets the run that a clock would have given it
(I7). The verdict of one that was skipped stays as it is (I8); its run has an id of its own, the same for
every backfill. So however many backfills overlap, an instant has one run, unless another is asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Literal

from ordinaut.domain import ids
from ordinaut.domain.definition import Definition
from ordinaut.domain.errors import NotPossible
from ordinaut.domain.events import Event, NewEvent
from ordinaut.domain.request import one_at_a_time, request_run
from ordinaut.domain.run import run_stream
from ordinaut.domain.task import Task

MOST_INSTANTS = 10_000
"""How many instants of a task's schedules one backfill may reach over."""

MOST_PARALLEL = 100

PRIORITY = 0
"""Of a backfill's runs, whatever the task's policy says: everything else that is due goes first."""

ORDERS = ("oldest", "newest")
ACTIVE = "running"

Ledger = Literal["fired", "skipped", "none", "expected", "excluded"]


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A past instant (UTC), the version of the task's definition in force then, and what the ledger says.

    `verdict` is `none` for one that was left out of the ledger, `expected` for one that a clock has yet to
    decide, `excluded` for one that the schedule itself leaves out. `run` is the id of the run it has, if any.
    """

    at: datetime
    task_version: int
    verdict: Ledger
    reason: str | None = None
    run: str | None = None

    def will_run(self, *, rerun: bool) -> bool:
        """Whether a backfill runs it; `rerun`: also where it has a run."""
        return self.verdict in ("fired", "skipped", "none") and (rerun or self.run is None)

    def public(self, *, rerun: bool) -> dict[str, Any]:
        """The instant as the API shows it."""
        return {
            "at": _iso(self.at), "task_version": self.task_version, "verdict": self.verdict,
            "reason": self.reason, "run": self.run, "will_run": self.will_run(rerun=rerun),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: instants from `since` up to `until` (not included), both UTC, run in `order`,
    `max_parallel` at once; `rerun`: also those that have a run."""

    since: datetime
    until: datetime
    order: str = "oldest"
    max_parallel: int = 1
    rerun: bool = False
    reason: str | None = None

    def sorted(self, occurrences: Iterable[Occurrence]) -> list[Occurrence]:
        """The occurrences in the order they are run in."""
        return sorted(occurrences, key=lambda one: one.at, reverse=self.order == "newest")

    def counts(self, occurrences: Sequence[Occurrence]) -> dict[str, int]:
        """How many `instants` there are, how many `run`, and why the others do not."""
        return {
            "instants": len(occurrences),
            "run": sum(one.will_run(rerun=self.rerun) for one in occurrences),
            "has_run": 0 if self.rerun else sum(one.run is not None for one in occurrences),
            "expected": sum(one.verdict == "expected" for one in occurrences),
            "excluded": sum(one.verdict == "excluded" for one in occurrences),
        }


@dataclass(slots=True)
class Backfill:
    """A backfill as its events up to `stream_version` make it. `plan` is in the order of running."""

    id: str
    space: str = "default"
    task_id: str = ""
    task: str = ""
    state: Literal["running", "stopped", "finished"] = "running"
    since: datetime | None = None
    until: datetime | None = None
    order: str = "oldest"
    max_parallel: int = 1
    rerun: bool = False
    reason: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    plan: tuple[Occurrence, ...] = ()
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
            backfill.since = datetime.fromisoformat(data["from"])
            backfill.until = datetime.fromisoformat(data["to"])
            backfill.order, backfill.max_parallel = data["order"], data["max_parallel"]
            backfill.rerun, backfill.reason = data["rerun"], data["reason"]
            backfill.counts = data["counts"]
            backfill.plan = tuple(
                Occurrence(
                    datetime.fromisoformat(at), group["task_version"], group["verdict"], group["reason"]
                )
                for group in data["plan"]
                for at in group["at"]
            )
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


def request(task: Task, wanted: Wanted, occurrences: Sequence[Occurrence]) -> list[NewEvent]:
    """Begin a backfill of the task; one that has nothing to run is finished at once.

    `occurrences` are the task's between `wanted.since` and `wanted.until`.
    """
    chosen = [one for one in wanted.sorted(occurrences) if one.will_run(rerun=wanted.rerun)]
    data = {
        "task": task.id,
        "name": task.name,
        "from": _iso(wanted.since),
        "to": _iso(wanted.until),
        "order": wanted.order,
        "max_parallel": wanted.max_parallel,
        "rerun": wanted.rerun,
        "reason": wanted.reason,
        "counts": wanted.counts(occurrences),
        "plan": [
            {
                "task_version": version,
                "verdict": verdict,
                "reason": reason,
                "at": [_iso(one.at) for one in group],
            }
            for (version, verdict, reason), group in groupby(chosen, _alike)
        ],
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
    """The run an instant may get, as long as the streams in `requires` are at these versions; `verdict` and
    `reason` are what the ledger says of the instant."""

    run_id: str
    requires: Mapping[str, int]
    verdict: Ledger
    reason: str | None


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do for an instant: it has the run `run_id`, which is the backfill's own or not."""

    run_id: str
    own: bool


def candidates(backfill: Backfill, at: datetime) -> tuple[str, str, str]:
    """The ids of the runs an instant may have: the one a clock gives it, the one backfills give to what was
    skipped, and this backfill's own where it has a run."""
    task = backfill.task_id
    return (
        ids.scheduled_run_id(task, at),
        ids.backfilled_run_id(task, at),
        ids.rerun_id(backfill.id, task, at),
    )


def place(backfill: Backfill, occurrence: Occurrence, first: Mapping[str, Event]) -> Place | Done:
    """Where the run of a planned instant goes, or that it has one.

    `first` holds the first events of those of the `candidates` that exist, by run id. The answer is good as
    long as there are no more, which `Place.requires` and the expected version 0 see to.
    """
    scheduled, own, again = candidates(backfill, occurrence.at)
    runs = {id: event for id, event in first.items() if event.type == "RunRequested"}
    for run_id in (again, own, scheduled):
        if run_id in runs and runs[run_id].data["cause"].get("backfill") == backfill.id:
            return Done(run_id, own=True)
    skipped = first[scheduled] if scheduled in first and scheduled not in runs else None
    verdict, reason = occurrence.verdict, occurrence.reason
    if skipped is not None:
        verdict, reason = "skipped", skipped.data["reason"]
    elif scheduled in runs:
        verdict, reason = "fired", None
    if taken := next((run_id for run_id in (scheduled, own) if run_id in runs), None):
        return Place(again, {}, verdict, reason) if backfill.rerun else Done(taken, own=False)
    if verdict == "none":
        return Place(scheduled, {run_stream(own): 0}, verdict, reason)
    return Place(own, {run_stream(scheduled): int(skipped is not None)}, verdict, reason)


def request_backfilled(
    backfill: Backfill, task: Task, definition: Definition, at: datetime, place: Place, now: datetime
) -> NewEvent:
    """RunRequested for one instant. `task` and `definition` are as they were in force at it."""
    cause = {
        "kind": "backfill",
        "backfill": backfill.id,
        "at": _iso(at),
        "lateness": max(0.0, round((now - at).total_seconds(), 3)),
        "verdict": place.verdict,
        "reason": place.reason,
    }
    extra = {"priority": PRIORITY} | one_at_a_time(task, definition)
    return request_run(task, definition, cause, {}, extra=extra)


def _about(task_id: str, name: str) -> dict[str, Any]:
    return {"task": task_id, "name": name}


def _alike(one: Occurrence) -> tuple[int, str, str | None]:
    return one.task_version, one.verdict, one.reason


def _iso(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()
