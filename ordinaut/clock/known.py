"""The tasks a clock decides by, remembered from one firing to the next and read many at a time.

What is remembered may be old; the append requires the task's version, and a refusal makes the clock
`forget` and read again.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime

from ordinaut.clock.decide import Decision, Due, as_of, decide_ahead
from ordinaut.domain.definition import Definition, load_definition
from ordinaut.domain.errors import Invalid
from ordinaut.domain.events import Event
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.spec import parse_schedule
from ordinaut.domain.task import Task, fold, task_stream
from ordinaut.log.append import Connection
from ordinaut.log.read import read_streams

REMEMBERED = 20_000


class Known:
    """A task as the log has it, its compiled definition, and its rules, read on first use."""

    def __init__(self, task: Task, events: Iterable[Event]) -> None:
        self.task = task
        self.definition: Definition = load_definition(task.definition, task.name)
        planned = [event.data["version"] for event in events if "plan" in event.data]
        self.schedule_since: int = planned[-1] if planned else 0
        self._rule: Schedule | None = None
        self._ahead: tuple[Due, Decision | None] | None = None

    def rule(self) -> Schedule:
        """The rule of the task's schedule. Raises `Invalid` when it cannot be read (any more)."""
        if self._rule is None:
            spec, created_at = self.definition.schedule, self.task.created_at
            if spec is None or created_at is None:
                raise Invalid.at("/schedule", "the task has no schedule")
            self._rule = parse_schedule(spec, created_at=created_at)
        return self._rule

    def look_ahead(self, due: Due) -> None:
        """Decide now what will be due; what is wrong with the task is told when it is decided on."""
        if self.schedule_since == due.since_version:
            with suppress(Exception):
                self._ahead = due, decide_ahead(self.task, self.definition, self.rule(), due)

    def decided(self, due: Due, now: datetime) -> Decision | None:
        """The decision that was made ahead, as of `now`; None when there is none that holds. It is for a task
        without unfinished runs."""
        known, decision = self._ahead or (None, None)
        self._ahead = None
        return as_of(decision, now) if known == due and decision is not None else None


class KnownTasks:
    """A bounded memory of tasks, least recently used out first."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._known: OrderedDict[str, Known] = OrderedDict()

    def forget(self, task_id: str) -> None:
        """Read the task anew when it is next asked for."""
        self._known.pop(task_id, None)

    async def get(self, connection: Connection, since: Mapping[str, int]) -> dict[str, Known]:
        """The tasks by id; `since` says for each the version of the definition it must have reached.

        One that the log does not have is missing from the answer.
        """
        found: dict[str, Known] = {}
        for task_id, version in since.items():
            known = self._known.get(task_id)
            if known is not None and known.task.version >= version:
                self._known.move_to_end(task_id)
                found[task_id] = known
        missing = {task_stream(task_id): task_id for task_id in since if task_id not in found}
        if missing:
            for stream, events in (await read_streams(connection, list(missing))).items():
                task_id = missing[stream]
                found[task_id] = self._known[task_id] = Known(fold(task_id, events), events)
            while len(self._known) > self._remembered:
                self._known.popitem(last=False)
        return found
