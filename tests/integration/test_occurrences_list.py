"""`GET /v1/tasks/{…}/occurrences?from=&to=` over a ledger with ranges, against the ledger itself."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from ordinaut.domain import task as tasks
from tests.support.api import Served, running_api
from tests.support.clock import World, open_world, whole_second

SECOND = timedelta(seconds=1)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
async def api(database_url: str, redis_url: str, world: World) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url, poll_seconds=0.2) as served:
        yield served


async def a_ledger(world: World) -> tuple[datetime, list[Any]]:
    """Ten minutes of seconds: missed ones in one range, then one verdict after another, up to now; and its
    rows."""
    start = whole_second(world.system.time.now()) - timedelta(minutes=10)
    task_id = await world.create("tick", {"every": "10s", "anchor": start.isoformat()}, at=start)
    await world.project()
    await world.fire_all()
    state = await world.load(task_id)
    await world.add(task_id, tasks.pause(state, "audit"))
    await world.project()
    return start, await world.ledger(task_id)


async def pages(api: Served, **query: Any) -> list[Any]:
    found: list[Any] = []
    after: dict[str, str] = {}
    while True:
        answer = await api.http.get("/v1/tasks/tick/occurrences", params={**query, **after})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["items"]
        if page["next"] is None:
            return found
        after = {"after": page["next"]}


@pytest.mark.parametrize("limit", [1, 2, 3, 500])
async def test_a_time_within_a_skipped_range_begins_with_that_range_and_every_page_goes_on(
    world: World, api: Served, limit: int
) -> None:
    start, ledger = await a_ledger(world)
    missed = ledger[0]
    assert (missed["at"], missed["reason"]) == (start, "missed")
    assert missed["until"] > start + 100 * SECOND
    until = ledger[-1]["at"] + 35 * SECOND
    found = await pages(api, **{"from": (start + 50 * SECOND).isoformat()}, to=until.isoformat(), limit=limit)
    told = [datetime.fromisoformat(one["at"]) for one in found if one["verdict"] != "expected"]
    assert told == [row["at"] for row in ledger]
    ahead = [(datetime.fromisoformat(one["at"]), one["reason"]) for one in found[len(told) :]]
    assert ahead == [(ledger[-1]["until"] + n * 10 * SECOND, "paused") for n in (1, 2, 3)]
    behind = await pages(
        api, **{"from": (missed["until"] + SECOND).isoformat()}, to=until.isoformat(), limit=limit
    )
    assert behind == found[1:]


async def test_a_verdict_within_a_range_of_an_earlier_definition_is_on_a_page_too(
    world: World, api: Served
) -> None:
    start, ledger = await a_ledger(world)
    await world.system.pool.execute(
        "INSERT INTO occurrences SELECT task_id, at + interval '15 seconds', at + interval '15 seconds', 1,"
        " space, gen_random_uuid(), 'fired', NULL, 0, 2, decided_at FROM occurrences WHERE reason = 'missed'"
    )
    since, until = start.isoformat(), ledger[-1]["at"].isoformat()
    found = await pages(api, **{"from": since}, to=until, limit=1)
    assert [one["at"] for one in found[:2]] == [since, (start + 15 * SECOND).isoformat()]
    assert len(found) == len(ledger)
