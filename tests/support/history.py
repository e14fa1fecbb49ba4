"""Histories as the roles of a living system write them, without the roles: tasks are created, changed,
paused and retired, their schedules fire, are skipped or filled up, runs are started, retried and ended."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ordinaut.domain import backfill, deadletter, ids, run, task
from ordinaut.domain.backfill import Backfill, backfill_stream
from ordinaut.domain.deadletter import DeadLetter, letter_stream
from ordinaut.domain.errors import OrdinautError
from ordinaut.domain.events import Event, NewEvent
from ordinaut.domain.planned import Occurrence
from ordinaut.domain.run import Run, run_stream
from ordinaut.domain.task import Task, task_stream
from ordinaut.log.append import Append
from projections.schedules import ADVANCE_NOW

OPERATIONS = (
    "create", "create", "change", "change_schedule", "pause", "resume", "snooze", "retire",
    "fire", "fire", "skip", "request", "lease", "lease", "lease", "step", "succeed", "succeed", "fail",
    "put_off", "hand_back", "crash", "cancel", "reopen", "park", "backfill", "backfill_run", "backfill_end",
    "reject", "requeue", "requeue", "drop",
)  # fmt: skip
BEGIN = datetime(2031, 1, 1, tzinfo=UTC)


def definition(number: int, schedules: int) -> dict[str, Any]:
    """A normalised definition, as TaskCreated and TaskChanged hold it."""
    schedule: dict[str, Any] | None = {"every": f"{number % 5 + 1}m"} if schedules else None
    if number % 7 == 0:
        schedule = {"on": {"stream": "orders"}}
    return {
        "title": f"title {number}" if number % 2 else None,
        "labels": {"n": str(number)},
        "schedule": schedule,
        "params": {"n": number},
        "pipeline": [{"id": "say", "uses": "debug.echo", "with": {"n": number}}],
        "policy": {"priority": number % 10, "max_attempts": 2},
    }


@dataclass
class World:
    """What has happened in one space. `do` decides one thing and gives the append that records it, or
    None where it is not possible now; the world is then as if it was appended."""

    space: str
    names: tuple[str, ...] = ("a", "b", "c")
    tasks: dict[str, Task] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    plans: dict[str, datetime] = field(default_factory=dict)
    backfills: dict[str, Backfill] = field(default_factory=dict)
    letters: dict[str, DeadLetter] = field(default_factory=dict)
    clock: datetime = BEGIN
    count: int = 0

    def do(self, operation: str, which: int, number: int) -> Append | None:
        """`which` picks the task or the run, `number` fills in the details."""
        self.count += 1
        self.clock += timedelta(seconds=7)
        try:
            return getattr(self, f"_{operation}")(which, number)  # type: ignore[no-any-return]
        except OrdinautError:
            return None

    # Tasks

    def _task(self, which: int) -> Task:
        name = self.names[which % len(self.names)]
        task_id = ids.task_id(self.space, name)
        return self.tasks.setdefault(task_id, Task(task_id, self.space, name))

    def _of_task(self, known: Task, events: list[NewEvent]) -> Append | None:
        if not events:
            return None
        before = known.stream_version
        for event in events:
            task.evolve(known, self._event(task_stream(known.id), known.stream_version + 1, event))
        return Append(task_stream(known.id), before, events, self.space, "key:test", known.id)

    def _planned(self, known: Task, number: int) -> list[dict[str, Any]]:
        self.plans.pop(known.id, None)
        if number % 3 == 0:
            return []
        at = self.plans[known.id] = self.clock + timedelta(minutes=number)
        return [{"at": at.isoformat()}]

    def _create(self, which: int, number: int) -> Append | None:
        known = self._task(which)
        if known.exists:
            return None
        plan = self._planned(known, number)
        document = definition(number, len(plan))
        return self._of_task(
            known, task.create(known, known.name, document, plan, "t", created_at=self.clock)
        )

    def _change(self, which: int, number: int) -> Append | None:
        known = self._task(which)
        task.require_existing(known, known.name)
        wanted = definition(number, 1) | {"schedule": known.definition["schedule"]}
        return self._of_task(known, task.change(known, wanted, [], "t"))

    def _change_schedule(self, which: int, number: int) -> Append | None:
        known = self._task(which)
        task.require_existing(known, known.name)
        wanted = definition(number, 1)
        if wanted["schedule"] == known.definition["schedule"]:
            return None
        return self._of_task(known, task.change(known, wanted, self._planned(known, number), "t"))

    def _pause(self, which: int, number: int) -> Append | None:
        known = self._task(which)
        until = self.clock + timedelta(minutes=number) if number % 2 else None
        return self._of_task(known, task.pause(known, f"reason {number}" if number % 3 else None, until))

    def _resume(self, which: int, number: int) -> Append | None:
        known = self._task(which)
        by_clock = task.end_pause(known, self.clock + timedelta(minutes=number))
        return self._of_task(known, by_clock or task.resume(known))

    def _snooze(self, which: int, number: int) -> Append | None:
        known = self._task(which)
        until = self.clock + timedelta(minutes=number + 1)
        return self._of_task(known, task.snooze(known, until, self.clock, None))

    def _retire(self, which: int, _number: int) -> Append | None:
        known = self._task(which)
        events = task.retire(known, "not needed")
        self._planned(known, 0)
        return self._of_task(known, events)

    # Occurrences

    def _occurrence(
        self, known: Task, run_id: str, kind: str, data: dict[str, Any], advance: tuple[Any, ...] | None
    ) -> Append | None:
        if run_id in self.runs:
            return None
        stream = run_stream(run_id)
        about = {"task": known.id, "name": known.name, "task_version": known.version} | data
        event = NewEvent(kind, about)  # type: ignore[arg-type]
        self.runs[run_id] = run.fold(run_id, [self._event(stream, 1, event)])
        return Append(
            stream, 0, [event], self.space, "clock", run_id,
            requires={task_stream(known.id): known.stream_version},
            effects={ADVANCE_NOW: advance} if advance else {},
        )  # fmt: skip

    def _wanted(self, number: int) -> dict[str, Any]:
        more: dict[str, Any] = (
            {"concurrency": {"key": f"{self.space}/k", "limit": 2}} if number % 3 == 0 else {}
        )
        return {"input": {"n": number}, "priority": number % 10, "max_attempts": 2, "depth": 0} | more

    def _due(self, which: int, number: int) -> tuple[Task, datetime, datetime | None] | None:
        known = self._task(which)
        at = self.plans.get(known.id)
        if not known.exists or at is None:
            return None
        following = at + timedelta(minutes=number + 1) if number % 9 else None
        if following is None:
            del self.plans[known.id]
        else:
            self.plans[known.id] = following
        return known, at, following

    def _fire(self, which: int, number: int) -> Append | None:
        if (due := self._due(which, number)) is None:
            return None
        known, at, following = due
        cause = {"kind": "schedule", "at": at.isoformat(), "index": 0, "lateness": number / 8}
        data = {"cause": cause, "next": following and following.isoformat(), "tz": "t"}
        if number % 5 == 0:
            data["run_at"] = (at + timedelta(seconds=3)).isoformat()
        advance = (known.id, known.version, following, "t")
        return self._occurrence(
            known, ids.scheduled_run_id(known.id, at), "RunRequested", self._wanted(number) | data, advance
        )

    def _skip(self, which: int, number: int) -> Append | None:
        if (due := self._due(which, number)) is None:
            return None
        known, at, following = due
        cause = {"kind": "schedule", "at": at.isoformat(), "index": 0, "lateness": 0.5}
        data = {
            "cause": cause, "reason": "missed", "count": number + 1, "from": at.isoformat(),
            "to": (at + timedelta(seconds=number)).isoformat(),
            "next": following and following.isoformat(), "tz": "t",
        }  # fmt: skip
        advance = (known.id, known.version, following, "t")
        return self._occurrence(known, ids.scheduled_run_id(known.id, at), "OccurrenceSkipped", data, advance)

    def _request(self, which: int, number: int) -> Append | None:
        known = self._task(which)
        task.require_existing(known, known.name)
        data = (
            self._wanted(number)
            | {"cause": {"kind": "manual"}}
            | ({"simulate": True} if number % 4 == 0 else {})
        )
        run_id = ids.cause_id(int(self.clock.timestamp() * 1000), "manual", self.space, str(self.count))
        return self._occurrence(known, run_id, "RunRequested", data, None)

    # Backfills

    def _backfill(self, which: int, number: int) -> Append | None:
        known = self._task(which)
        task.require_existing(known, known.name)
        begin = BEGIN - timedelta(minutes=self.count * 20)
        verdicts = ("none", "skipped", "fired")
        occurrences = [
            Occurrence(
                begin + timedelta(minutes=n),
                known.version,
                verdicts[n % 3],  # type: ignore[arg-type]
                "missed" if n % 3 == 1 else None,
                "a run" if n % 3 == 2 else None,
            )
            for n in range(number)
        ]
        wanted = backfill.Wanted(
            begin.isoformat(),
            BEGIN.isoformat(),
            "newest" if number % 2 else "oldest",
            number + 1,
            number % 4 == 0,
        )
        backfill_id = ids.cause_id(
            int(self.clock.timestamp() * 1000), "backfill", self.space, str(self.count)
        )
        self.backfills[backfill_id] = Backfill(backfill_id)
        return self._of_backfill(
            self.backfills[backfill_id], backfill.request(known, wanted, occurrences), "key:test"
        )

    def _backfill_run(self, which: int, number: int) -> Append | None:
        known = self._open(which)
        if known is None:
            return None
        planned = known.plan[number % len(known.plan)]
        assert isinstance(planned, Occurrence)
        run_id = planned.candidates(known.id, known.task_id)[
            ("none", "skipped", "fired").index(planned.verdict)
        ]
        cause = {
            "kind": "backfill", "backfill": known.id, "at": planned.at.isoformat(), "lateness": 60.0,
            "verdict": planned.verdict, "reason": planned.reason,
        }  # fmt: skip
        data = self._wanted(number) | {"cause": cause, "priority": 0}
        return self._occurrence(self.tasks[known.task_id], run_id, "RunRequested", data, None)

    def _backfill_end(self, which: int, number: int) -> Append | None:
        known = self._open(which)
        if known is None:
            return None
        if number % 2:
            return self._of_backfill(known, backfill.finish(known), "clock")
        return self._of_backfill(known, backfill.stop(known, f"reason {number}"), "key:test")

    def _open(self, which: int) -> Backfill | None:
        running = [one for one in self.backfills.values() if one.state == "running"]
        return running[which % len(running)] if running else None

    def _of_backfill(self, known: Backfill, events: list[NewEvent], actor: str) -> Append:
        stream, before = backfill_stream(known.id), known.stream_version
        for event in events:
            backfill.evolve(known, self._event(stream, known.stream_version + 1, event))
        return Append(stream, before, events, self.space, actor, known.id)

    # Runs

    # Dead letters

    def _rejected(self, number: int) -> dict[str, Any]:
        data: dict[str, Any] = {"stream": "orders", "id": f"{number}-0", "reason": f"reason {self.count}"}
        if number % 2:
            data |= {"task": ids.task_id(self.space, "a"), "name": "a"}
        if number % 3 == 0:
            data["history"] = {"deliveries": number, "last_consumer": "gone", "idle_seconds": 1.0}
        return data

    def _reject(self, _which: int, number: int) -> Append | None:
        letter_id = ids.cause_id(number, "rejected", self.space, str(self.count))
        known = self.letters[letter_id] = DeadLetter(letter_id)
        return self._of_letter(known, [NewEvent("EventRejected", self._rejected(number))], "intake")

    def _requeue(self, which: int, number: int) -> Append | None:
        if not self.letters:
            return None
        known = list(self.letters.values())[which % len(self.letters)]
        again = self._rejected(number) | {"id": known.entry_id} if number % 2 else None
        events = deadletter.requeue(known, f"why {number}", "log", [], again)
        return self._of_letter(known, events, "key:test")

    def _drop(self, which: int, number: int) -> Append | None:
        if not self.letters:
            return None
        known = list(self.letters.values())[which % len(self.letters)]
        events = deadletter.drop(known, f"why {number}")
        return self._of_letter(known, events, "key:other") if events else None

    def _of_letter(self, known: DeadLetter, events: list[NewEvent], actor: str) -> Append:
        before, stream = known.stream_version, letter_stream(known.id)
        for event in events:
            deadletter.evolve(known, self._event(stream, known.stream_version + 1, event))
        cause = None if before else "redis:orders/1-0"
        return Append(stream, before, events, self.space, actor, known.id, cause)

    def _append(self, known: Run, events: list[NewEvent]) -> Append:
        before = known.stream_version
        for event in events:
            run.evolve(known, self._event(run_stream(known.id), known.stream_version + 1, event))
        return Append(run_stream(known.id), before, events, self.space, "worker:w", known.id)

    def _pick(self, which: int, *states: str) -> Run | None:
        candidates = [one for one in self.runs.values() if one.state in states]
        return candidates[which % len(candidates)] if candidates else None

    def _lease(self, which: int, _number: int) -> Append | None:
        known = self._pick(which, "queued", "waiting")
        return self._append(known, [run.start(known, "w")]) if known else None

    def _crash(self, which: int, _number: int) -> Append | None:
        """The worker is lost; another takes the run over (or parks it)."""
        known = self._pick(which, "running")
        return self._append(known, [run.start(known, "v")]) if known else None

    def _steps(self, known: Run, number: int) -> list[NewEvent]:
        stamp = self.clock.isoformat()
        kinds = ("StepSucceeded", "StepFailed", "StepSkipped")
        return [
            NewEvent(
                kinds[n % 3],  # type: ignore[arg-type]
                {
                    "step": f"s{n}",
                    "attempt": 1,
                    "output": {"n": n},
                    "started_at": stamp,
                    "finished_at": stamp,
                },
            )
            for n in range(number % 3)
        ]

    def _step(self, which: int, number: int) -> Append | None:
        known = self._pick(which, "running")
        return self._append(known, self._steps(known, number + 1)) if known and (number + 1) % 3 else None

    def _succeed(self, which: int, number: int) -> Append | None:
        known = self._pick(which, "running")
        if known is None:
            return None
        end = NewEvent(
            "RunSucceeded", {"task": known.task_id, "output": None if number % 4 == 0 else [number]}
        )
        return self._append(known, [*self._steps(known, number), end])

    def _fail(self, which: int, number: int) -> Append | None:
        known = self._pick(which, "running")
        if known is None:
            return None
        end = NewEvent("RunFailed", {"task": known.task_id, "error": {"message": f"e{number}", "step": "s0"}})
        return self._append(known, [*self._steps(known, number), end])

    def _put_off(self, which: int, number: int) -> Append | None:
        known = self._pick(which, "running")
        if known is None:
            return None
        due = (self.clock + timedelta(seconds=number)).isoformat()
        return self._append(
            known, [NewEvent("RunRetryScheduled", {"task": known.task_id, "run_at": due, "reason": "r"})]
        )

    def _hand_back(self, which: int, _number: int) -> Append | None:
        known = self._pick(which, "running")
        return self._append(known, [run.hand_back(known, self.clock)]) if known else None

    def _cancel(self, which: int, number: int) -> Append | None:
        known = self._pick(which, "queued", "running", "waiting")
        reason = (None, "", "no longer wanted")[number % 3]
        return self._append(known, run.cancel(known, reason)) if known else None

    def _reopen(self, which: int, _number: int) -> Append | None:
        known = self._pick(which, "failed", "canceled", "parked")
        return self._append(known, run.retry(known, self.clock)) if known else None

    def _park(self, which: int, _number: int) -> Append | None:
        known = self._pick(which, "running", "waiting")
        if known is None:
            return None
        event = NewEvent("RunParked", {"task": known.task_id, "error": {"message": "lost"}, "attempt": 1})
        return self._append(known, [event])

    def _event(self, stream: str, version: int, event: NewEvent) -> Event:
        return Event(
            0, self.space, stream, version, event.type, 1, self.clock, "test", "c", None, dict(event.data)
        )
