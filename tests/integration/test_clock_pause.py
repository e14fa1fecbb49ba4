"""A pause that ends by itself: the clock says so once, and what is due on either side is judged rightly."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from ordinaut.clock.resume import end_pauses
from ordinaut.domain import task as tasks
from ordinaut.domain.task import task_stream
from tests.support.clock import World, open_world, whole_second
from tests.support.eventually import eventually
from tests.support.running import running

SECOND = timedelta(seconds=1)
TEN = timedelta(seconds=10)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


async def paused(world: World, name: str, until: datetime, **task: Any) -> str:
    """The id of a task that is paused until then."""
    task_id = await world.create(name, task.pop("schedule", {"every": "1h"}), **task)
    await world.add(task_id, tasks.pause(await world.load(task_id), "a rest", until))
    return task_id


async def resumptions(world: World, task_id: str) -> list[Any]:
    return await world.fetch(
        "SELECT * FROM events WHERE stream = $1 AND type = 'TaskResumed' ORDER BY position",
        task_stream(task_id),
    )


async def test_a_pause_ends_at_its_end_by_one_of_two_clocks(database_url: str, world: World) -> None:
    async with open_world(database_url) as other:
        until = world.system.time.now() + 1.5 * SECOND
        ids = [await paused(world, f"tick-{n}", until) for n in range(20)]
        async with running(world.projector(), world.clock(), other.clock()):

            async def all_are_active() -> bool:
                return {(await world.load(task_id)).status for task_id in ids} == {"active"}

            await eventually(all_are_active, timeout=20)
            tables = "SELECT FROM tasks WHERE status <> 'active' OR paused_until IS NOT NULL"

            async def the_table_says_so() -> bool:
                return not await world.fetch(tables)

            await eventually(the_table_says_so, timeout=20)
    for task_id in ids:
        (event,) = await resumptions(world, task_id)
        assert event["at"] >= until
        assert (event["actor"], event["correlation"]) == ("clock", task_id)
        assert event["causation"] == f"{task_stream(task_id)}/2", "the pause"
        assert event["data"]["reason"] == f"the pause was until {until.isoformat()}"


async def test_clocks_that_decide_at_the_same_moment_resume_a_task_once(
    database_url: str, world: World
) -> None:
    async with open_world(database_url) as other:
        until = world.system.time.now() - SECOND
        ids = [await paused(world, f"tick-{n}", until) for n in range(30)]
        await world.project()
        done = await asyncio.gather(*[end_pauses(each.system) for each in (world, other) for _ in range(3)])
        assert sum(done) == len(ids)
        assert await end_pauses(world.system) == 0, "the table is behind, the log is not"
    for task_id in ids:
        assert len(await resumptions(world, task_id)) == 1


async def test_a_person_who_resumes_before_the_end_leaves_nothing_for_the_clock(world: World) -> None:
    until = world.system.time.now() + SECOND
    task_id = await paused(world, "tick", until)
    await world.project()
    await world.add(task_id, tasks.resume(await world.load(task_id), "back early"))
    async with running(world.clock()):  # without a projector: the table still says paused
        await eventually(lambda: world.system.time.now() > until + SECOND, 20)
    (event,) = await resumptions(world, task_id)
    assert (event["actor"], event["data"]["reason"]) == ("key:test", "back early")


async def test_a_pause_that_was_made_longer_ends_at_its_new_end(world: World) -> None:
    task_id = await paused(world, "tick", world.system.time.now() - SECOND)
    await world.project()
    longer = world.system.time.now() + timedelta(hours=1)
    await world.add(task_id, tasks.pause(await world.load(task_id), None, longer))
    assert await end_pauses(world.system) == 0
    await world.project()
    assert await end_pauses(world.system) == 0
    assert (await world.load(task_id)).paused_until == longer


async def test_a_clock_that_was_down_resumes_and_catches_up_with_what_came_after_the_end(
    world: World,
) -> None:
    """The pause covered three instants; the two since are the policy's, though the clock comes late."""
    start = whole_second(world.system.time.now()) - 45 * SECOND
    every = {"every": "10s", "anchor": start.isoformat()}
    until = start + 25 * SECOND
    task_id = await paused(world, "tick", until, schedule=every, at=start, overlap="allow", catch_up="all")
    await world.project()
    async with running(world.projector(), world.clock()):
        await world.wait_for_verdicts(task_id, 3)
    (resumed,) = await resumptions(world, task_id)
    runs = await world.fetch("SELECT min(position) AS first FROM events WHERE type = 'RunRequested'")
    assert resumed["position"] < runs[0]["first"]
    assert (await world.verdicts(task_id))[:3] == [
        (start, "paused", 3),
        (start + 3 * TEN, "fired", 1),
        (start + 4 * TEN, "fired", 1),
    ]


async def test_what_was_missed_after_the_end_of_a_pause_is_missed_and_not_paused(world: World) -> None:
    start = whole_second(world.system.time.now()) - 300 * SECOND
    every = {"every": "10s", "anchor": start.isoformat()}
    until = start + 100 * SECOND
    task_id = await paused(world, "tick", until, schedule=every, at=start, overlap="allow", catch_up="none")
    await world.project()
    await world.fire_all()  # before anybody has resumed it
    verdicts = await world.verdicts(task_id)
    assert verdicts[0] == (start, "paused", 10)
    assert verdicts[1][:2] == (until, "missed")
    assert {word for _, word, _ in verdicts[2:]} == {"fired"}


@pytest.mark.parametrize("first", ["resume", "fire"])
async def test_the_instants_on_both_sides_of_the_end_have_their_own_verdicts(
    world: World, first: str
) -> None:
    until = whole_second(world.system.time.now())
    every = {"every": "10s", "anchor": (until - 2 * TEN).isoformat()}
    task_id = await paused(
        world, "tick", until, schedule=every, at=until - 2 * TEN, overlap="allow", catch_up="all"
    )
    await world.project()
    if first == "resume":
        assert await end_pauses(world.system) == 1
    await world.fire_all()
    assert (await world.verdicts(task_id))[:2] == [(until - 2 * TEN, "paused", 2), (until, "fired", 1)]
