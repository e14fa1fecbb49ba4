"""`schedule refresh`: what another tz database planned is computed anew, and says so."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from ordinaut.domain.schedules.zones import tz_version
from ordinaut.runtime.ledger import Checked, check_ledger
from tests.support.api import Served, running_api
from tests.support.clock import World, open_world
from tests.support.commands import ordinaut
from tests.support.eventually import eventually

HOUR = timedelta(hours=1)
DAILY = {"cron": "0 9 * * *", "timezone": "Europe/Chisinau"}


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url) as served:
        yield served


async def next_of(world: World, task_id: str) -> Any:
    await world.project()
    (row,) = await world.fetch(
        "SELECT next_fire_at, tz, since_version FROM schedules WHERE task_id = $1::uuid", task_id
    )
    return row


async def test_what_an_older_release_planned_elsewhere_is_moved_by_an_event(
    world: World, api: Served, database_url: str, redis_url: str
) -> None:
    """As if the zone had been an hour off when the task was planned (its event names another release)."""
    now = world.system.time.now()
    right = await world.create("right", DAILY, tz="2001a")
    planned = (await next_of(world, right))["next_fire_at"]
    moved = await world.create("moved", DAILY, at=planned + HOUR, tz="2001a")
    await next_of(world, moved)

    body = {"dry_run": True}
    dry = (await api.http.post("/v1/schedules/refresh", json=body)).json()
    assert [(one["task"], one["was"], one["next_fire_at"]) for one in dry["moved"]] == [
        ("moved", (planned + HOUR).isoformat(), planned.isoformat())
    ]
    assert (dry["same"], dry["due"], dry["next"], dry["tz"]) == (1, 0, None, tz_version())
    assert (await next_of(world, moved))["next_fire_at"] == planned + HOUR

    env = {"ORDINAUT_DATABASE_URL": database_url, "ORDINAUT_REDIS_URL": redis_url}
    told = await asyncio.to_thread(ordinaut, "doctor", "--json", env=env)
    (finding,) = [each for each in json.loads(told.stdout) if each["check"] == "tz database"]
    assert finding["level"] == "warn" and "default/moved" in finding["found"]

    answer = await api.http.post("/v1/schedules/refresh", json={})
    assert [one["task"] for one in answer.json()["moved"]] == ["moved"]
    row = await next_of(world, moved)
    assert (row["next_fire_at"], row["tz"], row["since_version"]) == (planned, tz_version(), 2)
    (event,) = await world.fetch("SELECT data, actor FROM events WHERE type = 'TaskChanged'")
    assert event["data"]["refreshed"] == {"at": (planned + HOUR).isoformat(), "tz": "2001a"}
    assert (await api.fresh("/v1/tasks/moved", answer))["next_fire_at"] == planned.isoformat()
    again = await api.http.post("/v1/schedules/refresh", json={})
    assert again.json()["moved"] == []
    assert planned > now


async def test_the_moved_instant_fires_once_and_its_ledger_has_no_hole(world: World, api: Served) -> None:
    now = world.system.time.now()
    task_id = await world.create(
        "tick", {"every": "1s", "anchor": now.isoformat()}, at=now + HOUR, tz="2001a"
    )
    await world.project()
    assert (await api.http.post("/v1/schedules/refresh", json={})).json()["moved"][0]["task"] == "tick"
    await world.project()
    planned = (await next_of(world, task_id))["next_fire_at"]
    await world.fire_at(planned)
    verdicts = await world.verdicts(task_id)
    assert verdicts == [(planned, "fired", 1)]
    (fired,) = await world.fetch("SELECT data FROM events WHERE type = 'RunRequested'")
    assert fired["data"]["tz"] == tz_version()
    async with world.system.pool.acquire() as connection:
        assert [hole async for hole in check_ledger(connection, Checked())] == []


async def test_what_is_due_is_left_to_the_clock_and_what_has_passed_is_told(
    world: World, api: Served
) -> None:
    now = world.system.time.now()
    due = await world.create("due", {"every": "1s", "anchor": now.isoformat()}, at=now - HOUR, tz="2001a")
    late = await world.create("late", {"every": "1s", "anchor": now.isoformat()}, at=now + HOUR, tz="2001a")
    await world.project()
    await eventually(lambda: world.system.time.now() > now + timedelta(seconds=2), timeout=20)
    found = (await api.http.post("/v1/schedules/refresh", json={})).json()
    assert found["due"] == 1
    (moved,) = found["moved"]
    created = (await world.load(late)).created_at
    assert moved["task"] == "late" and created is not None
    assert created < datetime.fromisoformat(moved["passed"]) <= world.system.time.now()
    assert (await next_of(world, due))["next_fire_at"] == now - HOUR


async def test_a_page_ends_where_the_next_one_goes_on_and_bad_ones_are_refused(
    world: World, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ordinaut.api.refresh as module

    look = module.look

    async def two_at_once(*arguments: Any, **named: Any) -> Any:
        return await look(*arguments, **named, limit=2)

    monkeypatch.setattr(module, "look", two_at_once)
    planned = (await next_of(world, await world.create("task-0", DAILY, tz="2001a")))["next_fire_at"]
    for number in range(1, 5):
        await world.create(f"task-{number}", DAILY, at=planned + HOUR, tz="2001a")
    await world.project()
    seen: list[str] = []
    after, pages = None, 0
    while pages == 0 or after is not None:
        page = (await api.http.post("/v1/schedules/refresh", json={"after": after})).json()
        seen += [one["task"] for one in page["moved"]]
        after, pages = page["next"], pages + 1
    assert sorted(seen) == [f"task-{number}" for number in range(1, 5)]
    assert pages == 3
    answer = await api.http.post("/v1/schedules/refresh", json={"after": "task-1"})
    assert answer.status_code == 422


async def test_a_fault_of_what_another_release_planned_says_so(world: World) -> None:
    start = world.system.time.now().replace(microsecond=0) - HOUR
    schedule = {"every": "10s", "anchor": start.isoformat()}
    await world.create("tick", schedule, at=start, tz="2001a", catch_up="all", overlap="allow")
    await world.project()
    await world.fire_all()
    await world.project()
    await world.system.pool.execute("DELETE FROM occurrences WHERE at = $1", start)
    async with world.system.pool.acquire() as connection:
        (hole,) = [hole async for hole in check_ledger(connection, Checked())]
    assert hole.fault.what == f"has no verdict (planned with tz database 2001a; this is {tz_version()})"
