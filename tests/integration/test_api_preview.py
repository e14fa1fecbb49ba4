"""`POST /v1/schedules/preview` over a real socket: what a change of clocks does is in the note."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.api import Served, running_api, task

WEEKLY = {"rrule": "FREQ=WEEKLY", "dtstart": "2011-12-23T08:00:00", "timezone": "Pacific/Apia"}
DAILY = {"every": "1d", "anchor": "2011-12-28T18:00:00Z", "timezone": "Pacific/Apia"}


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url) as served:
        yield served


@pytest.mark.parametrize(
    ("schedule", "after", "at", "note"),
    [
        (
            {"cron": "*/15 2 * * *", "timezone": "Europe/Berlin"},
            "2026-03-29T00:00:00+01:00",
            "2026-03-30T02:00:00+02:00",
            "clocks go forward: 2026-03-29 02:00 to 02:45 do not exist, no run for them",
        ),
        (
            {"once": "2024-04-07T01:45:00", "timezone": "Australia/Lord_Howe"},
            "2024-01-01T00:00:00Z",
            "2024-04-07T01:45:00+11:00",
            "clocks go back: the first 01:45, not the second",
        ),
        (
            WEEKLY,
            "2011-12-28T00:00:00Z",
            "2011-12-31T08:00:00+14:00",
            "clocks go forward: 2011-12-30 08:00 does not exist, runs at 2011-12-31 08:00",
        ),
        (
            DAILY,
            "2011-12-29T18:00:00Z",
            "2011-12-31T08:00:00+14:00",
            "clocks went forward by 1d since the one before",
        ),
        (DAILY, "2011-12-30T18:00:00Z", "2012-01-01T08:00:00+14:00", ""),
    ],
)
async def test_a_preview_notes_what_a_change_of_clocks_does(
    api: Served, schedule: dict[str, Any], after: str, at: str, note: str
) -> None:
    answer = await api.http.post("/v1/schedules/preview", json={**schedule, "after": after, "count": 1})
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["items"]
    assert (found["at"], found["note"]) == (at, note)


HARD = {"rrule": "FREQ=YEARLY;BYYEARDAY=366;BYDAY=MO", "count": 1000}
HARD_LIST = [{"rrule": "FREQ=MONTHLY;INTERVAL=24;BYDAY=TU,TH,MO,SU,WE,SA,FR;COUNT=10000"}] * 20


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/schedules/preview", HARD),
        ("PUT", "/v1/tasks/hard?dry_run=true", task("hard", schedule=HARD_LIST)),
    ],
    ids=["previewed", "defined"],
)
async def test_others_are_answered_while_a_hard_schedule_is_worked_on(
    api: Served, method: str, path: str, body: Any
) -> None:
    working = asyncio.create_task(api.http.request(method, path, json=body))
    for _ in range(5):
        assert (await api.http.get("/health/live")).status_code == 200
    assert not working.done()
    assert (await working).is_success
