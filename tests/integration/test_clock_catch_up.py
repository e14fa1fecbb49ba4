"""After a long outage what was missed comes back at a bounded rate, and what is on time does not wait for it.

The outage here has 500 schedules and not 10,000, which are decided in the same way, in ten batches instead of
one, and take a quarter of a minute.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from ordinaut.clock.fire import Firing
from ordinaut.clock.pace import step, take_slots
from ordinaut.log.appender import MAX_BATCH_EVENTS
from ordinaut.runtime.ledger import Checked, check_ledger
from ordinaut.work.lease import lease_due_work
from projections.rebuild import rebuild, verify
from projections.registry import all_projections
from tests.support.clock import World, killed_after, most_in_a_second, open_world, whole_second
from tests.support.eventually import eventually
from tests.support.running import running

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
RATE = 50.0

KINDS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "daily": (200, "1d", {}),
    "hourly": (50, "1h", {"catch_up": {"all": {"max": 5}}, "overlap": "allow"}),
    "let_go": (100, "3h", {"catch_up": "none"}),
    "jittery": (50, "6h", {"jitter": "10s"}),
    "on_time": (100, "10s", {}),
}
"""How many tasks of each kind, their interval, and their policy."""

CAUGHT_UP = 200 + 50 * 5 + 50


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url, catch_up_per_second=RATE) as opened:
        yield opened


async def a_day_without_a_clock(world: World) -> dict[str, str]:
    """The tasks of `KINDS`, due for the first time a day ago; ids to kinds."""
    start = whole_second(world.system.time.now()) - DAY - timedelta(minutes=5)
    made: dict[str, str] = {}

    async def make(kind: str, number: int, every: str, policy: dict[str, Any]) -> None:
        spec = {"every": every, "anchor": start.isoformat()}
        made[await world.create(f"{kind}-{number}", spec, at=start, **policy)] = kind

    await asyncio.gather(
        *(make(kind, n, every, policy) for kind, (many, every, policy) in KINDS.items() for n in range(many))
    )
    await world.project()
    return made


async def requests(world: World) -> list[Any]:
    """The runs that were requested, in the order of the log: task, instant, `at`, and `run_at` or None."""
    return await world.fetch(
        "SELECT data->>'task' AS task, (data#>>'{cause,at}')::timestamptz AS instant, at,"
        " (data->>'run_at')::timestamptz AS run_at"
        " FROM events WHERE type = 'RunRequested' ORDER BY position"
    )


async def no_holes(world: World) -> None:
    async with world.system.pool.acquire() as connection:
        assert [hole async for hole in check_ledger(connection, Checked())] == []
        for projection in all_projections().values():
            assert (await verify(connection, projection)).agrees, projection.name


async def test_after_a_day_without_a_clock_missed_runs_come_back_at_the_rate_and_no_faster(
    world: World,
) -> None:
    tasks = await a_day_without_a_clock(world)
    began = world.system.time.now()
    assert await world.fire_all() == len(tasks)
    runs = await requests(world)
    slots = [run["run_at"] for run in runs if run["run_at"] is not None]
    assert len(slots) == CAUGHT_UP
    assert most_in_a_second(slots) == RATE
    assert min(slots) >= began
    assert max(slots) - min(slots) == (CAUGHT_UP - 1) * step(RATE)
    assert {tasks[run["task"]] for run in runs} == {"daily", "hourly", "jittery", "on_time"}
    for task_id, kind in tasks.items():
        if kind == "hourly":
            own = [run for run in runs if run["task"] == task_id]
            assert [run["instant"] for run in own] == sorted(run["instant"] for run in own)
            assert [run["run_at"] for run in own] == sorted(run["run_at"] for run in own)
    await world.project()
    await no_holes(world)


async def test_what_is_on_time_does_not_wait_behind_what_is_caught_up(world: World) -> None:
    """Of 600 runs those that are on time can be leased at once, all of them."""
    tasks = await a_day_without_a_clock(world)
    await world.fire_all()
    runs = await requests(world)
    on_time = {run["task"] for run in runs if run["run_at"] is None}
    assert on_time == {task_id for task_id, kind in tasks.items() if kind == "on_time"}
    leased = (await lease_due_work(world.system, "w", 1000, 60.0)).runs
    assert on_time <= {run.task_id for run in leased}
    before = world.system.time.now()
    early = {run["task"] for run in runs if run["run_at"] is not None and run["run_at"] <= before}
    assert {run.task_id for run in leased} - on_time <= early


async def test_what_is_on_time_is_decided_first_and_what_is_overdue_does_not_starve(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are overdue, the next round decides those on time; a tenth of it is for the rest."""
    monkeypatch.setattr("ordinaut.clock.fire.BATCH", 50)
    now = whole_second(world.system.time.now())
    for n in range(100):
        at = now - DAY
        await world.create(f"overdue-{n}", {"once": at.isoformat()}, at=at, catch_up={"all": {}})
    due = {
        await world.create(f"on-time-{n}", {"every": "1h", "anchor": now.isoformat()}, at=now)
        for n in range(60)
    }
    await world.project()
    assert (await Firing(world.system).fire_due()).moved == 50
    first = [run["task"] for run in await requests(world)]
    assert set(first[:45]) <= due
    assert not set(first[45:]) & due
    await world.fire_all()
    assert len(await requests(world)) == 160


async def test_an_outage_of_less_than_a_minute_delays_nothing(world: World) -> None:
    start = whole_second(world.system.time.now())
    for n in range(100):
        await world.create(f"tick-{n}", {"every": "1h", "anchor": start.isoformat()}, at=start)
    await world.project()
    await world.fire_at(start + 60 * SECOND)
    assert {run["run_at"] for run in await requests(world)} == {None}


async def test_two_clocks_give_out_no_slot_twice(database_url: str, world: World) -> None:
    tasks = await a_day_without_a_clock(world)
    async with open_world(database_url, catch_up_per_second=RATE) as other:
        while (await asyncio.gather(world.fire_all(), other.fire_all())) != [0, 0]:
            pass
    slots = sorted(run["run_at"] for run in await requests(world) if run["run_at"] is not None)
    assert len(slots) == CAUGHT_UP
    assert all(later - earlier >= step(RATE) for earlier, later in pairwise(slots))
    await world.project()
    assert (await world.fetch("SELECT count(*) FROM schedules WHERE next_fire_at > now()"))[0][0] == len(
        tasks
    )
    await no_holes(world)


async def test_clocks_that_are_killed_over_and_over_neither_stampede_nor_leave_slots_unused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ordinaut.clock.fire.BATCH", 40)
    await a_day_without_a_clock(world)

    async def some(number: int) -> bool:
        return len(await requests(world)) >= number

    async with running(world.projector()):
        for number in range(1, 500, 60):
            await killed_after(world.clock(), lambda n=number: eventually(lambda: some(n), every=0.001))
        async with running(world.clock()):
            await eventually(lambda: some(CAUGHT_UP + KINDS["on_time"][0]), timeout=30)
    slots = sorted(run["run_at"] for run in await requests(world) if run["run_at"] is not None)
    assert len(slots) >= CAUGHT_UP
    assert all(later - earlier >= step(RATE) for earlier, later in pairwise(slots))
    # A transaction that came to nothing took nothing.
    assert slots[-1] - slots[0] == (len(slots) - 1) * step(RATE)
    (row,) = await world.fetch("SELECT next_slot FROM catch_up_pace")
    assert row[0] == slots[-1] + step(RATE)
    await world.project()
    await no_holes(world)


async def test_a_transaction_that_is_taken_back_gives_its_slots_back(world: World) -> None:
    now = world.system.time.now()
    async with world.system.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        lost = await take_slots(connection, 7, now, RATE)
        await transaction.rollback()
        async with connection.transaction():
            kept = await take_slots(connection, 3, now, RATE)
            following = await take_slots(connection, 1, now, RATE)
    assert kept == lost[:3]
    assert following == [lost[3]]
    assert lost[0] >= now


async def test_slots_that_nobody_took_in_time_are_not_made_up_for(world: World) -> None:
    """A quiet day does not save up slots for a herd."""
    now = world.system.time.now()
    async with world.system.pool.acquire() as connection:
        await take_slots(connection, 1, now, RATE)
        later = await take_slots(connection, 2, now + DAY, RATE)
    assert later == [now + DAY, now + DAY + step(RATE)]


async def test_a_rebuild_gives_every_caught_up_and_every_jittered_run_the_same_start(world: World) -> None:
    await a_day_without_a_clock(world)
    at = whole_second(world.system.time.now())
    for n in range(20):
        spec = {"every": "1h", "anchor": at.isoformat()}
        await world.create(f"put-off-{n}", spec, at=at, jitter="10m")
    await world.project()
    await world.fire_all()
    query = "SELECT run_id, run_at, priority, concurrency_key FROM due_work ORDER BY run_id"
    before = await world.fetch(query)
    assert len(before) >= CAUGHT_UP + 120
    async with world.system.pool.acquire() as connection:
        await rebuild(connection, all_projections()["due_work"])
    assert await world.fetch(query) == before


async def test_more_missed_runs_than_one_transaction_may_append_keep_to_the_rate(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that catches up with everything is decided at once, however much it missed."""
    monkeypatch.setattr("ordinaut.clock.fire.MAX_BATCH_EVENTS", 30)
    assert MAX_BATCH_EVENTS > 30
    start = whole_second(world.system.time.now()) - DAY
    spec = {"every": "30m", "anchor": start.isoformat()}
    for n in range(4):
        await world.create(f"all-{n}", spec, at=start, catch_up="all", overlap="queue_all")
    await world.project()
    firing, rounds = Firing(world.system), 0
    while (await firing.fire_due()).moved:
        rounds += 1
    assert rounds > 1
    slots = [run["run_at"] for run in await requests(world) if run["run_at"] is not None]
    assert len(slots) >= 4 * 48
    assert slots == sorted(slots)
    assert most_in_a_second(slots) <= RATE
