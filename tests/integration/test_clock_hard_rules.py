"""Schedules that take long to decide: they keep neither their clock's transaction nor other schedules waiting
for ever."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.support.clock import World, open_world, whole_second

HARD = [{"rrule": "FREQ=SECONDLY"}] * 20
"""Names twenty times over what one would; after an outage it is decided for longer than a transaction
may be idle in this test."""


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


async def test_a_schedule_that_takes_long_to_decide_stops_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ordinaut.clock.fire.IDLE_SECONDS", 0.3)
    now = whole_second(world.system.time.now())
    start = now - timedelta(minutes=20)
    hard = await world.create("hard", [each | {"dtstart": start.isoformat()} for each in HARD], at=start)
    plain = await world.create("plain", {"once": now.isoformat()}, at=now)
    await world.project()
    moved = await world.fire_all()
    assert moved >= 2
    assert [verdict for _, verdict, _ in await world.verdicts(plain)] == ["fired"]
    first, *_ = await world.verdicts(hard)
    assert first[:2] == (start, "missed")
