"""Clocks and projectors in the test's own process, and tasks put straight into the log."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ordinaut.clock.clock import Clock
from ordinaut.clock.fire import Firing
from ordinaut.domain import ids, task
from ordinaut.domain.definition import parse_definition
from ordinaut.domain.events import NewEvent
from ordinaut.domain.schedules.spec import parse_schedule
from ordinaut.domain.schedules.zones import tz_version
from ordinaut.domain.task import task_stream
from ordinaut.log.append import Append
from ordinaut.log.read import read_stream
from ordinaut.runtime.settings import load_settings
from ordinaut.runtime.system import System, open_system
from projections.projector import Projector, step
from projections.registry import all_projections
from tests.support.eventually import eventually
from tests.support.running import Role


async def killed_after(role: Role, until: Callable[[], Awaitable[Any]]) -> None:
    """Run a role and cut it off wherever it is when `until` answers."""
    cut = asyncio.create_task(role.run(asyncio.Event()))
    try:
        await until()
    finally:
        cut.cancel()
        with suppress(asyncio.CancelledError):
            await cut


@dataclass
class World:
    """One database, seen through one process' system."""

    system: System

    def clock(self) -> Clock:
        return Clock(self.system)

    def projector(self) -> Projector:
        return Projector(
            self.system.settings.database_url, self.system.notifications,
            list(all_projections().values()), poll_seconds=0.2,
        )  # fmt: skip

    async def create(
        self, name: str, schedule: Any, *, at: datetime | None = None, tz: str | None = None, **policy: Any
    ) -> str:
        """A task in the log, its first instant `at` (or the schedule's first from now on), as planned with
        the release `tz` of the tz database (or the one in use); its id."""
        now = self.system.time.now()
        definition = parse_definition(
            {
                "name": name,
                "schedule": schedule,
                "pipeline": [{"id": "say", "uses": "debug.echo"}],
                "policy": policy,
            },
            created_at=now,
            known_tools=None,
        ).normalised()
        planned = at or parse_schedule(definition["schedule"], created_at=now).next_after(now)
        assert planned is not None
        task_id = ids.task_id("default", name)
        plan = [{"at": planned.isoformat()}]
        created = task.create(task.Task(task_id), name, definition, plan, tz or tz_version(), created_at=now)
        await self.add(task_id, created)
        return task_id

    async def load(self, task_id: str) -> task.Task:
        async with self.system.pool.acquire() as connection:
            return task.fold(task_id, await read_stream(connection, task_stream(task_id)))

    async def add(self, task_id: str, events: list[NewEvent]) -> int:
        """Append events to a task's stream; the position of the last one."""
        version = (await self.load(task_id)).stream_version
        done = await self.system.appender.append(
            Append(task_stream(task_id), version, events, "default", "key:test", task_id)
        )
        return done.position

    async def project(self) -> None:
        """Bring every projection to the end of the log, once."""
        async with self.system.pool.acquire() as connection:
            for projection in all_projections().values():
                while (done := await step(connection, projection)).position < done.head:
                    pass

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        rows: list[Any] = await self.system.pool.fetch(query, *arguments)
        return rows

    async def fire_all(self) -> int:
        """Fire until nothing is due; how many schedules moved."""
        firing, moved = Firing(self.system), 0
        while done := (await firing.fire_due()).moved:
            moved += done
        return moved

    async def fire_at(self, instant: datetime) -> int:
        """The same as if it were `instant` all the time."""
        time = self.system.time
        time.now = lambda: instant  # type: ignore[method-assign]
        try:
            return await self.fire_all()
        finally:
            del time.now  # type: ignore[method-assign]

    async def ledger(self, task_id: str) -> list[Any]:
        """The rows of `occurrences` of a task, oldest first, when the projection has caught up."""
        await self.project()
        return await self.fetch("SELECT * FROM occurrences WHERE task_id = $1::uuid ORDER BY at", task_id)

    async def verdicts(self, task_id: str) -> list[tuple[datetime, str, int]]:
        """(first instant, `fired` or the reason, how many instants) of each verdict, oldest first."""
        return [
            (row["at"], row["reason"] or row["verdict"], row["count"]) for row in await self.ledger(task_id)
        ]

    async def wait_for_verdicts(self, task_id: str, number: int) -> None:
        """Wait until the log holds at least `number` verdicts about a task."""
        await eventually(lambda: self._has_verdicts(task_id, number), timeout=30, every=0.05)

    async def _has_verdicts(self, task_id: str, number: int) -> bool:
        (row,) = await self.fetch(
            "SELECT count(*) FROM events WHERE type IN ('RunRequested', 'OccurrenceSkipped')"
            " AND data->>'task' = $1",
            task_id,
        )
        return bool(row[0] >= number)


@asynccontextmanager
async def open_world(database_url: str, **settings: Any) -> AsyncIterator[World]:
    """A system of its own on the test's database, as another process has one."""
    values = {"database_url": database_url, "poll_seconds": 0.2, **settings}
    async with open_system(load_settings(**values)) as system:
        yield World(system)


def whole_second(instant: datetime) -> datetime:
    """The instant without its fraction of a second, UTC."""
    return instant.astimezone(UTC).replace(microsecond=0)


def most_in_a_second(instants: Sequence[datetime]) -> int:
    """The most of them that any second (not only whole ones) holds."""
    ordered, first, most = sorted(instants), 0, 0
    for n, at in enumerate(ordered):
        while at - ordered[first] >= timedelta(seconds=1):
            first += 1
        most = max(most, n - first + 1)
    return most
