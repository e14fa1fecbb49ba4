"""What a backfill's plan is made of: past instants of a task's schedules, or (a replay) entries of a stream
or events of the log that are held against the task's trigger once more. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ordinaut.domain import ids

Ledger = Literal["fired", "skipped", "none", "expected", "excluded", "collected", "unmatched", "rejected"]

_GIVEN = ("input", "depth", "digest")
"""What a replayed entry gives to its run."""

_RUNNABLE = ("fired", "skipped", "none", "collected")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a plan comes from: the task's `schedule`; a Redis `stream`, or the events that the `log` holds of
    one (`stream` is its name); or the log's own events of the type `event`."""

    kind: Literal["schedule", "stream", "log", "event"] = "schedule"
    stream: str | None = None
    event: str | None = None

    def public(self) -> dict[str, str]:
        """As events and the API show it."""
        about = {"stream": self.stream, "event": self.event}
        return {"kind": self.kind} | {name: value for name, value in about.items() if value is not None}


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
        return _will_run(self, rerun=rerun)

    def public(self, *, rerun: bool) -> dict[str, Any]:
        """The instant as the API shows it."""
        return {"at": iso(self.at)} | _public(self, rerun=rerun)

    def candidates(self, backfill: str, task: str) -> tuple[str, str, str]:
        """The ids of the runs it may have: the one a clock gives it, the one backfills give to what was
        skipped, and the one that only the backfill `backfill` gives to what has a run."""
        return (
            ids.scheduled_run_id(task, self.at),
            ids.backfilled_run_id(task, self.at),
            ids.rerun_id(backfill, task, self.at),
        )

    def cause(self, backfill: str, source: Source, now: datetime) -> dict[str, Any]:
        """Why its run is requested at `now`."""
        late = max(0.0, round((now - self.at).total_seconds(), 3))
        return {"kind": "backfill", "backfill": backfill, "at": iso(self.at), "lateness": late}


@dataclass(frozen=True, slots=True)
class Replayed:
    """An entry of a stream, by its `id`, and what a trigger makes of it.

    `verdict` is `unmatched` where the trigger's `where` is not true of it, `rejected` (with the reason) where
    it cannot be read or evaluated; else what the log says of it: `fired`, `skipped`, `collected` when it went
    into a run with others, or `none` when it started nothing.

    `run` is the id of the run it has, if any, `first_run` that of the run it gets when it comes in; `input`
    and `depth` are what its run gets, and `digest` stands for the fields of a Redis entry.
    """

    id: str
    task_version: int
    verdict: Ledger
    first_run: str
    reason: str | None = None
    run: str | None = None
    input: Any = None
    depth: int = 0
    digest: str | None = None

    def will_run(self, *, rerun: bool) -> bool:
        """Whether a replay runs it; `rerun`: also where it has a run."""
        return _will_run(self, rerun=rerun)

    def public(self, *, rerun: bool) -> dict[str, Any]:
        """The entry as the API shows it."""
        return {"id": self.id} | _public(self, rerun=rerun) | {"input": self.input}

    def candidates(self, backfill: str, task: str) -> tuple[str, str, str]:
        """The ids of the runs it may have: the one it gets when it comes in, the one replays give to what was
        skipped, and the one that only the replay `backfill` gives to what has a run."""
        return (
            self.first_run,
            ids.replayed_run_id(self.first_run),
            ids.replayed_again_id(backfill, self.first_run),
        )

    def cause(self, backfill: str, source: Source, now: datetime) -> dict[str, Any]:
        """Why its run is requested."""
        where = {name: value for name, value in source.public().items() if name != "kind"}
        return {"kind": "replay", "backfill": backfill, "source": source.kind, **where, "id": self.id}


Planned = Occurrence | Replayed


def written(group: Sequence[Planned]) -> dict[str, Any]:
    """Planned items that are alike but for what they are about, as BackfillRequested holds them."""
    one = group[0]
    about = {"task_version": one.task_version, "verdict": one.verdict, "reason": one.reason}
    instants = [iso(each.at) for each in group if isinstance(each, Occurrence)]
    entries = [
        {"id": each.id, "run": each.first_run} | {name: getattr(each, name) for name in _GIVEN}
        for each in group
        if isinstance(each, Replayed)
    ]
    return about | ({"entries": entries} if entries else {"at": instants})


def read(groups: Iterable[Mapping[str, Any]]) -> tuple[Planned, ...]:
    """A plan as BackfillRequested holds it; the runs that items had are not in it."""
    found: list[Planned] = []
    for group in groups:
        version, verdict, reason = group["task_version"], group["verdict"], group["reason"]
        for at in group.get("at", ()):
            found.append(Occurrence(datetime.fromisoformat(at), version, verdict, reason))
        for each in group.get("entries", ()):
            given = {name: each[name] for name in _GIVEN}
            entry = Replayed(each["id"], version, verdict, each["run"], reason, **given)
            found.append(entry)
    return tuple(found)


def alike(one: Planned) -> tuple[int, str, str | None]:
    """What those have in common that are written together."""
    return one.task_version, one.verdict, one.reason


def iso(instant: datetime) -> str:
    """An instant as events hold it."""
    return instant.astimezone(UTC).isoformat()


def _will_run(one: Planned, *, rerun: bool) -> bool:
    has_one = one.run is not None or one.verdict == "collected"
    return one.verdict in _RUNNABLE and (rerun or not has_one)


def _public(one: Planned, *, rerun: bool) -> dict[str, Any]:
    return {
        "task_version": one.task_version, "verdict": one.verdict, "reason": one.reason, "run": one.run,
        "will_run": one.will_run(rerun=rerun),
    }  # fmt: skip
