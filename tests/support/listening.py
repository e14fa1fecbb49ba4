"""A system with tasks that listen to streams, for tests of intake and of published events."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from ordinaut.domain import ids, task
from ordinaut.domain.definition import parse_definition
from ordinaut.domain.events import Event, NewEvent
from ordinaut.domain.task import Task, task_stream
from ordinaut.domain.trigger import PATTERNS
from ordinaut.intake.intake import Intake
from ordinaut.intake.pressure import Pressure
from ordinaut.log.append import Append
from ordinaut.log.read import LogFilter, read_log
from ordinaut.runtime.settings import Settings
from ordinaut.runtime.system import System, open_system
from tests.support.running import running

ON = ("where", "input", "key", *PATTERNS)


@asynccontextmanager
async def a_system(database_url: str, redis_url: str, **settings: Any) -> AsyncIterator[System]:
    """A system that notices everything soon."""
    given = {"lease_seconds": 1, "poll_seconds": 0.1} | settings
    async with open_system(Settings(database_url=database_url, redis_url=redis_url, **given)) as system:
        yield system


@asynccontextmanager
async def an_intake(system: System) -> AsyncIterator[Intake]:
    """An intake at work."""
    intake = Intake(system)
    async with running(intake):
        yield intake


def roomy(system: System) -> Pressure:
    """Flow control that never holds anything back."""
    return Pressure(system.pool, 1_000_000_000, 3600, lambda: 0)


async def listen(
    system: System, name: str, stream: str = "orders", space: str = "default", **more: Any
) -> Task:
    """Create a task that listens to `stream`, or to the log's `event`. What `ON` names goes to its
    trigger, the rest is its own."""
    source = {"event": more.pop("event")} if "event" in more else {"stream": stream}
    on = source | {key: more.pop(key) for key in ON if key in more}
    document = {"name": name, "on": on, "pipeline": [{"id": "echo", "uses": "debug.echo"}], **more}
    now = system.time.now()
    definition = parse_definition(document, created_at=now, known_tools=None)
    task_id = ids.task_id(space, name)
    state = await system.tasks.load(task_id)
    created = task.create(state, name, definition.normalised(), [], "", created_at=now)
    return await happen(system, state, created, space)


async def happen(system: System, state: Task, events: list[NewEvent], space: str | None = None) -> Task:
    """Append a task's events; the task as it is then."""
    append = Append(
        task_stream(state.id), state.stream_version, events, space or state.space, "test", state.id, None
    )
    await system.appender.append(append)
    return await system.tasks.load(state.id)


async def events(system: System, *types: str, space: str = "default") -> list[Event]:
    """All events of these types, in order."""
    async with system.pool.acquire() as connection:
        return await read_log(connection, LogFilter(space, types=types), after=0, limit=10_000)


async def read_to_the_end(redis: Redis, stream: str = "orders") -> bool:
    """Whether every entry has been read and acknowledged. By the ids: before 7.0 Redis tells no lag."""
    (group,) = await redis.xinfo_groups(stream)
    last = (await redis.xinfo_stream(stream))["last-generated-id"]
    return bool(group["last-delivered-id"] == last and group["pending"] == 0)
