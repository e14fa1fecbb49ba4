"""A task with several schedules and exclusions: one occurrence an instant, one verdict for each (I7, I8)."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from ordinaut.runtime.ledger import Checked, check_ledger
from tests.support.api import PIPELINE, Served, running_api
from tests.support.clock import World, open_world, whole_second

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url) as served:
        yield served


async def holes(world: World) -> list[Any]:
    async with world.system.pool.acquire() as connection:
        return [hole async for hole in check_ledger(connection, Checked())]


async def test_an_instant_that_two_schedules_name_is_one_occurrence(world: World) -> None:
    start = whole_second(world.system.time.now())
    schedule = [{"every": each, "anchor": start.isoformat()} for each in ("2m", "3m")]
    task_id = await world.create("both", schedule, at=start, overlap="allow", catch_up="all")
    await world.project()
    for minute in range(7):
        await world.fire_at(start + minute * MINUTE)
    assert await world.verdicts(task_id) == [
        (start + minute * MINUTE, "fired", 1) for minute in (0, 2, 3, 4, 6)
    ]
    causes = await world.fetch(
        "SELECT data#>>'{cause,index}' AS index FROM events WHERE type = 'RunRequested' ORDER BY position"
    )
    assert [row["index"] for row in causes] == ["0", "0", "1", "0", "0"]


@pytest.mark.parametrize("catch_up", ["none", "latest", {"all": {"max": 20}}], ids=["none", "latest", "all"])
@pytest.mark.parametrize("outage", [0, 59, 240], ids=["on_time", "within_grace", "after_an_outage"])
async def test_what_is_excluded_gets_that_verdict_and_the_ledger_has_no_holes(
    world: World, catch_up: Any, outage: int
) -> None:
    start = whole_second(world.system.time.now()) - 10 * MINUTE
    blackout = f"{(start + 20 * SECOND).isoformat()}/{(start + 40 * SECOND).isoformat()}"
    member = {"every": "5s", "anchor": start.isoformat(), "exclude": [blackout]}
    schedule = [member, {"once": (start + 30 * SECOND).isoformat()}]
    task_id = await world.create("quiet", schedule, at=start, overlap="allow", catch_up=catch_up)
    await world.project()
    if outage:
        await world.fire_at(start + outage * SECOND)
    else:
        for second in range(0, 60, 5):
            await world.fire_at(start + second * SECOND)
    ledger = {row["at"]: row for row in await world.ledger(task_id)}
    told = {at: row["reason"] or row["verdict"] for at, row in ledger.items()}
    excluded = [row for row in ledger.values() if row["reason"] == "excluded"]
    assert sum(row["count"] for row in excluded) == 3
    assert told[start + 20 * SECOND] == "excluded"
    if outage <= 59:
        assert told[start + 30 * SECOND] == "fired", "the other schedule names it too"
        assert set(told.values()) == {"fired", "excluded"}
    assert await holes(world) == []


async def test_a_list_with_exclusions_is_kept_shown_and_previewed(api: Served) -> None:
    daily = {"cron": "0 9 * * *", "timezone": "Europe/Berlin", "end": "2090-12-31"}
    tomorrow = await api.http.post("/v1/schedules/preview", json={"schedule": daily, "count": 3})
    days = [datetime.fromisoformat(each["at"]).date().isoformat() for each in tomorrow.json()["items"]]
    schedule = [{**daily, "exclude": [days[0], f"{days[1]}T08:00:00/{days[1]}T10:00:00"]}]
    body = {"pipeline": PIPELINE, "schedule": schedule}
    created = await api.http.put("/v1/tasks/quiet", json=body)
    assert created.status_code == 201, created.text
    assert created.json()["schedule"] == schedule
    assert created.json()["next_fire_at"][:10] == days[2], "what is excluded is passed over"
    assert (await api.http.put("/v1/tasks/quiet", json=body)).json()["version"] == 1
    shown = await api.fresh("/v1/tasks/quiet", created)
    assert shown["next_fire_at"] == created.json()["next_fire_at"]
    ahead = await api.fresh("/v1/tasks/quiet/occurrences", created, limit=3)
    assert [(each["reason"], each["at"][:10]) for each in ahead["items"]] == [
        ("excluded", days[0]), ("excluded", days[1]), (None, days[2]),
    ]  # fmt: skip
    preview = await api.http.post("/v1/schedules/preview", json={"schedule": schedule, "count": 3})
    assert [(each["excluded"], each["note"]) for each in preview.json()["items"]] == [
        (True, "excluded"), (True, "excluded"), (False, ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "pointer", "told"),
    [
        ([{"cron": "0 9 * * *"}, {"on": {"stream": "orders"}}], "/schedule/1/on", "does not go into a list"),
        ([{"crn": "0 9 * * *"}], "/schedule/0/crn", "did you mean 'cron'?"),
        ([{"cron": "0 9 * * *"}, {"once": "2020-01-01T00:00:00Z"}], "/schedule/1/once", "is in the past"),
        ({"cron": "0 9 * * *", "end": "2020-01-01"}, "/schedule/cron", "never fires again"),
        (
            {"cron": "0 9 * * *", "exclude": [{"rrule": "FREQ=DAILY"}]},
            "/schedule/exclude", "leaves out every instant",
        ),
    ],
)  # fmt: skip
async def test_a_schedule_that_would_never_fire_is_refused_at_its_place(
    api: Served, schedule: Any, pointer: str, told: str
) -> None:
    answer = await api.http.put("/v1/tasks/wrong", json={"pipeline": PIPELINE, "schedule": schedule})
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert fault["pointer"] == pointer
    assert told in f"{fault['detail']} {fault.get('hint')}"


async def test_what_is_over_may_stay_in_a_list_that_is_changed(api: Served, world: World) -> None:
    past = {"once": "2020-01-01T00:00:00Z"}
    ahead = {"cron": "0 9 * * *"}
    soon = {"once": (world.system.time.now() + SECOND).isoformat()}
    body = {"pipeline": PIPELINE, "schedule": [ahead, soon]}
    assert (await api.http.put("/v1/tasks/list", json=body)).status_code == 201
    while world.system.time.now() < datetime.fromisoformat(soon["once"]):
        await world.project()
    body["schedule"] = [ahead, soon, {"cron": "0 10 * * *"}]
    assert (await api.http.put("/v1/tasks/list", json=body)).status_code == 200
    body["schedule"] = [ahead, past]
    assert (await api.http.put("/v1/tasks/list", json=body)).status_code == 422
