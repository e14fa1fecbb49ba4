"""Clocks as processes of their own: killed amid a backfill, they leave neither hole nor duplicate."""

from datetime import timedelta
from itertools import accumulate
from typing import Any

from ordinaut.log.database import connect
from projections.rebuild import rebuild, verify
from projections.registry import all_projections
from tests.conftest import StartRole
from tests.support.api import running_api
from tests.support.clock import World, open_world, whole_second
from tests.support.eventually import eventually

INSTANTS = 120
PARALLEL = 4


async def finished(world: World) -> list[Any]:
    return await world.fetch("SELECT FROM events WHERE type = 'BackfillFinished'")


async def requested(world: World) -> int:
    (row,) = await world.fetch(
        "SELECT count(*) FROM events WHERE type = 'RunRequested' AND data#>>'{cause,kind}' = 'backfill'"
    )
    return int(row[0])


async def most_at_once(world: World) -> int:
    """How many of the backfill's runs had not ended, at the worst moment of the log."""
    steps = await world.fetch(
        "SELECT CASE e.type WHEN 'RunRequested' THEN 1 ELSE -1 END AS step FROM events e"
        " JOIN events f ON f.stream = e.stream AND f.version = 1"
        " WHERE e.type IN ('RunRequested', 'RunSucceeded', 'RunFailed', 'RunParked', 'RunCanceled')"
        " AND f.data#>>'{cause,kind}' = 'backfill' ORDER BY e.position"
    )
    return max(accumulate(row["step"] for row in steps))


async def test_clocks_killed_in_the_middle_of_a_backfill_leave_no_hole_and_no_duplicate(
    database_url: str, redis_url: str, start_role: StartRole
) -> None:
    """And the table of backfills is, rebuilt, what it was."""
    async with open_world(database_url) as world, running_api(database_url, redis_url) as api:
        start = whole_second(world.system.time.now()) - timedelta(seconds=INSTANTS)
        schedule = {"every": "1s", "anchor": start.isoformat()}
        task_id = await world.create("tick", schedule, at=start, catch_up="none")
        await world.project()
        await world.fire_all()
        # The instants are those of a schedule that is no more; the one there is now fires tomorrow.
        assert (await api.http.delete("/v1/tasks/tick")).status_code == 200
        await world.create("tick", {"every": "1d"})
        body = {"from": start.isoformat(), "max_parallel": PARALLEL}
        answer = await api.http.post("/v1/tasks/tick/backfill", json=body)
        planned = answer.json()["counts"]["run"]
        assert answer.status_code == 202 and planned >= INSTANTS // 2

        start_role("worker")
        clocks = [start_role("clock"), start_role("clock")]
        for killed in (clocks[:1], clocks, clocks[1:], clocks):
            enough = min(await requested(world) + planned // 6, planned)

            async def reached(enough: int = enough) -> bool:
                return await requested(world) >= enough

            await eventually(reached, timeout=60)
            for clock in killed:
                clock.kill()
            for clock in killed:
                clock.start().wait_ready()
        await eventually(lambda: finished(world), timeout=60)
        runs = await world.fetch(
            "SELECT data#>>'{cause,at}' AS at FROM events WHERE type = 'RunRequested'"
            " AND data#>>'{cause,kind}' = 'backfill' ORDER BY position"
        )
        (event,) = await world.fetch("SELECT data FROM events WHERE type = 'BackfillRequested'")
        wanted = [at for group in event["data"]["plan"] for at in group["at"]]
        assert [row["at"] for row in runs] == wanted
        assert len(await finished(world)) == 1
        assert await most_at_once(world) == PARALLEL

        await world.project()
        (before,) = await world.fetch("SELECT * FROM backfills")
        assert (before["requested"], before["succeeded"], before["state"]) == (planned, planned, "finished")
        assert str(before["task_id"]) == task_id
        connection = await connect(database_url)
        projection = all_projections()["backfills"]
        assert (await verify(connection, projection)).agrees
        await rebuild(connection, projection)
        (after,) = await world.fetch("SELECT * FROM backfills")
        assert dict(before) == dict(after)
        await connection.close()
