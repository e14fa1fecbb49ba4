"""I8 where a schedule ends: what was due by it and not decided yet gets its verdict with the change."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx

from ordinaut.clock.clock import Clock
from ordinaut.log.database import connect
from projections.rebuild import verify
from projections.registry import all_projections
from tests.support.api import PIPELINE, Served, running_api
from tests.support.eventually import eventually
from tests.support.running import running

SECOND = timedelta(seconds=1)


def every(interval: str) -> dict[str, Any]:
    policy = {"overlap": "allow", "catch_up": "all"}
    return {"pipeline": PIPELINE, "schedule": {"every": interval}, "policy": policy}


async def overdue(api: Served, task: dict[str, Any], seconds: int) -> datetime:
    """Wait until the task's first instant was so long ago; that instant."""
    first = datetime.fromisoformat(task["next_fire_at"])
    await eventually(lambda: api.system.time.now() > first + seconds * SECOND, 20)
    return first


async def verdicts(api: Served, name: str, since: httpx.Response) -> list[dict[str, Any]]:
    found = await api.fresh(f"/v1/tasks/{name}/occurrences", since, limit=500)
    return [one for one in found["items"] if one["verdict"] != "expected"]


def instants(found: list[dict[str, Any]]) -> list[datetime]:
    """All instants that these verdicts of a schedule `every: 1s` are about."""
    return [
        datetime.fromisoformat(one["at"]) + number * SECOND for one in found for number in range(one["count"])
    ]


async def test_i8_what_no_clock_decided_has_a_verdict_when_the_task_is_retired(
    database_url: str, redis_url: str
) -> None:
    async with running_api(database_url, redis_url) as api:
        task = (await api.http.put("/v1/tasks/gone", json=every("1s"))).json()
        first = await overdue(api, task, 2)
        gone = await api.http.delete("/v1/tasks/gone")
        (last,) = await verdicts(api, "gone", gone)
        assert (last["verdict"], last["reason"], last["count"]) == ("skipped", "retired", 3)
        assert last["at"] == first.isoformat()
        (event,) = (await api.http.get("/v1/log", params={"type": "OccurrenceSkipped"})).json()["items"]
        assert (event["actor"], event["position"] + 1) == (
            "key:admin",
            int(gone.headers["Ordinaut-Position"]),
        )


async def test_i8_what_no_clock_decided_has_a_verdict_when_the_schedule_is_changed(
    database_url: str, redis_url: str
) -> None:
    async with running_api(database_url, redis_url) as api:
        task = (await api.http.put("/v1/tasks/t", json=every("1s"))).json()
        await overdue(api, task, 1)
        await api.http.post("/v1/tasks/t/pause")
        changed = await api.http.put("/v1/tasks/t", json=every("1h"))
        assert [(one["reason"], one["count"]) for one in await verdicts(api, "t", changed)] == [("paused", 2)]
        # What has its verdict gets no other, and a change that leaves the schedule alone ends nothing.
        other = {**every("1h"), "title": "hourly"}
        again = await api.http.put("/v1/tasks/t", json=other)
        retired = await api.http.delete("/v1/tasks/t")
        assert again.status_code == retired.status_code == 200
        assert len(await verdicts(api, "t", retired)) == 1


async def test_i8_what_a_pause_covered_is_told_from_what_was_due_after_its_end(
    database_url: str, redis_url: str
) -> None:
    """No clock runs: the instants on both sides wait for their verdict until the task is retired."""
    async with running_api(database_url, redis_url) as api:
        task = (await api.http.put("/v1/tasks/t", json=every("1s"))).json()
        first = datetime.fromisoformat(task["next_fire_at"])
        until = first + 1.5 * SECOND
        paused = await api.http.post("/v1/tasks/t/pause", json={"until": until.isoformat()})
        assert paused.status_code == 200, paused.text
        await overdue(api, task, 3)
        expected = (await api.fresh("/v1/tasks/t/occurrences", paused, limit=500))["items"]
        assert [one["reason"] for one in expected[:4]] == ["paused", "paused", None, None]
        resumed = await api.http.post("/v1/tasks/t/resume")
        again = (await api.fresh("/v1/tasks/t/occurrences", resumed, limit=500))["items"]
        assert [one["reason"] for one in again[:4]] == ["paused", "paused", None, None]
        gone = await api.http.delete("/v1/tasks/t")
        covered, after = await verdicts(api, "t", gone)
        assert (covered["reason"], covered["at"], covered["count"]) == ("paused", first.isoformat(), 2)
        assert (after["reason"], after["at"]) == ("retired", (first + 2 * SECOND).isoformat())
        assert after["count"] >= 2


async def test_i8_a_clock_that_decides_while_schedules_change_leaves_no_instant_out(
    database_url: str, redis_url: str
) -> None:
    async with running_api(database_url, redis_url, poll_seconds=0.2) as api:
        names = [f"t{number}" for number in range(6)]
        tasks = [(await api.http.put(f"/v1/tasks/{name}", json=every("1s"))).json() for name in names]
        await overdue(api, tasks[-1], 1)
        async with running(Clock(api.system)):
            for _ in range(3):
                firsts = [await overdue(api, task, 0) for task in tasks]
                ends = await asyncio.gather(
                    *[api.http.put(f"/v1/tasks/{name}", json=every("1h")) for name in names]
                )
                for name, first, end in zip(names, firsts, ends, strict=True):
                    found = instants(await verdicts(api, name, end))
                    this_time = sorted(at for at in found if at >= first)
                    assert this_time[0] == first
                    assert this_time == [first + number * SECOND for number in range(len(this_time))]
                    changed_at = datetime.fromisoformat(end.json()["changed_at"])
                    assert changed_at - this_time[-1] < SECOND * 1.1, "up to the change"
                tasks = [(await api.http.put(f"/v1/tasks/{name}", json=every("1s"))).json() for name in names]
        connection = await connect(database_url)
        for projection in all_projections().values():
            assert (await verify(connection, projection)).agrees, projection.name
        await connection.close()
