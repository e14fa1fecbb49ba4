"""Tasks that collect events: entries of long ago, what becomes of them, and the table of windows."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from ordinaut.domain import task
from ordinaut.domain.events import Event
from ordinaut.intake.windows import Windows
from ordinaut.runtime.system import System
from ordinaut.runtime.windows import Row, fold_log, load
from tests.support.eventually import eventually
from tests.support.listening import an_intake, events, listen, read_to_the_end, roomy

BEGIN = datetime(2026, 1, 2, tzinfo=UTC)
"""The entries of these tests are so old that every window is due when they have been read."""


async def add(system: System, stream: str, *entries: tuple[float, Any]) -> None:
    """Entries (seconds behind the first, data) with such ids."""
    begin = int(BEGIN.timestamp() * 1000)
    for number, (second, data) in enumerate(entries):
        entry_id = f"{begin + int(second * 1000)}-{number + 1}"
        await system.redis.xadd(stream, {"data": as_json(data)}, id=entry_id)


def as_json(data: Any) -> str:
    return orjson.dumps(data).decode()


async def old(system: System, name: str, **more: Any) -> task.Task:
    """A task that listens, as if it had been there when the entries were added."""
    system.time.now = lambda: BEGIN - timedelta(days=1)  # type: ignore[method-assign]
    try:
        return await listen(system, name, **more)
    finally:
        del system.time.now  # type: ignore[method-assign]


async def runs(system: System, number: int) -> list[Event]:
    async def found() -> list[Event]:
        requested = await events(system, "RunRequested")
        assert len(requested) >= number, requested
        return requested

    return await eventually(found, timeout=20)


async def settle(system: System) -> None:
    """Take everything in and end what is due."""
    windows = Windows(system, roomy(system))
    while await windows.step():
        pass


async def table(system: System) -> dict[tuple[str, str], Row]:
    rows = await system.pool.fetch("SELECT task_id::text, key FROM windows")
    async with system.pool.acquire() as connection:
        return await load(connection, {(row["task_id"], row["key"]) for row in rows})


async def folded(system: System) -> dict[tuple[str, str], Row]:
    async with system.pool.acquire() as connection, connection.transaction():
        position = await connection.fetchval("SELECT position FROM log_readers WHERE name = 'windows'")
        return await fold_log(connection, position)


async def read_everything(system: System) -> bool:
    """Whether the entries of all streams that have a group have been read and acknowledged."""
    streams = [key async for key in system.redis.scan_iter(_type="stream")]
    groups = [stream for stream in streams if await system.redis.xinfo_groups(stream)]
    return all([await read_to_the_end(system.redis, stream) for stream in groups])


async def collect_some(system: System, number: int) -> None:
    """Let an intake work until more than so many events are collected."""
    async with an_intake(system):

        async def collected() -> bool:
            return len(await events(system, "EventCollected")) > number

        await eventually(collected, timeout=20)


async def cut_off(system: System, chance: random.Random, *, times: int) -> None:
    """Let two at once move the windows on, and cut both off at some moment, again and again; the table is
    what the log says each time."""
    for _ in range(times):
        cut = [asyncio.create_task(Windows(system, roomy(system)).step()) for _ in range(2)]
        await asyncio.sleep(chance.random() * 0.02)
        for one in cut:
            one.cancel()
        await asyncio.gather(*cut, return_exceptions=True)
        assert await table(system) == await folded(system)
