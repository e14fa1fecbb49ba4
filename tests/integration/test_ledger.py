"""The ledger that real clocks make has no holes; `ordinaut doctor` finds one that is made by hand (I8)."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from ordinaut.domain import task as tasks
from ordinaut.domain.definition import parse_definition
from ordinaut.domain.schedules.spec import parse_schedule
from ordinaut.domain.schedules.zones import tz_version
from ordinaut.runtime.ledger import Checked, Hole, check_ledger
from tests.support.api import PIPELINE, running_api
from tests.support.clock import World, open_world, whole_second
from tests.support.commands import ordinaut
from tests.support.eventually import eventually
from tests.support.running import running

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


async def holes(world: World, **bounds: int) -> tuple[list[Hole], Checked]:
    checked = Checked()
    async with world.system.pool.acquire() as connection:
        return [hole async for hole in check_ledger(connection, checked, **bounds)], checked


async def change(world: World, task_id: str, schedule: dict[str, Any] | None, **policy: Any) -> None:
    """Decide what is due, then give a task another schedule, planned from now on."""
    await world.fire_all()
    state, now = await world.load(task_id), world.system.time.now()
    document: dict[str, Any] = {"name": state.name, "schedule": schedule, "policy": policy}
    document["pipeline"] = [{"id": "say", "uses": "debug.echo"}]
    definition = parse_definition(document, created_at=now, known_tools=None).normalised()
    plan = []
    if definition["schedule"] is not None:
        first = parse_schedule(definition["schedule"], created_at=now).next_after(now)
        assert first is not None
        plan = [{"at": first.isoformat()}]
    await world.add(task_id, tasks.change(state, definition, plan, tz_version(), effective_at=now))


async def an_hour(world: World, name: str, **policy: Any) -> str:
    """A task `every: 10s` whose first instant was an hour ago, decided up to now."""
    start = whole_second(world.system.time.now()) - HOUR
    task_id = await world.create(name, {"every": "10s", "anchor": start.isoformat()}, at=start, **policy)
    await world.project()
    await world.fire_all()
    await world.project()
    return task_id


@pytest.mark.parametrize("overlap", ["skip", "queue_one", "cancel_running", "allow"])
@pytest.mark.parametrize("catch_up", ["none", "latest", {"all": {"max": 20}}], ids=["none", "latest", "all"])
async def test_the_ledger_of_an_outage_has_no_holes(world: World, catch_up: Any, overlap: str) -> None:
    await an_hour(world, "tick", catch_up=catch_up, overlap=overlap)
    found, checked = await holes(world)
    assert found == []
    assert checked.tasks == 1
    assert 360 <= checked.instants <= 364


async def test_a_ledger_over_changes_a_pause_a_snooze_and_a_retirement_has_no_holes(
    database_url: str, redis_url: str, world: World
) -> None:
    """Over the API, whose changes give what is due its verdict, with a clock that comes and goes."""
    policy = {"overlap": "allow", "catch_up": "all"}
    async with running_api(database_url, redis_url, poll_seconds=0.2) as api:

        async def put(schedule: dict[str, Any], **more: Any) -> None:
            body = {"pipeline": PIPELINE, "schedule": schedule, "policy": policy, **more}
            answer = await api.http.put("/v1/tasks/tick", json=body)
            assert answer.status_code < 300, answer.text
            task_ids.append(answer.json()["id"])

        async def decided(more: int) -> None:
            before = await verdicts(world, task_ids[0])
            await world.wait_for_verdicts(task_ids[0], before + more)

        task_ids: list[str] = []
        await put({"every": "1s"})
        async with running(world.projector(), world.clock()):
            await decided(2)
            await put({"every": "1s"}, title="another title")
            await decided(2)
            await put({"cron": "* * * * *"})
            await put({"rrule": "FREQ=SECONDLY;INTERVAL=2"})
            await decided(2)
            assert (await api.http.post("/v1/tasks/tick/pause")).status_code == 200
            await decided(1)
            assert (await api.http.post("/v1/tasks/tick/resume")).status_code == 200
            await decided(1)
            until = (world.system.time.now() + 4 * SECOND).isoformat()
            assert (await api.http.post("/v1/tasks/tick/snooze", json={"until": until})).status_code == 200
            await decided(3)
        # Nobody decides for a while, and the schedule is changed meanwhile.
        away = world.system.time.now()
        await eventually(lambda: world.system.time.now() > away + 2 * SECOND, timeout=20)
        await put({"every": "1s"})
        await eventually(lambda: world.system.time.now() > away + 4 * SECOND, timeout=20)
        async with running(world.projector(), world.clock()):
            await decided(2)
            assert (await api.http.delete("/v1/tasks/tick")).status_code == 200
            await put({"every": "1s"})
            await decided(2)
    found, checked = await holes(world)
    assert found == []
    assert (checked.tasks, checked.bounded, checked.left) == (1, 0, 0)
    assert checked.instants >= 15


async def test_a_change_that_waits_long_to_be_recorded_leaves_no_instant_out(
    database_url: str, redis_url: str, world: World
) -> None:
    """Up to the instant it was decided at the old schedule names what is due, behind it the new one."""
    async with running_api(database_url, redis_url) as api:

        async def put(name: str, every: str) -> None:
            body = {"pipeline": PIPELINE, "schedule": {"every": every}, "policy": {"overlap": "allow"}}
            assert (await api.http.put(f"/v1/tasks/{name}", json=body)).status_code < 300

        await put("tick", "1s")
        async with api.system.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT FROM log_head FOR UPDATE")
            before = world.system.time.now()
            # The first is in flight, so the second waits in the queue.
            waiting = [asyncio.create_task(put("other", "1h"))]
            await eventually(lambda: appends_waiting(world))
            waiting.append(asyncio.create_task(put("tick", "1h")))
            await eventually(lambda: world.system.time.now() > before + 3 * SECOND, timeout=20)
        await asyncio.gather(*waiting)
    (row,) = await world.fetch(
        "SELECT at - (data->>'effective_at')::timestamptz AS waited FROM events WHERE type = 'TaskChanged'"
    )
    assert row["waited"] > 2 * SECOND
    await world.project()
    assert (await holes(world))[0] == []


async def appends_waiting(world: World) -> bool:
    """Whether an append waits for the head of the log."""
    (row,) = await world.fetch(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND query LIKE '%append_events%' AND datname = current_database()"
    )
    return bool(row[0])


async def test_the_tables_may_be_behind_the_log(world: World) -> None:
    """The verdicts that the table lacks are read from the log."""
    start = whole_second(world.system.time.now()) - HOUR
    await world.create("tick", {"every": "10s", "anchor": start.isoformat()}, at=start, overlap="allow")
    assert (await holes(world))[0] == [], "no clock can have decided what is not in the table yet"
    await world.project()
    await world.fire_all()
    assert await world.fetch("SELECT FROM occurrences") == []
    found, checked = await holes(world)
    assert (found, checked.tasks) == ([], 1)


async def test_only_the_newest_instants_are_looked_at_when_there_are_many(world: World) -> None:
    task_id = await an_hour(world, "tick", overlap="allow", catch_up="all")
    await world.fetch(
        "DELETE FROM occurrences WHERE at < $1", whole_second(world.system.time.now()) - HOUR / 2
    )
    assert len((await holes(world))[0]) > 100
    found, checked = await holes(world, limit=100)
    assert (found, checked.bounded) == ([], 1)
    assert 40 <= checked.instants <= 100
    await an_hour(world, "tock")
    _, checked = await holes(world, most=10)
    assert (checked.tasks, checked.left) == (1, 1)
    assert task_id


async def test_a_schedule_that_is_lost_from_the_table_is_found_out(world: World) -> None:
    await an_hour(world, "tick", overlap="allow")
    await world.fetch("UPDATE schedules SET next_fire_at = NULL")
    assert (await holes(world))[0] == [], "all that is older than a minute was decided"
    start = whole_second(world.system.time.now()) - HOUR
    await world.create("lost", {"every": "10m", "anchor": start.isoformat()}, at=start)
    await world.project()
    await world.fetch("DELETE FROM schedules")
    found, _ = await holes(world)
    assert {hole.task for hole in found} == {"default/lost"}
    assert found[0].fault.at == start


async def test_doctor_reports_a_verdict_that_is_gone_from_the_ledger(
    database_url: str, redis_url: str
) -> None:
    env = {"ORDINAUT_DATABASE_URL": database_url, "ORDINAUT_REDIS_URL": redis_url}
    async with open_world(database_url) as world:
        task_id = await an_hour(world, "tick", overlap="allow", catch_up="all")
        await change(world, task_id, None)
        await world.project()
        answer = await asyncio.to_thread(ordinaut, "doctor", "--json", env=env)
        assert levels(answer.stdout)["ledger"] == "ok"

        (gone,) = await world.fetch(
            "DELETE FROM occurrences WHERE at = (SELECT at FROM occurrences ORDER BY at OFFSET 7 LIMIT 1)"
            " RETURNING at"
        )
        answer = await asyncio.to_thread(ordinaut, "doctor", "--json", env=env)
        assert answer.returncode == 1
        fault, summary = [each for each in json.loads(answer.stdout) if each["check"] == "ledger"]
        assert fault["found"] == f"default/tick, version 1: {gone['at'].isoformat()} has no verdict"
        assert (fault["level"], summary["level"]) == ("fail", "fail")
        assert "projections rebuild occurrences" in fault["advice"]
        assert "has no verdict" in (await asyncio.to_thread(ordinaut, "doctor", env=env)).stdout

        await world.fetch(
            "UPDATE occurrences SET at = at + interval '1 second', until = at + interval '1 second'"
            " WHERE at = $1", gone["at"] + 10 * SECOND
        )  # fmt: skip
        found, _ = await holes(world)
        assert [(hole.fault.at - gone["at"], hole.fault.what) for hole in found] == [
            (0 * SECOND, "has no verdict"),
            (10 * SECOND, "has no verdict"),
            (11 * SECOND, "was fired, but no rule in force named it"),
        ]


def levels(output: str) -> dict[str, str]:
    return {each["check"]: each["level"] for each in json.loads(output)}


async def verdicts(world: World, task_id: str) -> int:
    (row,) = await world.fetch(
        "SELECT count(*) FROM events WHERE type IN ('RunRequested', 'OccurrenceSkipped')"
        " AND data->>'task' = $1",
        task_id,
    )
    return int(row[0])
