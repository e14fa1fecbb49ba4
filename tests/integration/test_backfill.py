"""Backfills over a real log: what they show first, what they run, and that a stop or a kill leaves neither
hole nor duplicate."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from ordinaut.domain.ids import scheduled_run_id, task_id
from ordinaut.runtime.backfill import past_occurrences
from tests.support.api import Served, running_api
from tests.support.backfilling import (
    MINUTE,
    an_outage,
    at_work,
    backfill,
    ended,
    holes,
    instants,
    runs_of,
    shown,
)
from tests.support.clock import World, open_world, whole_second
from tests.support.eventually import eventually
from tests.support.running import running


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
async def api(database_url: str, redis_url: str, world: World) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url, poll_seconds=0.2) as served:
        yield served


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


async def test_part_of_an_outage_can_be_run_alone(world: World, api: Served) -> None:
    """Its instants lie within a range that the ledger has as one entry."""
    start = await an_outage(world)
    since, until = start + 3 * MINUTE, start + 6 * MINUTE
    asked = await backfill(api, "tick", since, to=until.isoformat())
    assert asked["counts"] == {"instants": 3, "run": 3, "has_run": 0, "expected": 0, "excluded": 0}
    async with at_work(world):
        await ended(api, asked["backfill"])
    assert instants((await runs_of(world))[1:]) == [start + n * MINUTE for n in (3, 4, 5)]
    plan = await backfill(api, "tick", start, 200, dry_run=True)
    assert [one["will_run"] for one in plan["items"]] == [True] * 3 + [False] * 3 + [True] * 4 + [False]
    assert [one["reason"] for one in plan["items"]] == ["missed"] * 10 + [None]


async def test_what_the_table_has_not_heard_of_yet_is_known_from_the_log(world: World) -> None:
    start = whole_second(world.system.time.now()) - 5 * MINUTE - MINUTE / 2
    task = await world.create("tick", {"every": "1m", "anchor": start.isoformat()}, at=start)
    await world.project()
    await world.fire_all()
    assert await world.fetch("SELECT FROM occurrences") == []
    async with world.system.pool.acquire() as connection:
        found = await past_occurrences(connection, task, start + MINUTE, world.system.time.now())
    assert found is not None
    assert [(one.at, one.verdict, one.reason) for one in found] == [
        *((start + n * MINUTE, "skipped", "missed") for n in range(1, 5)),
        (start + 5 * MINUTE, "fired", None),
    ]


async def test_a_backfill_uses_the_rule_and_the_version_that_were_in_force(world: World, api: Served) -> None:
    """Across a change of schedule: each instant by the rule and with the pipeline of its time."""
    first = [{"id": "old", "uses": "debug.echo"}]
    second = [{"id": "new", "uses": "debug.echo"}]

    async def put(schedule: Any, pipeline: Any) -> None:
        answer = await api.http.put("/v1/tasks/tick", json={"pipeline": pipeline, "schedule": schedule})
        assert answer.status_code < 300, answer.text

    since = whole_second(world.system.time.now())
    every = {"every": "1s", "anchor": since.isoformat()}
    await put(every, first)
    assert (await api.http.post("/v1/tasks/tick/pause")).status_code == 200
    mark = world.system.time.now()
    async with running(world.clock()):
        await eventually(lambda: world.system.time.now() > mark + timedelta(seconds=2.5), timeout=20)
        await put(every, second)
        mark = world.system.time.now()
        await eventually(lambda: world.system.time.now() > mark + timedelta(seconds=2.5), timeout=20)
        await put({"every": "1h", "anchor": since.isoformat()}, second)
    changed = world.system.time.now()
    mark = whole_second(changed)
    await eventually(lambda: world.system.time.now() > mark + timedelta(seconds=3), timeout=20)
    events = await world.fetch(
        "SELECT at, data FROM events WHERE type = 'TaskChanged' ORDER BY position",
    )
    retitled, rescheduled = (row["at"] for row in events)
    plan = await backfill(api, "tick", since, 200, dry_run=True)
    expected = [
        since + timedelta(seconds=n)
        for n in range(1, 100)
        if since + timedelta(seconds=n) <= datetime.fromisoformat(events[1]["data"]["effective_at"])
    ]
    assert [datetime.fromisoformat(one["at"]) for one in plan["items"]] == expected, (retitled, rescheduled)
    versions = [one["task_version"] for one in plan["items"]]
    assert versions == [1 if at < retitled else 2 for at in expected]
    assert set(versions) == {1, 2}
    assert {one["reason"] for one in plan["items"]} <= {"paused", "changed"}

    asked = await backfill(api, "tick", since, max_parallel=5)
    async with at_work(world):
        done = await ended(api, asked["backfill"])
    assert done["succeeded"] == len(expected)
    for run in await runs_of(world):
        detail = (await api.http.get(f"/v1/runs/{run['id']}")).json()
        assert detail["task_version"] == run["data"]["task_version"]
        assert [step["id"] for step in detail["steps"]] == ["old" if detail["task_version"] == 1 else "new"]
    assert await holes(world) == []


async def test_newest_first_and_no_more_at_once_than_allowed(world: World, api: Served) -> None:
    start = await an_outage(world)
    asked = await backfill(api, "tick", start, order="newest", max_parallel=3)
    async with running(world.clock()):

        async def begun(number: int) -> list[Any] | None:
            runs = (await runs_of(world))[1:]
            return runs if len(runs) == number else None

        runs = await eventually(lambda: begun(3), timeout=20)
        assert instants(runs) == [start + n * MINUTE for n in (9, 8, 7)]
        for number in range(4, 8):
            # Ending one lets one follow; the clock has had every occasion to ask for more.
            open_ones = await world.fetch("SELECT run_id::text AS id FROM due_work ORDER BY run_id DESC")
            assert len(open_ones) <= 4, "three of the backfill and the one that a clock asked for"
            gone = next(run["id"] for run in runs if run["id"] in {one["id"] for one in open_ones})
            assert (await api.http.post(f"/v1/runs/{gone}/cancel")).status_code == 200
            runs = await eventually(lambda number=number: begun(number), timeout=20)
    assert instants(runs) == [start + n * MINUTE for n in range(9, 2, -1)]
    assert (await shown(api, asked["backfill"]))["state"] == "running"


async def test_a_stopped_backfill_asks_for_no_more_and_says_who_stopped_it(world: World, api: Served) -> None:
    start = await an_outage(world)
    asked = await backfill(api, "tick", start, reason="the disk was full")
    path = f"/v1/backfills/{asked['backfill']}"
    async with running(world.clock()):

        async def one_begun() -> bool:
            return len(await runs_of(world)) == 2

        await eventually(one_begun, timeout=20)
        stopped = (await api.http.post(f"{path}/stop", json={"reason": "enough"})).json()
        assert (stopped["state"], stopped["stopped_by"]) == ("stopped", "key:admin")
        assert (stopped["stop_reason"], stopped["reason"]) == ("enough", "the disk was full")
        assert (await api.http.post(f"{path}/stop", json={"reason": "again"})).json()[
            "stop_reason"
        ] == "enough"
    async with at_work(world):
        done = await ended(api, asked["backfill"])
    assert (done["state"], done["requested"], done["succeeded"]) == ("stopped", 1, 1)
    assert len(await runs_of(world)) == 2
    (event,) = await world.fetch("SELECT actor, data FROM events WHERE type = 'BackfillStopped'")
    assert (event["actor"], event["data"]["reason"]) == ("key:admin", "enough")
    (finished,) = (await api.http.get("/v1/backfills?state=stopped&task=tick")).json()["items"]
    assert finished == done
    answer = await api.http.post("/v1/backfills/" + asked["backfill"] + "/stop")
    assert answer.status_code == 200


async def test_rerun_runs_what_has_a_run_once_more_under_an_id_of_its_own(world: World, api: Served) -> None:
    start = await an_outage(world, minutes=3)
    async with at_work(world):
        await ended(api, (await backfill(api, "tick", start))["backfill"])
        for _ in range(2):
            again = await backfill(api, "tick", start, rerun=True, max_parallel=2)
            assert again["counts"] == {"instants": 4, "run": 4, "has_run": 0, "expected": 0, "excluded": 0}
            assert (await ended(api, again["backfill"]))["succeeded"] == 4
    runs = await runs_of(world)
    assert len({run["id"] for run in runs}) == 12
    assert sorted(instants(runs)) == sorted([start + n * MINUTE for n in range(4)] * 3)
    assert await holes(world) == []


async def test_backfills_that_overlap_run_each_instant_once(world: World, api: Served) -> None:
    start = await an_outage(world)
    asked = [
        await backfill(api, "tick", start, order=order, max_parallel=4) for order in ("oldest", "newest")
    ]
    async with at_work(world), running(world.clock()):
        done = [await ended(api, one["backfill"]) for one in asked]
    assert sum(one["requested"] for one in done) == 10
    runs = await runs_of(world)
    assert sorted(instants(runs)) == [start + n * MINUTE for n in range(11)]


async def test_an_instant_that_the_ledger_lacks_gets_its_verdict_by_a_backfill(
    world: World, api: Served
) -> None:
    """A schedule that lost its row, say: the run is the one that a clock would have asked for."""
    start = whole_second(world.system.time.now()) - 5 * MINUTE - MINUTE / 2
    await world.create("tick", {"every": "1m", "anchor": start.isoformat()}, at=start)
    await world.project()
    await world.fetch("UPDATE schedules SET next_fire_at = NULL")
    assert len(await holes(world)) == 5
    plan = await backfill(api, "tick", start, 200, dry_run=True)
    assert [one["verdict"] for one in plan["items"]] == ["none"] * 5 + ["expected"]
    asked = await backfill(api, "tick", start, max_parallel=10)
    assert asked["counts"] == {"instants": 6, "run": 5, "has_run": 0, "expected": 1, "excluded": 0}
    async with at_work(world):
        await ended(api, asked["backfill"])
    task = task_id("default", "tick")
    assert {run["id"] for run in await runs_of(world)} == {
        scheduled_run_id(task, start + n * MINUTE) for n in range(5)
    }
    assert await holes(world) == []
    found = (await api.http.get(f"/v1/tasks/tick/occurrences?from={start:%Y-%m-%dT%H:%M:%SZ}")).json()[
        "items"
    ]
    assert [one["verdict"] for one in found[:5]] == ["fired"] * 5
    assert all(one["lateness"] > 0 for one in found[:5])


async def test_a_clock_that_meets_an_instant_a_backfill_has_run_goes_on(world: World, api: Served) -> None:
    start = whole_second(world.system.time.now()) - 5 * MINUTE - MINUTE / 2
    await world.create("tick", {"every": "1m", "anchor": start.isoformat()}, at=start, catch_up="all")
    await world.project()
    await world.fetch("UPDATE schedules SET next_fire_at = NULL")
    async with at_work(world):
        await ended(api, (await backfill(api, "tick", start, max_parallel=10))["backfill"])
    await world.fetch("UPDATE schedules SET next_fire_at = $1", start)
    await world.fire_all()
    assert sorted(instants(await runs_of(world))) == [start + n * MINUTE for n in range(6)]
    assert await holes(world) == []
