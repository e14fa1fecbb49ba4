"""Clocks as processes of their own: killed, frozen and continued, or told a wrong time by their machine, they
leave no hole and no duplicate."""

import signal
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

from ordinaut.runtime.ledger import Checked, check_ledger
from tests.conftest import StartRole
from tests.support.clock import World, open_world
from tests.support.wall_clock import AHEAD, SettableProcess

SECOND = timedelta(seconds=1)
FORWARD, BACK = signal.SIGUSR1, signal.SIGUSR2
DAY = 86_400


async def test_a_frozen_clock_that_goes_on_and_a_killed_one_leave_no_hole(
    database_url: str, start_role: StartRole
) -> None:
    frozen = start_role("clock")
    killed = start_role("clock")
    start_role("projector")
    async with open_world(database_url) as world:
        names = ["first", "second", "third"]
        ids = [await world.create(name, {"every": "1s"}, overlap="allow") for name in names]
        await wait_for_all(world, ids, 2)
        frozen.freeze()
        await wait_for_all(world, ids, 4)
        frozen.thaw()
        killed.kill()
        await wait_for_all(world, ids, 6)
        killed.start().wait_ready()
        await wait_for_all(world, ids, 8)
        frozen.kill()
        killed.kill()
        await one_verdict_a_second(world, ids)


async def test_two_clocks_frozen_in_turns_leave_no_hole(database_url: str, start_role: StartRole) -> None:
    """One of them may have been stopped within a transaction, with rows and the log's head locked."""
    clocks = [start_role("clock"), start_role("clock")]
    start_role("projector")
    async with open_world(database_url) as world:
        ids = [await world.create(f"tick-{n}", {"every": "1s"}, overlap="allow") for n in range(50)]
        for turn in range(4):
            stopped = clocks[turn % 2]
            stopped.freeze()
            await wait_for_all(world, ids[-1:], 2 * turn + 2)
            stopped.thaw()
        for clock in clocks:
            clock.terminate()
        await one_verdict_a_second(world, ids)


async def test_setting_the_machines_clock_changes_nothing(database_url: str, start_role: StartRole) -> None:
    """Database time is what counts: nothing fires an hour early, late, twice or not at all."""
    clock = start_role("clock", kind=SettableProcess)
    assert isinstance(clock, SettableProcess)
    start_role("projector")
    async with open_world(database_url) as world:
        begun = world.system.time.now()
        half_an_hour = {"every": "1d", "anchor": (begun + timedelta(minutes=30)).isoformat()}
        later = await world.create("later", half_an_hour)
        tick = await world.create("tick", {"every": "1s"}, overlap="allow")
        await world.wait_for_verdicts(tick, 2)
        for number, step in enumerate((FORWARD, BACK, BACK, FORWARD)):
            await clock.set_clock(step)
            await world.wait_for_verdicts(tick, 2 * number + 4)
        clock.terminate()
        ended = world.system.time.now()
        await one_verdict_a_second(world, [tick])
        ledger = await world.ledger(tick)
        assert all(begun < row["at"] <= row["decided_at"] <= ended for row in ledger)
        assert await world.ledger(later) == []


async def test_clocks_whose_machines_are_days_apart_agree(database_url: str, start_role: StartRole) -> None:
    for wrong in (-400 * DAY, 400 * DAY):
        start_role("clock", kind=SettableProcess, env={AHEAD: str(wrong)})
    start_role("projector")
    async with open_world(database_url) as world:
        begun = world.system.time.now()
        ids = [await world.create(f"tick-{n}", {"every": "1s"}, overlap="allow") for n in range(10)]
        await wait_for_all(world, ids, 4)
        await one_verdict_a_second(world, ids)
        for task_id in ids:
            assert all(begun < row["at"] <= row["decided_at"] for row in await world.ledger(task_id))


async def one_verdict_a_second(world: World, task_ids: Sequence[str]) -> None:
    """No hole and no duplicate, by the ledger's rows, by the log, and by the ledger's checker."""
    for task_id in task_ids:
        ledger = await world.ledger(task_id)
        assert all(later["at"] - earlier["until"] == SECOND for earlier, later in pairwise(ledger))
        (row,) = await world.fetch(
            "SELECT count(*), count(DISTINCT data #>> '{cause,at}') AS instants FROM events"
            " WHERE type = 'RunRequested' AND data->>'task' = $1",
            task_id,
        )
        assert row["count"] == row["instants"]
    checked = Checked()
    async with world.system.pool.acquire() as connection:
        assert [hole async for hole in check_ledger(connection, checked)] == []
    assert checked.tasks >= len(task_ids)


async def wait_for_all(world: World, task_ids: Sequence[str], number: int) -> None:
    for task_id in task_ids:
        await world.wait_for_verdicts(task_id, number)
