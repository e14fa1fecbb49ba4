"""Backfills over a real log: what they show first, what they run, and that a stop or a kill leaves neither
hole nor duplicate."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest

from ordinaut.domain import backfill as decisions
from ordinaut.domain.ids import new_id, scheduled_run_id, task_id
from ordinaut.domain.planned import Occurrence
from ordinaut.log.append import Append
from ordinaut.log.read import read_first
from ordinaut.runtime.backfill import past_occurrences
from ordinaut.runtime.keys import issue_key
from ordinaut.runtime.ledger import Checked, check_ledger
from ordinaut.work.tools.registry import BUILT_IN, Registry
from ordinaut.work.worker import Worker
from tests.support.api import PIPELINE, Served, pointers, problem, running_api
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
