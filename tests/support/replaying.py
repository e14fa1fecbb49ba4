"""Replays over HTTP, and those who carry them out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from ordinaut.clock.clock import Clock
from ordinaut.work.tools.registry import BUILT_IN, Registry
from ordinaut.work.worker import Worker
from tests.support.api import Served
from tests.support.eventually import eventually
from tests.support.listening import events
from tests.support.running import running


async def add(redis: Redis, *amounts: int, stream: str = "orders") -> list[str]:
    """An entry for each amount; their ids."""
    return [(await redis.xadd(stream, {"data": f'{{"amount": {n}}}'})).decode() for n in amounts]


async def replayed(api: Served, status: int = 202, name: str = "ship", **body: Any) -> Any:
    """What a replay (of `orders`, unless `body` says something else) answers."""
    answer = await api.http.post(f"/v1/tasks/{name}/replay", json={"stream": "orders", **body})
    assert answer.status_code == status, answer.text
    return answer.json()


async def ended(api: Served, backfill_id: str) -> Any:
    """The replay when it has ended and its numbers say so."""

    async def look() -> Any:
        found = (await api.http.get(f"/v1/backfills/{backfill_id}")).json()
        return found if found["state"] != "running" and not found["unfinished"] else None

    return await eventually(look, timeout=30)


@asynccontextmanager
async def at_work(api: Served) -> AsyncIterator[None]:
    """A clock and a worker."""
    async with running(Clock(api.system), Worker(api.system, Registry(BUILT_IN))):
        yield


async def runs(api: Served) -> list[Any]:
    """Every run that was asked for."""
    return await events(api.system, "RunRequested")


async def has(api: Served, number: int) -> bool:
    """Whether so many runs were asked for."""
    return len(await runs(api)) >= number
