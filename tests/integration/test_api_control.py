"""Pausing until an instant, snoozing once, and both ends of a pause for all tasks with a label."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from ordinaut.runtime.keys import issue_key
from tests.support.api import Served, pointers, problem, running_api, task

HOUR = timedelta(hours=1)
BILLING = {"labels": {"team": "billing"}}


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url) as served:
        yield served


async def control(api: Served, verb: str, **body: Any) -> httpx.Response:
    return await api.http.post(f"/v1/tasks/hello/{verb}", json=body)


async def told(api: Served) -> list[dict[str, Any]]:
    """What pauses and resumptions the log holds."""
    answer = await api.http.get("/v1/log", params={"type": "TaskPaused,TaskResumed,TaskSnoozed"})
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_a_task_is_paused_until_an_instant(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task(schedule={"every": "1h"}))
    paused = await control(api, "pause", reason="holidays", until="2100-01-01T02:00:00+02:00")
    assert paused.status_code == 200, paused.text
    shown = paused.json()
    assert (shown["status"], shown["paused_reason"], shown["paused_until"]) == (
        "paused", "holidays", "2100-01-01T00:00:00+00:00",
    )  # fmt: skip
    assert await api.fresh("/v1/tasks/hello", paused) == shown
    listed = await api.fresh("/v1/tasks", paused, status="paused")
    assert listed["items"] == [shown]
    (event,) = await told(api)
    assert (event["actor"], event["data"]["until"]) == ("key:admin", shown["paused_until"])
    resumed = await control(api, "resume", reason="back early")
    assert (resumed.json()["status"], resumed.json()["paused_until"]) == ("active", None)
    assert (await told(api))[-1]["data"]["reason"] == "back early"
    assert (await api.fresh("/v1/tasks/hello", resumed))["paused_until"] is None


async def test_a_task_is_paused_for_a_while(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task())
    paused = (await control(api, "pause", **{"for": "2h"})).json()
    ahead = datetime.fromisoformat(paused["paused_until"]) - datetime.now(UTC)
    assert HOUR < ahead < 3 * HOUR
    both = await control(api, "pause", until="2100-01-01T00:00:00Z", **{"for": "2h"})
    problem(both, 422)
    assert pointers(both) == ["/for"]


async def test_pausing_a_paused_task_changes_its_pause_and_repeating_it_does_not(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task())
    first, second = "2100-01-01T00:00:00+00:00", "2101-01-01T00:00:00+00:00"
    for body in (
        {"reason": "a", "until": first},
        {"reason": "a", "until": first},
        {"until": first},
        {"until": second},
        {"reason": "b", "until": second},
        {},
        {},
    ):
        assert (await control(api, "pause", **body)).status_code == 200
    assert [(event["data"]["reason"], event["data"]["until"]) for event in await told(api)] == [
        ("a", first),
        ("a", second),
        ("b", second),
        ("b", None),
    ]


@pytest.mark.parametrize("until", ["2020-01-01T00:00:00Z", "2100-01-01T00:00:00", "tomorrow", 7])
async def test_a_pause_until_an_instant_that_is_past_or_none_is_refused(api: Served, until: Any) -> None:
    await api.http.post("/v1/tasks", json=task(labels=BILLING["labels"]))
    for path, more in (("/v1/tasks/hello/pause", {}), ("/v1/tasks:pause", BILLING)):
        refused = await api.http.post(path, json={"until": until, **more})
        problem(refused, 422)
        assert pointers(refused) == ["/until"]
    assert await told(api) == []


async def test_instants_after_the_end_of_a_pause_are_not_expected_to_be_skipped(api: Served) -> None:
    created = await api.http.post("/v1/tasks", json=task(schedule={"every": "1h"}))
    due = datetime.fromisoformat(created.json()["next_fire_at"])
    paused = await control(api, "pause", until=(due + HOUR).isoformat())
    ahead = (await api.fresh("/v1/tasks/hello/occurrences", paused, limit=4))["items"]
    assert [one["reason"] for one in ahead[:2]] == ["paused", None]


async def test_a_snooze_of_the_next_occurrence_does_not_shorten_a_longer_one(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task(schedule={"every": "1h"}))
    long = (await control(api, "snooze", **{"for": "3h"})).json()["snoozed_until"]
    assert (await control(api, "snooze")).json()["snoozed_until"] == long
    assert len(await told(api)) == 1


async def put(api: Served, **labels: dict[str, str]) -> None:
    for name, own in labels.items():
        answer = await api.http.put(f"/v1/tasks/{name}", json=task(name, labels=own))
        assert answer.status_code == 201, answer.text


async def test_all_tasks_with_the_labels_are_paused_and_resumed_together(api: Served) -> None:
    await put(
        api,
        a={"team": "billing", "env": "live"},
        b={"team": "billing", "env": "test"},
        c={"team": "ops", "env": "live"},
        d={"team": "billing", "env": "live"},
    )
    first = await api.http.post("/v1/tasks:pause", json={"labels": {"team": "billing", "env": "live"}})
    assert first.json() == {"changed": ["a", "d"], "already": []}
    paused = await api.http.post("/v1/tasks:pause", json=BILLING)
    assert (paused.status_code, paused.json()) == (200, {"changed": ["b"], "already": ["a", "d"]})
    until = "2100-01-01T00:00:00+00:00"
    until_then = await api.http.post("/v1/tasks:pause", json={**BILLING, "reason": "audit", "until": until})
    assert until_then.json() == {"changed": ["a", "b", "d"], "already": []}
    listed = (await api.fresh("/v1/tasks", until_then, status="paused"))["items"]
    assert {(one["paused_reason"], one["paused_until"]) for one in listed} == {("audit", until)}
    events = (await told(api))[-3:]
    assert len({event["correlation"] for event in events}) == 1
    assert {event["actor"] for event in events} == {"key:admin"}
    assert int(until_then.headers["Ordinaut-Position"]) == events[-1]["position"]

    await api.http.post("/v1/tasks/d/resume")
    resumed = await api.http.post("/v1/tasks:resume", json={**BILLING, "reason": "audit is over"})
    assert resumed.json() == {"changed": ["a", "b"], "already": ["d"]}
    assert {event["data"]["reason"] for event in (await told(api))[-2:]} == {"audit is over"}
    assert (await api.fresh("/v1/tasks", resumed, status="paused"))["items"] == []


async def test_labels_that_no_task_has_change_nothing(api: Served) -> None:
    await put(api, a={"team": "billing"}, gone={"team": "old"})
    await api.http.delete("/v1/tasks/gone")
    for labels in ({"team": "ops"}, {"team": "billing", "env": "live"}, {"team": "old"}):
        answer = await api.http.post("/v1/tasks:pause", json={"labels": labels})
        assert (answer.status_code, answer.json()) == (200, {"changed": [], "already": []})


@pytest.mark.parametrize(
    ("labels", "pointer"),
    [({}, "/labels"), (None, "/labels"), ("team=billing", "/labels"), ({"team": 7}, "/labels/team")],
)
@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_nobody_pauses_everything_by_mistake(api: Served, verb: str, labels: Any, pointer: str) -> None:
    await put(api, a={"team": "billing"})
    missing = await api.http.post(f"/v1/tasks:{verb}", json={"reason": "oops"})
    refused = await api.http.post(f"/v1/tasks:{verb}", json={"labels": labels})
    for answer in (missing, refused):
        problem(answer, 422)
    assert (pointers(missing), pointers(refused)) == (["/labels"], [pointer])
    assert await told(api) == []


async def test_only_tasks_of_the_keys_space_are_paused(api: Served) -> None:
    _, key = await issue_key(api.system, space="other", agent="bot", role="operator")
    await put(api, a={"team": "billing"})
    async with api.client(key) as http:
        await http.put("/v1/tasks/theirs", json=task("theirs", labels=BILLING["labels"]))
        assert (await http.post("/v1/tasks:pause", json=BILLING)).json()["changed"] == ["theirs"]
    assert (await api.http.get("/v1/tasks/a")).json()["status"] == "active"


async def test_a_reader_pauses_nothing(api: Served) -> None:
    await put(api, a={"team": "billing"})
    _, key = await issue_key(api.system, space="default", agent="watcher", role="reader")
    async with api.client(key) as http:
        problem(await http.post("/v1/tasks:pause", json=BILLING), 403)
    assert await told(api) == []


async def test_a_task_that_was_just_acknowledged_is_among_those_with_the_label(
    database_url: str, redis_url: str
) -> None:
    """Whether or not the read table has it."""
    async with running_api(database_url, redis_url, projector=False) as api:
        await put(api, a={"team": "billing"}, b={"team": "billing"})
        await api.http.put("/v1/tasks/b", json=task("b", labels={"team": "ops"}))
        paused = await api.http.post("/v1/tasks:pause", json=BILLING)
        assert paused.json() == {"changed": ["a"], "already": []}


async def test_pausing_together_while_others_change_the_tasks_is_all_or_none(api: Served) -> None:
    names = [f"t{number:02}" for number in range(20)]
    await put(api, **{name: {"team": "billing"} for name in names})
    answers = await asyncio.gather(
        *[api.http.post("/v1/tasks:pause", json=BILLING) for _ in range(3)],
        *[api.http.put(f"/v1/tasks/{n}", json=task(n, labels=BILLING["labels"], title="t")) for n in names],
    )
    bulk = [answer for answer in answers[:3] if answer.status_code == 200]
    changed = [answer.json()["changed"] for answer in bulk]
    assert sorted(changed) == [[]] * (len(bulk) - 1) + [names], "one of them did it, and all of it"
    assert {answer.status_code for answer in answers[3:]} == {200}
    events = [event for event in await told(api) if event["type"] == "TaskPaused"]
    positions = [event["position"] for event in events]
    assert positions == list(range(positions[0], positions[0] + len(names))), "side by side in the log"


async def test_a_request_that_is_repeated_under_its_key_pauses_once(api: Served) -> None:
    await put(api, a={"team": "billing"})
    body, headers = {**BILLING, "for": "2h"}, {"Idempotency-Key": "k-1"}
    first = await api.http.post("/v1/tasks:pause", json=body, headers=headers)
    again = await api.http.post("/v1/tasks:pause", json=body, headers=headers)
    assert first.json() == again.json() == {"changed": ["a"], "already": []}
    assert len(await told(api)) == 1
