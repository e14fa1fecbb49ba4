"""Clocks as processes of their own: killed, frozen and continued, they leave no hole and no duplicate."""

from datetime import timedelta
from itertools import pairwise

from tests.conftest import StartRole
from tests.support.clock import World, open_world

SECOND = timedelta(seconds=1)


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
        for task_id in ids:
            ledger = await world.ledger(task_id)
            assert all(later["at"] - earlier["until"] == SECOND for earlier, later in pairwise(ledger))
            (row,) = await world.fetch(
                "SELECT count(*), count(DISTINCT data #>> '{cause,at}') AS instants FROM events"
                " WHERE type = 'RunRequested' AND data->>'task' = $1",
                task_id,
            )
            assert row["count"] == row["instants"]


async def wait_for_all(world: World, task_ids: list[str], number: int) -> None:
    for task_id in task_ids:
        await world.wait_for_verdicts(task_id, number)
