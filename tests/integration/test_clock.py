"""The clock fires what is due: on time, once, and with a verdict for every instant."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Self

import pytest

import ordinaut.clock.clock as clock_module
from ordinaut.domain import task as tasks
from ordinaut.domain.events import NewEvent
from ordinaut.domain.ids import scheduled_run_id
from ordinaut.domain.run import run_stream
from ordinaut.log.append import Append
from tests.support.clock import World, killed_after, open_world, whole_second
from tests.support.eventually import eventually
from tests.support.running import running

SECOND = timedelta(seconds=1)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


async def test_every_second_fires_at_each_second_and_leaves_none_out(world: World) -> None:
    async with running(world.projector(), world.clock()):
        task_id = await world.create("tick", {"every": "1s"}, overlap="allow")
        await world.wait_for_verdicts(task_id, 4)
    ledger = await world.ledger(task_id)
    assert {row["verdict"] for row in ledger} == {"fired"}
    assert all(later["at"] - earlier["at"] == SECOND for earlier, later in pairwise(ledger))
    assert all(row["lateness"] >= 0 and row["decided_at"] >= row["at"] for row in ledger)
    (planned,) = await world.fetch("SELECT next_fire_at FROM schedules")
    assert planned[0] == ledger[-1]["at"] + SECOND


async def test_a_single_instant_fires_once_and_is_done(world: World) -> None:
    at = whole_second(world.system.time.now()) + SECOND
    async with running(world.projector(), world.clock()):
        task_id = await world.create("once", {"once": at.isoformat()})
        await world.wait_for_verdicts(task_id, 1)
    assert await world.verdicts(task_id) == [(at, "fired", 1)]
    (planned,) = await world.fetch("SELECT next_fire_at FROM schedules")
    assert planned[0] is None


async def test_an_event_of_the_clock_says_why_it_is_there(world: World) -> None:
    at = whole_second(world.system.time.now())
    task_id = await world.create("once", {"once": at.isoformat()}, at=at)
    await world.project()
    await world.fire_all()
    (event,) = await world.fetch("SELECT * FROM events WHERE type = 'RunRequested'")
    run_id = scheduled_run_id(task_id, at)
    assert event["stream"] == f"run-{run_id}"
    assert (event["actor"], event["correlation"]) == ("clock", run_id)
    assert event["causation"] == f"schedule:{task_id}@{at.isoformat()}"


async def test_two_clocks_give_each_instant_one_run(database_url: str, world: World) -> None:
    async with open_world(database_url) as other:
        ids = [await world.create(f"tick-{n}", {"every": "1s"}, overlap="allow") for n in range(20)]
        async with running(world.projector(), world.clock(), other.clock()):
            for task_id in ids:
                await world.wait_for_verdicts(task_id, 3)
    for task_id in ids:
        ledger = await world.ledger(task_id)
        assert all(later["at"] - earlier["at"] == SECOND for earlier, later in pairwise(ledger))
        assert await count(world, "RunRequested", task_id) == len(ledger)


async def test_a_pause_that_was_acknowledged_is_honoured_at_once(world: World) -> None:
    """The clock remembers the task as it was; the log refuses what it decided by that."""
    async with running(world.projector(), world.clock()):
        task_id = await world.create("tick", {"every": "1s"}, overlap="allow")
        await world.wait_for_verdicts(task_id, 2)
        paused_at = await world.add(task_id, tasks.pause(await world.load(task_id), "a rest"))
        fired = await count(world, "RunRequested", task_id)
        await eventually(lambda: count(world, "OccurrenceSkipped", task_id), timeout=20)
    assert await count(world, "RunRequested", task_id) == fired
    (first_skip,) = await world.fetch(
        "SELECT position, data->>'reason' AS reason FROM events WHERE type = 'OccurrenceSkipped'"
        " ORDER BY position LIMIT 1"
    )
    assert first_skip["position"] > paused_at
    assert first_skip["reason"] == "paused"


async def test_a_snooze_skips_what_comes_before_its_end(world: World) -> None:
    start = whole_second(world.system.time.now()) - timedelta(seconds=40)
    every = {"every": "10s", "anchor": start.isoformat()}
    task_id = await world.create("tick", every, at=start, overlap="allow")
    state = await world.load(task_id)
    until = start + timedelta(seconds=25)
    await world.add(task_id, tasks.snooze(state, until, start, "lunch"))
    await world.project()
    await world.fire_all()
    assert (await world.verdicts(task_id))[:3] == [
        (start, "snoozed", 3),
        (start + timedelta(seconds=30), "fired", 1),
        (start + timedelta(seconds=40), "fired", 1),
    ]


OVERLAPS = [
    ("skip", ["fired", "overlap", "overlap", "overlap"], 1),
    ("allow", ["fired"] * 4, 4),
    ("queue_all", ["fired"] * 4, 4),
    ("queue_one", ["fired", "fired", "overlap", "overlap"], 2),
    ("cancel_running", ["fired"] * 4, 1),
]


@pytest.mark.parametrize("projected", [True, False], ids=["projected", "projection_behind"])
@pytest.mark.parametrize(("overlap", "words", "unfinished"), OVERLAPS)
async def test_an_occurrence_that_overlaps_a_run(
    world: World, overlap: str, words: list[str], unfinished: int, projected: bool
) -> None:
    """Nobody works here, so no run ends by itself. The table `due_work` may be behind the log."""
    start = whole_second(world.system.time.now()) - timedelta(seconds=30)
    every = {"every": "10s", "anchor": start.isoformat()}
    task_id = await world.create("tick", every, at=start, overlap=overlap)
    await world.project()
    for n in range(4):
        await world.system.pool.execute(
            "UPDATE schedules SET next_fire_at = $1", start + n * timedelta(seconds=10)
        )
        await world.fire_at(start + n * timedelta(seconds=10) + SECOND / 2)
        if projected:
            await world.project()
    assert [word for _, word, _ in await world.verdicts(task_id)] == words
    assert len(await world.fetch("SELECT FROM due_work")) == unfinished
    canceled = await world.fetch("SELECT causation FROM events WHERE type = 'RunCanceled' ORDER BY position")
    assert len(canceled) == (3 if overlap == "cancel_running" else 0)


CATCH_UPS: list[tuple[Any, int]] = [("none", 0), ("latest", 0), ("all", 360), ({"all": {"max": 5}}, 5)]


@pytest.mark.parametrize(("catch_up", "late"), CATCH_UPS, ids=lambda value: str(value))
async def test_after_an_hour_without_a_clock_every_instant_has_a_verdict(
    world: World, catch_up: Any, late: int
) -> None:
    """What is at most a minute late is on time; of what is older, `late` still fire."""
    now = world.system.time.now()
    start = whole_second(now) - timedelta(hours=1)
    every = {"every": "10s", "anchor": start.isoformat()}
    task_id = await world.create("tick", every, at=start, overlap="allow", catch_up=catch_up)
    await world.project()
    await world.fire_all()
    ledger = await world.ledger(task_id)
    covered: list[datetime] = []
    for row in ledger:
        covered += [row["at"] + n * timedelta(seconds=10) for n in range(row["count"])]
        assert covered[-1] == row["until"]
    assert covered == [start + n * timedelta(seconds=10) for n in range(len(covered))]
    assert covered[-1] > now - timedelta(seconds=10)
    minute_ago = whole_second(now) - timedelta(seconds=60)
    older = [row for row in ledger if row["verdict"] == "fired" and row["at"] < minute_ago]
    assert abs(len(older) - late) <= (6 if late == 360 else 1)
    assert {row["reason"] for row in ledger if row["verdict"] == "skipped"} <= {"missed"}


async def test_a_clock_that_is_cut_off_again_and_again_leaves_no_hole(world: World) -> None:
    async with running(world.projector()):
        task_id = await world.create("tick", {"every": "1s"}, overlap="allow")
        for number in range(1, 5):
            await killed_after(world.clock(), lambda n=number: world.wait_for_verdicts(task_id, n))
        async with running(world.clock()):
            await world.wait_for_verdicts(task_id, 6)
    ledger = await world.ledger(task_id)
    assert all(later["at"] - earlier["until"] == SECOND for earlier, later in pairwise(ledger))
    assert await count(world, "RunRequested", task_id) == sum(row["verdict"] == "fired" for row in ledger)


@pytest.mark.parametrize("verdicts_back", [1, 4, 7])
async def test_a_row_that_is_behind_the_log_gives_no_instant_a_second_verdict(
    world: World, verdicts_back: int
) -> None:
    """As after a rebuild, or with a projector that lags: the row names an instant long decided."""
    start = whole_second(world.system.time.now()) - timedelta(minutes=10)
    every = {"every": "10s", "anchor": start.isoformat()}
    task_id = await world.create("tick", every, at=start, overlap="allow")
    await world.project()
    await world.fire_all()
    before = await world.ledger(task_id)
    (moved,) = await world.fetch("SELECT next_fire_at FROM schedules")
    await world.system.pool.execute("UPDATE schedules SET next_fire_at = $1", before[-verdicts_back]["at"])
    await world.fire_all()
    again = await world.ledger(task_id)
    assert again[: len(before)] == before
    assert all(row["at"] >= moved[0] for row in again[len(before) :])
    (caught_up,) = await world.fetch("SELECT next_fire_at FROM schedules")
    assert caught_up[0] >= moved[0]
    assert await count(world, None, task_id) == len(again)


async def test_an_instant_that_was_run_already_is_not_run_again(world: World) -> None:
    at = whole_second(world.system.time.now())
    task_id = await world.create("tick", {"every": "1h", "anchor": at.isoformat()}, at=at)
    run = {
        "task": task_id, "name": "tick", "task_version": 0, "input": None, "priority": 5,
        "cause": {"kind": "schedule", "at": at.isoformat()}, "max_attempts": 5, "depth": 0,
    }  # fmt: skip
    stream = run_stream(scheduled_run_id(task_id, at))
    await world.system.appender.append(
        Append(stream, 0, [NewEvent("RunRequested", run)], "default", "key:test", "by-hand")
    )
    await world.project()
    assert await world.fire_all() == 1
    assert await count(world, "RunRequested", task_id) == 1
    (skip,) = await world.fetch("SELECT data FROM events WHERE type = 'OccurrenceSkipped'")
    assert skip["data"]["reason"] == "deduplicated"
    assert await world.verdicts(task_id) == [(at, "fired", 1)]
    (planned,) = await world.fetch("SELECT next_fire_at FROM schedules")
    assert planned[0] == at + timedelta(hours=1)


async def test_a_schedule_the_log_has_replaced_is_left_to_the_projection(world: World) -> None:
    at = whole_second(world.system.time.now())
    replaced = await world.create("replaced", {"every": "1h", "anchor": at.isoformat()}, at=at)
    other = await world.create("other", {"every": "1h", "anchor": at.isoformat()}, at=at)
    await world.project()
    state = await world.load(replaced)
    schedule = {"every": "2h", "timezone": "UTC", "anchor": at.isoformat()}
    plan = [{"at": (at + timedelta(hours=2)).isoformat()}]
    await world.add(replaced, tasks.change(state, {**state.definition, "schedule": schedule}, plan, "2026a"))
    assert await world.fire_all() == 1
    assert await count(world, None, replaced) == 0
    assert await count(world, "RunRequested", other) == 1
    await world.project()
    assert await world.fire_all() == 0


async def test_a_schedule_that_another_clock_holds_does_not_hold_up_the_others(world: World) -> None:
    at = whole_second(world.system.time.now())
    held = await world.create("held", {"once": at.isoformat()}, at=at)
    free = await world.create("free", {"once": at.isoformat()}, at=at)
    await world.project()
    clock = world.clock()
    async with world.system.pool.acquire() as connection:
        holding = connection.transaction()
        await holding.start()
        await connection.execute("SELECT FROM schedules WHERE task_id = $1::uuid FOR UPDATE", held)
        async with running(clock):
            await world.wait_for_verdicts(free, 1)
            assert await count(world, None, held) == 0
            await eventually(lambda: clock.lag > 0)
            await holding.rollback()
            await world.wait_for_verdicts(held, 1)
            await eventually(lambda: clock.lag == 0)
    assert await count(world, "RunRequested", held) == await count(world, "RunRequested", free) == 1


async def test_a_schedule_that_cannot_be_read_does_not_hold_up_the_others(world: World) -> None:
    at = whole_second(world.system.time.now())
    task_id = await world.create("broken", {"once": at.isoformat()}, at=at)
    state = await world.load(task_id)
    nonsense = {**state.definition, "schedule": {"cron": "whenever", "timezone": "UTC"}}
    plan = [{"at": (at - SECOND).isoformat()}]
    await world.add(task_id, tasks.change(state, nonsense, plan, "2026a"))
    good = await world.create("good", {"once": at.isoformat()}, at=at)
    await world.project()
    assert await world.fire_all() == 1
    assert await count(world, "RunRequested", good) == 1
    assert await count(world, None, task_id) == 0


class _AnHourBehind(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Self:
        return super().now(tz) + timedelta(hours=1)


async def test_a_wall_clock_that_is_stepped_costs_a_poll(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The waker is armed by one wall clock and rings by another that shows an hour less."""
    monkeypatch.setattr(clock_module, "datetime", _AnHourBehind)
    async with running(world.projector(), world.clock()):
        at = whole_second(world.system.time.now()) + 2 * SECOND
        task_id = await world.create("once", {"once": at.isoformat()})
        await world.wait_for_verdicts(task_id, 1)
    assert await world.verdicts(task_id) == [(at, "fired", 1)]


async def test_a_clock_outlives_its_connections(world: World) -> None:
    clock = world.clock()
    async with running(world.projector(), clock):
        task_id = await world.create("tick", {"every": "1s"}, overlap="allow")
        for number in (1, 2, 3):
            await world.wait_for_verdicts(task_id, number)
            await cut_connections(world)
        await world.wait_for_verdicts(task_id, 5)
    ledger = await world.ledger(task_id)
    assert all(later["at"] - earlier["until"] == SECOND for earlier, later in pairwise(ledger))
    assert clock.trouble is None
    assert clock.fired <= len(ledger)


async def test_many_schedules_due_in_the_same_second_are_fired_in_few_transactions(world: World) -> None:
    at = whole_second(world.system.time.now())
    names = [f"tick-{n}" for n in range(300)]
    await asyncio.gather(*(world.create(name, {"once": at.isoformat()}, at=at) for name in names))
    await world.project()
    assert await world.fire_all() == 300
    (row,) = await world.fetch("SELECT count(DISTINCT at) FROM events WHERE type = 'RunRequested'")
    assert row[0] == 1


async def test_i7_idempotency_keys_are_remembered_for_seven_days_and_then_forgotten(world: World) -> None:
    await world.system.pool.execute(
        "INSERT INTO idempotency_keys (space, key, fingerprint, seed_ms, created_at) VALUES"
        " ('default', 'old', '', 0, now() - interval '169 hours'),"
        " ('default', 'new', '', 0, now() - interval '167 hours')"
    )
    async with running(world.clock()):
        await eventually(lambda: only_new(world))


async def only_new(world: World) -> bool:
    return [row["key"] for row in await world.fetch("SELECT key FROM idempotency_keys")] == ["new"]


async def cut_connections(world: World) -> None:
    """Have the server end every other session of the test's database."""
    await world.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


async def count(world: World, kind: str | None, task_id: str) -> int:
    """How many verdicts (of one kind, or of both) the log holds about a task."""
    (row,) = await world.fetch(
        "SELECT count(*) FROM events WHERE ($1::text IS NULL OR type = $1)"
        " AND type IN ('RunRequested', 'OccurrenceSkipped') AND data->>'task' = $2",
        kind,
        task_id,
    )
    return int(row[0])


async def test_no_plan_is_kept_from_when_there_was_no_work(world: World) -> None:
    """A plan made for an empty table reads a full one from end to end, for every task of a batch."""
    await world.fetch("ANALYZE due_work")
    start = whole_second(world.system.time.now()) - 20 * SECOND
    for n in range(8):
        await world.create(f"tick-{n}", {"every": "1h", "anchor": start.isoformat()}, at=start)
        await world.project()
        assert await world.fire_all() == 1
    kept = await world.fetch(
        "SELECT generic_plans, custom_plans FROM pg_prepared_statements"
        " WHERE statement LIKE '%FROM due_work WHERE task_id%' AND statement NOT LIKE '%pg_prepared%'"
    )
    assert sum(row["custom_plans"] for row in kept) >= 1
    assert sum(row["generic_plans"] for row in kept) == 0
