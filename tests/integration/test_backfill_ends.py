"""Backfills at their edges: stopped, refused, interrupted, and beside other work."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest

from ordinaut.domain import backfill as decisions
from ordinaut.domain.ids import new_id, task_id
from ordinaut.domain.planned import Occurrence
from ordinaut.log.append import Append
from ordinaut.log.read import read_first
from ordinaut.runtime.keys import issue_key
from tests.support.api import PIPELINE, Served, pointers, problem, running_api
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


async def test_a_backfill_of_a_task_that_is_retired_stops(world: World, api: Served) -> None:
    start = await an_outage(world)
    asked = await backfill(api, "tick", start)
    assert (await api.http.delete("/v1/tasks/tick")).status_code == 200
    async with running(world.clock()):
        done = await ended(api, asked["backfill"])
    assert (done["state"], done["stopped_by"]) == ("stopped", "clock")
    assert done["stop_reason"] == "the task was retired"
    await backfill(api, "tick", start, 404)


async def test_a_paused_task_can_be_filled_up_and_a_repeated_request_is_one_backfill(
    world: World, api: Served
) -> None:
    start = await an_outage(world)
    assert (await api.http.post("/v1/tasks/tick/pause")).status_code == 200
    headers, body = {"Idempotency-Key": "once"}, {"from": start.isoformat(), "max_parallel": 10}
    answers = [await api.http.post("/v1/tasks/tick/backfill", json=body, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json() and answers[1].headers["Idempotency-Replayed"] == "true"
    await world.fetch("UPDATE idempotency_keys SET status = NULL")
    third = await api.http.post("/v1/tasks/tick/backfill", json=body, headers=headers)
    assert third.json()["backfill"] == answers[0].json()["backfill"]
    async with at_work(world):
        done = await ended(api, answers[0].json()["backfill"])
    assert done["succeeded"] == 10
    assert len((await api.http.get("/v1/backfills")).json()["items"]) == 1


async def test_runs_that_queue_up_queue_up_with_those_of_a_backfill(world: World, api: Served) -> None:
    start = await an_outage(world, overlap="queue_all")
    await backfill(api, "tick", start, max_parallel=5)
    async with running(world.clock()):

        async def begun() -> bool:
            return len(await runs_of(world)) == 6

        await eventually(begun, timeout=20)
    keys = {
        (run["data"]["concurrency"]["key"], run["data"]["concurrency"]["limit"])
        for run in await runs_of(world)
    }
    assert keys == {(f"task/{task_id('default', 'tick')}", 1)}
    (row,) = await world.fetch("SELECT count(*) FROM due_work WHERE scheduled")
    assert row[0] == 1, "a backfill's runs keep no scheduled instant from running"


async def test_what_failed_and_succeeds_when_it_is_tried_again_is_counted_as_that(
    world: World, api: Served
) -> None:
    start = await an_outage(world, minutes=1)
    asked = await backfill(api, "tick", start)
    async with running(world.clock()):

        async def begun() -> str | None:
            runs = await runs_of(world)
            return str(runs[1]["id"]) if len(runs) == 2 else None

        run_id = await eventually(begun, timeout=20)
        assert (await api.http.post(f"/v1/runs/{run_id}/cancel")).status_code == 200
        done = await ended(api, asked["backfill"])
        assert (done["canceled"], done["succeeded"]) == (1, 0)
        assert (await api.http.post(f"/v1/runs/{run_id}/retry")).status_code == 202
    async with at_work(world):

        async def succeeded() -> Any:
            found = await shown(api, asked["backfill"])
            return found if found["succeeded"] else None

        done = await eventually(succeeded, timeout=20)
    assert (done["canceled"], done["succeeded"], done["unfinished"]) == (0, 1, 0)


async def test_more_instants_than_one_backfill_may_reach_over_are_refused_with_a_way_out(
    world: World, api: Served
) -> None:
    start = whole_second(world.system.time.now()) - timedelta(seconds=20_000)
    await world.create("tick", {"every": "1s", "anchor": start.isoformat()}, at=start, catch_up="none")
    await world.project()
    await world.fire_all()
    await world.project()
    body = {"from": start.isoformat(), "dry_run": True}
    answer = await api.http.post("/v1/tasks/tick/backfill", json=body)
    assert problem(answer, 422) and pointers(answer) == ["/to"]
    edge = start + timedelta(seconds=10_000)
    assert edge.isoformat() in answer.json()["errors"][0]["hint"]
    plan = await backfill(api, "tick", start, 200, dry_run=True, to=edge.isoformat())
    assert plan["counts"]["run"] == len(plan["items"]) == 10_000


async def test_a_task_without_a_timed_schedule_has_nothing_to_fill_up(world: World, api: Served) -> None:
    answer = await api.http.post("/v1/tasks", json={"name": "hand", "pipeline": PIPELINE})
    assert answer.status_code == 201
    answer = await api.http.post("/v1/tasks/hand/backfill", json={"from": "2026-01-01T00:00:00Z"})
    assert "never had a schedule" in str(problem(answer, 409)["detail"])


async def test_a_backfill_is_listed_and_shown_in_its_own_space_only(world: World, api: Served) -> None:
    asked = [await backfill(api, "tick", await an_outage(world, minutes=1)) for _ in range(1)]
    asked += [await backfill(api, "tick", world.system.time.now() - 5 * MINUTE) for _ in range(2)]
    await world.project()
    page = (await api.http.get("/v1/backfills?limit=2")).json()
    rest = (await api.http.get(f"/v1/backfills?limit=2&after={page['next']}")).json()
    assert [one["id"] for one in page["items"] + rest["items"]] == [
        one["backfill"] for one in reversed(asked)
    ]
    assert rest["next"] is None
    _, secret = await issue_key(world.system, space="elsewhere", agent="stranger", role="operator")
    async with api.client(secret) as stranger:
        assert (await stranger.get("/v1/backfills")).json()["items"] == []
        for path in ("", "/stop"):
            method = stranger.post if path else stranger.get
            problem(await method(f"/v1/backfills/{asked[0]['backfill']}{path}"), 404)


async def test_what_the_schedule_leaves_out_is_shown_and_never_run(world: World, api: Served) -> None:
    start = whole_second(world.system.time.now()) - 6 * MINUTE - MINUTE / 2
    left_out = "/".join((start + n * MINUTE).replace(tzinfo=None).isoformat() for n in (2, 4))
    schedule = {"every": "1m", "anchor": start.isoformat(), "exclude": [left_out]}
    await world.create("tick", schedule, at=start, catch_up="none")
    await world.project()
    await world.fire_all()
    plan = await backfill(api, "tick", start, 200, dry_run=True, rerun=True)
    assert plan["counts"] == {"instants": 7, "run": 5, "has_run": 0, "expected": 0, "excluded": 2}
    excluded = [one for one in plan["items"] if one["verdict"] == "excluded"]
    assert [datetime.fromisoformat(one["at"]) for one in excluded] == [start + n * MINUTE for n in (2, 3)]
    assert not any(one["will_run"] for one in excluded)
    async with at_work(world):
        asked = await backfill(api, "tick", start, rerun=True, max_parallel=10)
        assert (await ended(api, asked["backfill"]))["succeeded"] == 5
    again = await backfill(api, "tick", start, 200, dry_run=True)
    assert again["counts"] == {"instants": 7, "run": 0, "has_run": 5, "expected": 0, "excluded": 2}
    assert await holes(world) == []


async def test_a_backfill_whose_version_of_the_task_cannot_be_read_stops_and_says_so(
    world: World, api: Served
) -> None:
    start = await an_outage(world, minutes=1)
    state = await world.load(task_id("default", "tick"))
    wanted = decisions.Wanted(start.isoformat(), (start + MINUTE).isoformat())
    events = decisions.request(state, wanted, [Occurrence(start, 99, "skipped", "missed")])
    backfill_id = new_id()
    stream = decisions.backfill_stream(backfill_id)
    await world.system.appender.append(Append(stream, 0, events, "default", "test", stream))
    async with running(world.clock()):
        done = await ended(api, backfill_id)
    assert (done["state"], done["requested"]) == ("stopped", 0)
    assert "no definition number 99" in done["stop_reason"]


async def test_a_backfill_that_cannot_go_on_keeps_no_schedule_from_firing(
    world: World, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = await an_outage(world, minutes=1)
    await backfill(api, "tick", start)

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("ordinaut.clock.backfill.decisions.place", broken)
    other = await world.create("other", {"every": "1s"}, overlap="allow")
    async with running(world.clock()):
        await world.wait_for_verdicts(other, 2)
    assert len(await runs_of(world)) == 1


async def test_outages_in_the_middle_of_a_look_leave_no_instant_out(
    world: World, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, looks = await an_outage(world, minutes=30), count(1)

    async def read(*arguments: Any) -> Any:
        if next(looks) % 3 == 0:
            raise ConnectionResetError("the database was restarted")
        return await read_first(*arguments)

    monkeypatch.setattr("ordinaut.clock.backfill.read_first", read)
    asked = await backfill(api, "tick", start, max_parallel=3)
    async with at_work(world):
        done = await ended(api, asked["backfill"])
    assert (done["state"], done["succeeded"]) == ("finished", 30)
    assert instants((await runs_of(world))[1:]) == [start + n * MINUTE for n in range(30)]
    assert next(looks) > 6
