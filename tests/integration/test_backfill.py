"""Backfills over a real log: what they show first, what they run, and that a stop or a kill leaves neither
hole nor duplicate."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from ordinaut.domain import task as tasks
from ordinaut.domain.definition import parse_definition
from ordinaut.domain.ids import scheduled_run_id, task_id
from ordinaut.domain.schedules.spec import parse_schedule
from ordinaut.runtime.ledger import Checked, check_ledger
from ordinaut.work.tools.registry import BUILT_IN, Registry
from ordinaut.work.worker import Worker
from tests.support.api import Served, running_api
from tests.support.clock import World, open_world, whole_second
from tests.support.eventually import eventually
from tests.support.running import running

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
async def api(database_url: str, redis_url: str, world: World) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url, poll_seconds=0.2) as served:
        yield served


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


async def test_a_dry_run_shows_each_instant_and_changes_nothing(world: World, api: Served) -> None:
    start = await an_outage(world)
    (before,) = await world.fetch("SELECT position FROM log_head")
    plan = await backfill(api, "tick", start, 200, dry_run=True)
    assert plan["counts"] == {"instants": 11, "run": 10, "has_run": 1, "expected": 0, "excluded": 0}
    assert [datetime.fromisoformat(one["at"]) for one in plan["items"]] == [
        start + n * MINUTE for n in range(11)
    ]
    for one in plan["items"][:-1]:
        assert (one["verdict"], one["reason"], one["run"]) == ("skipped", "missed", None)
        assert (one["will_run"], one["task_version"]) == (True, 1)
    last = plan["items"][-1]
    assert (last["verdict"], last["will_run"]) == ("fired", False)
    assert last["run"] == scheduled_run_id(task_id("default", "tick"), start + 10 * MINUTE)
    (after,) = await world.fetch("SELECT position FROM log_head")
    assert before == after


async def test_what_was_missed_is_run_oldest_first_and_never_twice(world: World, api: Served) -> None:
    start = await an_outage(world)
    asked = await backfill(api, "tick", start)
    assert (asked["state"], asked["counts"]["run"]) == ("running", 10)
    async with at_work(world):
        done = await ended(api, asked["backfill"])
        assert (done["state"], done["planned"], done["requested"], done["succeeded"]) == (
            "finished",
            10,
            10,
            10,
        )
        runs = await runs_of(world)
        assert instants(runs[1:]) == [start + n * MINUTE for n in range(10)]
        for run in runs[1:]:
            assert run["data"]["cause"]["kind"] == "backfill"
            assert run["data"]["priority"] == 0
            assert (run["actor"], run["causation"]) == ("clock", f"backfill-{asked['backfill']}/1")
        again = await backfill(api, "tick", start)
        assert (again["state"], again["counts"]["has_run"]) == ("finished", 11)
        assert len(await runs_of(world)) == 11
    assert await holes(world) == []
