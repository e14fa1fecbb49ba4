"""The policies' table over a real log: whole outages, decided by a clock and held against the plain model."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from ordinaut.domain import ids
from ordinaut.domain.run import cancel, fold, run_stream
from ordinaut.log.append import Append
from ordinaut.log.read import read_stream
from ordinaut.runtime.ledger import Checked, check_ledger
from projections.rebuild import verify
from projections.registry import all_projections
from tests.support.clock import World, open_world, whole_second
from tests.support.policies import CATCH_UPS, EVERY, OUTAGES, OVERLAPS, Cell, expected

SECOND = timedelta(seconds=1)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


async def end(world: World, run_id: str) -> None:
    """Have a run ended by somebody."""
    async with world.system.pool.acquire() as connection:
        run = fold(run_id, await read_stream(connection, run_stream(run_id)))
    item = Append(
        run_stream(run_id), run.stream_version, cancel(run, "done with it"), "default", "key:test", run_id
    )
    await world.system.appender.append(item)


async def one_by_one(world: World, task_id: str, since: datetime) -> list[tuple[int, str]]:
    """Each instant from `since` on, in seconds after it, and `fired` or the reason."""
    found: list[tuple[int, str]] = []
    for at, word, count in await world.verdicts(task_id):
        first = round((at - since).total_seconds())
        found += [(first + n * EVERY, word) for n in range(count) if first >= 0]
    return found


@pytest.mark.parametrize("outage", OUTAGES)
async def test_each_cell_of_the_policies_table_over_a_real_log(world: World, outage: str) -> None:
    """A task for each cell, whose run of the instant before the outage has ended or has not."""
    start = whole_second(world.system.time.now()) - timedelta(hours=8)
    before = start - timedelta(seconds=EVERY)
    cells: dict[str, Cell] = {}
    for number, (catch_up, overlap, unfinished) in enumerate(
        (catch_up, overlap, unfinished)
        for catch_up in CATCH_UPS
        for overlap in OVERLAPS
        for unfinished in (0, 1)
    ):
        task_id = await world.create(
            f"tick-{number}", {"every": f"{EVERY}s", "anchor": before.isoformat()}, at=before,
            catch_up=CATCH_UPS[catch_up].document, overlap=overlap,
        )  # fmt: skip
        cells[task_id] = Cell(catch_up, overlap, outage, unfinished)
    await world.project()
    assert await world.fire_at(before + SECOND) == len(cells)
    for task_id, cell in cells.items():
        if not cell.unfinished:
            await end(world, ids.scheduled_run_id(task_id, before))
    await world.fire_at(start + OUTAGES[outage] * SECOND)

    await world.project()
    for task_id, cell in cells.items():
        verdicts, canceled = expected(cell)
        assert await one_by_one(world, task_id, start) == verdicts, cell
        fired = sum(word == "fired" for _, word in verdicts)
        (row,) = await world.fetch(
            "SELECT (SELECT count(*) FROM due_work WHERE task_id = $1::uuid) AS waiting,"
            " (SELECT count(*) FROM events WHERE type = 'RunCanceled' AND actor = 'clock' AND stream = $2)"
            " AS canceled",
            task_id,
            run_stream(ids.scheduled_run_id(task_id, before)),
        )
        assert tuple(row) == (cell.unfinished - canceled + fired, canceled), cell
    await whole(world, len(cells))


async def whole(world: World, tasks: int) -> None:
    """The ledger has no hole, and every read table is the fold of the log."""
    checked = Checked()
    async with world.system.pool.acquire() as connection:
        assert [hole async for hole in check_ledger(connection, checked)] == []
        assert checked.tasks == tasks
        for projection in all_projections().values():
            assert (await verify(connection, projection)).agrees, projection.name
