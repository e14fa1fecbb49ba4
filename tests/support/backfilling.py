"""A schedule that was out for a while, and backfills of it over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from ordinaut.runtime.ledger import Checked, check_ledger
from ordinaut.work.tools.registry import BUILT_IN, Registry
from ordinaut.work.worker import Worker
from tests.support.api import Served
from tests.support.clock import World, whole_second
from tests.support.eventually import eventually
from tests.support.running import running

MINUTE = timedelta(minutes=1)


async def an_outage(world: World, name: str = "tick", minutes: int = 10, **policy: Any) -> datetime:
    """A task `every: 1m` whose first instant was `minutes` ago; the latest has run, all others were missed.
    Answers with the first."""
    start = whole_second(world.system.time.now()) - minutes * MINUTE - MINUTE / 2
    schedule = {"every": "1m", "anchor": start.isoformat()}
    await world.create(name, schedule, at=start, **policy)
    await world.project()
    await world.fire_all()
    await world.project()
    return start


async def backfill(api: Served, name: str, since: datetime, status: int = 202, **more: Any) -> Any:
    body = {"from": since.isoformat(), **more}
    answer = await api.http.post(f"/v1/tasks/{name}/backfill", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def shown(api: Served, backfill_id: str) -> Any:
    answer = await api.http.get(f"/v1/backfills/{backfill_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ended(api: Served, backfill_id: str) -> Any:
    """The backfill when it has ended and its numbers say so."""

    async def look() -> Any:
        found = await shown(api, backfill_id)
        return found if found["state"] != "running" and not found["unfinished"] else None

    return await eventually(look, timeout=30)


async def runs_of(world: World, name: str = "tick") -> list[Any]:
    """Every run of a task that was asked for, in the order of asking."""
    return await world.fetch(
        "SELECT substr(stream, 5) AS id, actor, causation, data FROM events WHERE type = 'RunRequested'"
        " AND data->>'name' = $1 ORDER BY position",
        name,
    )


def instants(runs: list[Any]) -> list[datetime]:
    return [datetime.fromisoformat(run["data"]["cause"]["at"]) for run in runs]


@asynccontextmanager
async def at_work(world: World) -> AsyncIterator[None]:
    async with running(world.clock(), Worker(world.system, Registry(BUILT_IN))):
        yield


async def holes(world: World) -> list[Any]:
    await world.project()
    async with world.system.pool.acquire() as connection:
        return [hole async for hole in check_ledger(connection, Checked())]
