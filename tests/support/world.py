"""A whole system inside the test: a log, read tables that follow it, and as many workers as wanted.

The doors are left out: `define` and `request` append what the API, the clock and intake would.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ordinaut.domain import ids
from ordinaut.domain import run as run_decisions
from ordinaut.domain import task as task_decisions
from ordinaut.domain.definition import load_definition, parse_definition
from ordinaut.domain.events import Event, NewEvent
from ordinaut.domain.request import request_run
from ordinaut.domain.run import Run, fold, run_stream
from ordinaut.domain.task import task_stream
from ordinaut.log.append import Append, Appended
from ordinaut.log.appender import Appender
from ordinaut.log.read import read_stream
from ordinaut.log.wake import CANCELED
from ordinaut.runtime.settings import Settings
from ordinaut.runtime.system import System, open_system
from ordinaut.work.tools.base import Tool
from ordinaut.work.tools.registry import BUILT_IN, Registry
from ordinaut.work.worker import Worker
from projections.projector import Projector, step
from projections.registry import all_projections
from tests.support.eventually import eventually

ECHO = [{"id": "say", "uses": "debug.echo", "with": {"said": "${input}"}}]


@dataclass
class RunningWorker:
    """A worker in this process; `stop` begins its drain, `ended` waits for the end of it."""

    worker: Worker
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None

    @property
    def name(self) -> str:
        """What its leases and events call it."""
        return self.worker.name

    def stop(self) -> None:
        """What SIGTERM does."""
        self.stopping.set()

    async def ended(self, timeout: float = 30.0) -> None:
        """Wait until it has drained."""
        assert self.task is not None
        async with asyncio.timeout(timeout):
            await self.task

    async def kill(self) -> None:
        """End it without a word: it keeps its leases and says nothing of them."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class World:
    """See the module. `system` is for whatever is not here."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.workers: list[RunningWorker] = []

    async def define(self, name: str, pipeline: Sequence[Mapping[str, Any]] = ECHO, **more: Any) -> str:
        """Create the task, or change it when it is there; answers with its id. `more` is the rest of the
        definition: policy, params, schedule …"""
        task = await self.system.tasks.load(ids.task_id("default", name))
        document = {"name": name, "pipeline": list(pipeline), **more}
        now = self.system.time.now()
        parsed = parse_definition(document, created_at=now, known_tools=None).normalised()
        if task.exists:
            events = task_decisions.change(task, parsed, [], "")
        else:
            events = task_decisions.create(task, name, parsed, [], "", created_at=now)
        await self._append(task_stream(task.id), task.stream_version, events)
        return task.id

    async def request(
        self,
        name: str,
        input: Any = None,
        *,
        simulate: bool = False,
        run_at: datetime | None = None,
        run_id: str | None = None,
    ) -> str:
        """Ask for a run as `POST /v1/tasks/{name}/run` does; its id."""
        (one,) = await self.request_many(name, [input], simulate=simulate, run_at=run_at, run_ids=[run_id])
        return one

    async def request_many(
        self,
        name: str,
        inputs: Sequence[Any],
        *,
        simulate: bool = False,
        run_at: datetime | None = None,
        run_ids: Sequence[str | None] | None = None,
    ) -> list[str]:
        """Ask for a run per input, in one commit; their ids."""
        task = await self.system.tasks.load(ids.task_id("default", name))
        definition = load_definition(task.definition, name)
        appends = []
        for given, run_id in zip(inputs, run_ids or [None] * len(inputs), strict=True):
            event = request_run(task, definition, {"kind": "manual"}, given, simulate=simulate, run_at=run_at)
            run_id = run_id or ids.new_id()
            appends.append(Append(run_stream(run_id), 0, [event], task.space, "test", run_id))
        for outcome in await self.system.appender.append_all(appends):
            assert isinstance(outcome, Appended), outcome
        return [item.stream.removeprefix("run-") for item in appends]

    async def cancel(self, run_id: str, *, tell: bool = True) -> None:
        """What POST /v1/runs/{id}/cancel does; without `tell` its hint to the worker is lost."""
        run = await self.run(run_id)
        events = run_decisions.cancel(run, "no longer wanted")
        await self._append(run_stream(run_id), run.stream_version, events)
        if tell:
            await self.system.pool.execute("SELECT pg_notify($1, $2)", CANCELED, run_id)

    async def retry(self, run_id: str) -> None:
        """What POST /v1/runs/{id}/retry does."""
        run = await self.run(run_id)
        events = run_decisions.retry(run, self.system.time.now())
        await self._append(run_stream(run_id), run.stream_version, events)

    async def _append(
        self, stream: str, version: int, events: list[NewEvent], effects: dict[str, Any] | None = None
    ) -> None:
        if events:
            item = Append(stream, version, events, "default", "test", stream, effects=effects or {})
            await self.system.appender.append(item)

    async def events(self, run_id: str) -> list[Event]:
        """The run's stream."""
        async with self.system.pool.acquire() as connection:
            return await read_stream(connection, run_stream(run_id))

    async def types(self, run_id: str) -> list[str]:
        """The names of the run's events."""
        return [event.type for event in await self.events(run_id)]

    async def run(self, run_id: str) -> Run:
        """The run as its stream has it now."""
        return fold(run_id, await self.events(run_id))

    async def in_state(self, run_id: str, *states: str, timeout: float = 20.0) -> Run:
        """Wait until the run is in one of these states."""

        async def reached() -> Run:
            run = await self.run(run_id)
            assert run.state in states, f"{run.state}: {run.error}; {await self.types(run_id)}"
            return run

        return await eventually(reached, timeout)

    async def finished(self, run_id: str, timeout: float = 20.0) -> Run:
        """Wait until the run has ended, however."""
        return await self.in_state(run_id, *run_decisions.ENDED, timeout=timeout)

    async def project(self) -> None:
        """Fold the log into due_work now; for worlds without a projector."""
        async with self.system.pool.acquire() as connection:
            while True:
                done = await step(connection, all_projections()["due_work"])
                if done.position >= done.head:
                    return

    async def due_work(self) -> dict[str, dict[str, Any]]:
        """The rows of due_work by run id."""
        rows = await self.system.pool.fetch("SELECT run_id::text AS id, * FROM due_work ORDER BY run_id")
        return {row["id"]: dict(row) for row in rows}

    async def expire_leases(self) -> None:
        """Let every lease have run out a second ago."""
        await self.system.pool.execute(
            "UPDATE due_work SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL"
        )

    def start_worker(
        self,
        *tools: Tool,
        registry: Registry | None = None,
        appender: Appender | None = None,
        **settings: Any,
    ) -> RunningWorker:
        """Start a worker with the built-in tools and `tools`; `settings` as in Settings."""
        mine = self.system.settings.model_copy(update=settings)
        system = replace(self.system, settings=mine, appender=appender or Appender(self.system.pool))
        started = RunningWorker(Worker(system, registry or Registry([*BUILT_IN, *tools])))
        started.task = asyncio.create_task(started.worker.run(started.stopping))
        self.workers.append(started)
        return started


@asynccontextmanager
async def open_world(
    database_url: str,
    redis_url: str,
    *,
    projections: Iterable[str] = ("due_work",),
    **settings: Any,
) -> AsyncIterator[World]:
    """A world on these servers with a projector of these projections (none: call `project`). Its
    workers drain at the end."""
    wanted = [all_projections()[name] for name in projections]
    chosen = Settings(database_url=database_url, redis_url=redis_url, **settings)
    async with open_system(chosen) as system:
        world = World(system)
        stop = asyncio.Event()
        follow = Projector(database_url, system.notifications, wanted, poll_seconds=chosen.poll_seconds)
        following = asyncio.create_task(follow.run(stop))
        try:
            yield world
        finally:
            for one in world.workers:
                one.stop()
            await asyncio.gather(*[one.task for one in world.workers if one.task], return_exceptions=True)
            stop.set()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
