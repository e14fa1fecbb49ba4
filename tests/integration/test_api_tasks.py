"""Tasks over REST: define, change, run, pause, snooze, retire; and what comes back."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis.asyncio

from ordinaut.domain.ids import new_id
from ordinaut.domain.request import skip_occurrence
from ordinaut.log.append import Append
from tests.support.api import PIPELINE, Served, running_api, task
from tests.support.eventually import eventually


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url) as served:
        yield served


async def types_of(api: Served, **query: Any) -> list[str]:
    answer = await api.http.get("/v1/log", params=query)
    return [event["type"] for event in answer.json()["items"]]


async def test_a_created_task_has_the_public_shape(api: Served) -> None:
    answer = await api.http.post(
        "/v1/tasks", json=task(schedule={"cron": "30 8 * * 1-5", "timezone": "Europe/Chisinau"}, title="Hi")
    )
    assert answer.status_code == 201, answer.text
    created = answer.json()
    assert created["name"] == "hello" and created["space"] == "default" and created["status"] == "active"
    assert created["version"] == 1 and created["title"] == "Hi"
    assert created["schedule"] == {"cron": "30 8 * * 1-5", "timezone": "Europe/Chisinau"}
    assert datetime.fromisoformat(created["next_fire_at"]) > datetime.now(UTC)
    assert answer.headers["Location"] == "/v1/tasks/hello"
    shown = await api.fresh("/v1/tasks/hello", answer)
    assert shown == created
    assert await api.fresh(f"/v1/tasks/{created['id']}", answer) == created


async def test_creating_a_name_that_is_in_use_is_a_conflict(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task())
    again = await api.http.post("/v1/tasks", json=task())
    assert again.status_code == 409
    assert again.json()["type"] == "urn:ordinaut:problem:already-exists"
    assert await types_of(api, type="TaskCreated") == ["TaskCreated"]


async def test_a_retired_name_can_be_created_again(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task())
    retired = await api.http.delete("/v1/tasks/hello")
    assert retired.status_code == 200 and retired.json()["status"] == "retired"
    assert (await api.fresh("/v1/tasks", retired))["items"] == []
    again = await api.http.post("/v1/tasks", json=task())
    assert again.status_code == 201 and again.json()["version"] == 2


async def test_putting_the_same_document_twice_changes_nothing(api: Served) -> None:
    for schedule in (
        {"every": "15m"},
        {"rrule": "FREQ=DAILY;BYHOUR=8;BYMINUTE=30"},
        {"on": {"stream": "orders"}},
    ):
        name = next(iter(schedule))
        document = {"schedule": schedule, "pipeline": PIPELINE}
        first = await api.http.put(f"/v1/tasks/{name}", json=document)
        second = await api.http.put(f"/v1/tasks/{name}", json=document)
        assert (first.status_code, second.status_code) == (201, 200), second.text
        assert second.json()["version"] == 1, "nothing was changed"
        assert second.json()["schedule"] == first.json()["schedule"]
    assert "TaskChanged" not in await types_of(api)


async def test_putting_another_document_changes_the_task(api: Served) -> None:
    await api.http.put("/v1/tasks/hello", json={"pipeline": PIPELINE, "schedule": {"every": "1h"}})
    changed = await api.http.put("/v1/tasks/hello", json={"pipeline": PIPELINE, "schedule": {"every": "2h"}})
    assert changed.status_code == 200 and changed.json()["version"] == 2
    assert changed.json()["schedule"]["every"] == "2h"
    shown = await api.fresh("/v1/tasks/hello", changed)
    assert shown["next_fire_at"] == changed.json()["next_fire_at"]
    by_id = await api.http.put(f"/v1/tasks/{shown['id']}", json={"pipeline": PIPELINE})
    assert by_id.json()["name"] == "hello" and by_id.json()["version"] == 3


@pytest.mark.parametrize(
    ("schedule", "pointer"),
    [
        ({"once": "2020-02-03T08:00:00Z"}, "/schedule/once"),
        ({"rrule": "FREQ=DAILY;COUNT=3", "dtstart": "2020-02-03T08:00:00"}, "/schedule/rrule"),
    ],
)
async def test_a_schedule_that_never_fires_again_is_refused(
    api: Served, schedule: dict[str, Any], pointer: str
) -> None:
    posted = await api.http.post("/v1/tasks", json=task(schedule=schedule))
    put = await api.http.put("/v1/tasks/hello?dry_run=true", json=task(schedule=schedule))
    for answer in (posted, put):
        assert answer.status_code == 422
        (fault,) = answer.json()["errors"]
        assert fault["pointer"] == pointer and "ahead" in fault["hint"]
    assert (await api.http.get("/v1/tasks/hello")).status_code == 404


async def test_a_once_in_the_past_is_due_now_where_all_is_caught_up_with(api: Served) -> None:
    once = {"once": "2020-02-03T08:00:00Z"}
    policy = {"catch_up": {"all": {}}}
    created = await api.http.post("/v1/tasks", json=task(schedule=once, policy=policy))
    assert created.status_code == 201, created.text
    assert created.json()["next_fire_at"] == "2020-02-03T08:00:00+00:00"
    policy = {"catch_up": {"all": {"window": "1d"}}}
    refused = await api.http.post("/v1/tasks", json=task("older", schedule=once, policy=policy))
    assert refused.status_code == 422, "it would be skipped as too old"


async def test_a_once_that_has_passed_meanwhile_stays_as_it_is(api: Served) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1.5)
    document = task(schedule={"once": at.isoformat()})
    assert (await api.http.put("/v1/tasks/hello", json=document)).status_code == 201
    await eventually(lambda: api.system.time.now() > at)
    again = await api.http.put("/v1/tasks/hello", json=document)
    assert (again.status_code, again.json()["version"]) == (200, 1)
    titled = await api.http.put("/v1/tasks/hello", json={**document, "title": "New"})
    assert (titled.status_code, titled.json()["version"]) == (200, 2), titled.text
    other = {"once": (at - timedelta(days=1)).isoformat()}
    assert (await api.http.put("/v1/tasks/hello", json=task(schedule=other))).status_code == 422


async def test_an_unchanged_task_tells_its_next_instant_however_far_behind_the_tables_are(
    database_url: str, redis_url: str
) -> None:
    async with running_api(database_url, redis_url, projector=False) as api:
        for rule in ({"cron": "0 3 1 1 *"}, {"cron": "0 4 1 1 *"}):
            put = await api.http.put("/v1/tasks/hello", json=task(schedule=rule))
            again = await api.http.put("/v1/tasks/hello", json=task(schedule=rule))
            assert again.status_code == 200 and again.json() == put.json()
            assert put.json()["next_fire_at"] is not None
            assert (await api.http.get("/v1/tasks/hello")).json() == put.json()
        paused = await api.http.post("/v1/tasks/hello/pause")
        assert paused.json()["next_fire_at"] == put.json()["next_fire_at"], "as planned; it will be skipped"


async def test_a_dry_run_checks_everything_and_changes_nothing(api: Served) -> None:
    well = await api.http.put("/v1/tasks/hello?dry_run=true", json={"pipeline": PIPELINE})
    assert well.status_code == 200 and well.json()["name"] == "hello"
    bad = await api.http.put("/v1/tasks/hello?dry_run=true", json={"pipeline": []})
    assert bad.status_code == 422
    assert (await api.http.get("/v1/tasks/hello")).status_code == 404


async def test_a_task_that_listens_has_its_consumer_group_when_it_is_acknowledged(
    api: Served, redis_url: str
) -> None:
    await api.http.put("/v1/tasks/t", json={"on": {"stream": "orders"}, "pipeline": PIPELINE})
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        groups = await client.xinfo_groups("orders")
    assert [group["name"] for group in groups] == [b"ordinaut"]


async def test_a_group_that_was_missing_loses_no_entry_when_another_task_begins_to_listen(
    api: Served, redis_url: str
) -> None:
    listening = {"on": {"stream": "orders"}, "pipeline": PIPELINE}
    await api.http.put("/v1/tasks/first", json=listening)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.xgroup_destroy("orders", "ordinaut")
        entry = await client.xadd("orders", {"data": "1"})
        await api.http.put("/v1/tasks/second", json=listening)
        read = await client.xreadgroup("ordinaut", "test", {"orders": ">"})
    assert [one for one, _ in read[0][1]] == [entry]


async def test_a_task_is_paused_and_resumed(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task(schedule={"every": "1h"}))
    paused = await api.http.post("/v1/tasks/hello/pause", json={"reason": "holidays"})
    assert paused.status_code == 200
    assert (paused.json()["status"], paused.json()["paused_reason"]) == ("paused", "holidays")
    again = await api.http.post("/v1/tasks/hello/pause")
    assert again.status_code == 200
    snoozed = await api.http.post("/v1/tasks/hello/snooze", json={"for": "1h"})
    assert snoozed.status_code == 409
    resumed = await api.http.post("/v1/tasks/hello/resume")
    assert resumed.json()["status"] == "active"
    assert (await types_of(api))[2:] == ["TaskCreated", "TaskPaused", "TaskResumed"]


async def test_a_snooze_without_a_time_covers_the_next_occurrence_only(api: Served) -> None:
    created = await api.http.post("/v1/tasks", json=task(schedule={"every": "1h"}))
    due = datetime.fromisoformat(created.json()["next_fire_at"])
    snoozed = await api.http.post("/v1/tasks/hello/snooze")
    until = datetime.fromisoformat(snoozed.json()["snoozed_until"])
    assert due < until < due + timedelta(seconds=1)
    await api.http.post("/v1/tasks", json=task("manual"))
    without = await api.http.post("/v1/tasks/manual/snooze")
    assert without.status_code == 409 and "until" in without.json()["detail"]


async def test_a_snooze_into_the_past_is_refused(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task())
    answer = await api.http.post("/v1/tasks/hello/snooze", json={"until": "2020-01-01T00:00:00Z"})
    assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"] == "/until"


async def test_running_a_task_by_hand_requests_a_run(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task())
    await api.http.post("/v1/tasks/hello/pause")
    asked = await api.http.post(
        "/v1/tasks/hello/run", json={"input": {"n": 1}, "simulate": True}, headers={"X-Request-Id": "abc-1"}
    )
    assert asked.status_code == 202 and list(asked.json()) == ["run"]
    run = (await api.http.get(f"/v1/runs/{asked.json()['run']}")).json()
    assert run["task"] == "hello" and run["state"] == "queued" and run["simulate"] is True
    assert run["cause"] == {"kind": "manual"} and run["input"] == {"n": 1} and run["steps"] == []
    listed = await api.fresh("/v1/runs", asked, task="hello", state="queued")
    assert [one["id"] for one in listed["items"]] == [run["id"]]
    assert listed["items"][0]["correlation"] == "abc-1"
    event = (await api.http.get("/v1/log", params={"stream": f"run-{run['id']}"})).json()["items"][0]
    assert (event["actor"], event["correlation"], event["causation"]) == (
        "key:admin",
        "abc-1",
        "request:abc-1",
    )


async def test_a_retired_task_cannot_be_run(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task())
    await api.http.delete("/v1/tasks/hello")
    for verb in ("run", "pause", "resume", "snooze"):
        answer = await api.http.post(f"/v1/tasks/hello/{verb}")
        assert answer.status_code == 404 and "retired" in answer.json()["detail"]
    assert (await api.http.delete("/v1/tasks/hello")).status_code == 404


async def test_a_run_is_canceled_and_retried(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task())
    run_id = (await api.http.post("/v1/tasks/hello/run")).json()["run"]
    canceled = await api.http.post(f"/v1/runs/{run_id}/cancel", json={"reason": "no need"})
    assert canceled.status_code == 200
    assert canceled.json()["state"] == "canceled" and canceled.json()["error"] == {"message": "no need"}
    assert (await api.http.post(f"/v1/runs/{run_id}/cancel")).status_code == 200

    async def nothing_is_due() -> bool:
        return not await api.system.pool.fetchval("SELECT count(*) FROM due_work")

    await eventually(nothing_is_due)
    retried = await api.http.post(f"/v1/runs/{run_id}/retry")
    assert retried.status_code == 202 and retried.json() == {"run": run_id}
    listed = await api.fresh("/v1/runs", retried)
    assert [run["state"] for run in listed["items"]] == ["waiting"]
    assert await types_of(api, stream=f"run-{run_id}") == ["RunRequested", "RunCanceled", "RunRetryScheduled"]


async def test_lists_are_paged_by_cursor(api: Served) -> None:
    for number in range(5):
        last = await api.http.post("/v1/tasks", json=task(f"t{number}", labels={"odd": str(number % 2)}))
    for path, ids in (("/v1/tasks", "name"), ("/v1/runs", "id")):
        if path == "/v1/runs":
            for number in range(5):
                last = await api.http.post(f"/v1/tasks/t{number}/run")
        seen: list[str] = []
        after = None
        while True:
            page = await api.fresh(path, last, limit=2, **({"after": after} if after else {}))
            seen += [item[ids] for item in page["items"]]
            after = page["next"]
            if after is None:
                break
        assert len(seen) == len(set(seen)) == 5
    labelled = await api.fresh("/v1/tasks", last, label="odd=1")
    assert [item["name"] for item in labelled["items"]] == ["t1", "t3"]


async def test_expected_occurrences_are_listed_with_what_would_skip_them(api: Served) -> None:
    created = await api.http.post("/v1/tasks", json=task(schedule={"every": "1h"}))
    snoozed = await api.http.post("/v1/tasks/hello/snooze")
    page = await api.fresh("/v1/tasks/hello/occurrences", snoozed, limit=3)
    assert [(item["verdict"], item["reason"]) for item in page["items"]] == [
        ("expected", "snoozed"), ("expected", None), ("expected", None),
    ]  # fmt: skip
    assert page["items"][0]["at"] == created.json()["next_fire_at"]
    rest = await api.fresh("/v1/tasks/hello/occurrences", snoozed, limit=2, after=page["next"])
    first, second = (datetime.fromisoformat(item["at"]) for item in rest["items"])
    assert first - datetime.fromisoformat(page["items"][2]["at"]) == second - first == timedelta(hours=1)


async def test_verdicts_and_what_is_expected_share_a_page_and_the_next_goes_on_behind_it(api: Served) -> None:
    created = await api.http.post("/v1/tasks", json=task(schedule={"every": "1h"}))
    at = datetime.fromisoformat(created.json()["next_fire_at"]) - timedelta(days=1)
    for hour in range(4):
        await _skip(api, created.json(), at + timedelta(hours=hour), count=3)
    last = await api.http.post("/v1/tasks", json=task("later"))
    path = "/v1/tasks/hello/occurrences"

    page = await api.fresh(path, last, limit=4)
    assert [item["verdict"] for item in page["items"]] == ["skipped", "skipped", "expected", "expected"]
    assert page["items"][2]["at"] == created.json()["next_fire_at"]
    rest = await api.fresh(path, last, limit=4, after=page["next"])
    assert [item["verdict"] for item in rest["items"]] == ["expected"] * 4
    assert rest["items"][0]["at"] > page["items"][-1]["at"]

    (one,) = (await api.fresh(path, last, limit=1))["items"]
    assert one["at"] == page["items"][1]["at"]
    start = {"from": at.isoformat()}
    first = await api.fresh(path, last, limit=2, **start)
    second = await api.fresh(path, last, limit=2, after=first["next"])
    instants = [item["at"] for item in (*first["items"], *second["items"])]
    assert instants == [(at + timedelta(hours=hour)).isoformat() for hour in range(4)], "none of them twice"


async def test_what_was_skipped_is_no_run_and_says_why(api: Served) -> None:
    created = await api.http.post("/v1/tasks", json=task(schedule={"every": "1h"}))
    run = await _skip(api, created.json(), datetime(2026, 5, 4, 8, tzinfo=UTC))
    for answer in (await api.http.get(f"/v1/runs/{run}"), await api.http.post(f"/v1/runs/{run}/cancel")):
        assert answer.status_code == 404
        assert "skipped: paused; see GET /v1/tasks/hello/occurrences" in answer.json()["detail"]


async def _skip(api: Served, created: dict[str, Any], at: datetime, count: int = 1) -> str:
    """Record that `count` instants from `at` on were skipped; the id of their verdict."""
    known, run = await api.system.tasks.load(created["id"]), new_id()
    cause = {"kind": "schedule", "at": at.isoformat(), "index": 0, "lateness": 0.0}
    until = at + timedelta(minutes=count - 1)
    extra = {"schedule": 0, "next": created["next_fire_at"], "count": count}
    extra |= {"from": at.isoformat(), "to": until.isoformat()}
    skipped = skip_occurrence(known, cause, "paused", extra)
    await api.system.appender.append(Append(f"run-{run}", 0, [skipped], "default", "clock", run))
    return run


async def test_a_schedule_is_previewed_across_a_clock_change(api: Served) -> None:
    answer = await api.http.post(
        "/v1/schedules/preview",
        json={
            "rrule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30", "timezone": "Europe/Berlin", "count": 2,
            "dtstart": "2026-03-01T00:00:00", "after": "2026-03-28T12:00:00+01:00",
        },
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    first, second = answer.json()["items"]
    assert first["at"] == "2026-03-29T03:30:00+02:00" and "does not exist" in first["note"]
    assert second["at"] == "2026-03-30T02:30:00+02:00" and second["note"] == ""


async def test_an_event_over_http_starts_the_tasks_that_listen(api: Served) -> None:
    on = {"stream": "orders", "where": "data.amount > `100`", "input": {"order": "${data.id}"}}
    await api.http.put("/v1/tasks/big", json={"on": on, "pipeline": PIPELINE})
    small = await api.http.post("/v1/events", json={"stream": "orders", "data": {"id": 1, "amount": 5}})
    assert small.status_code == 202 and small.json()["runs"] == []
    big = {"stream": "orders", "data": {"id": 2, "amount": 500}, "id": "order 2"}
    first = await api.http.post("/v1/events", json=big)
    again = await api.http.post("/v1/events", json=big)
    assert first.status_code == again.status_code == 202
    assert first.json() == again.json() and len(first.json()["runs"]) == 1
    run = (await api.http.get(f"/v1/runs/{first.json()['runs'][0]}")).json()
    assert run["input"] == {"order": 2} and run["cause"]["kind"] == "event"


async def test_i7_an_event_is_known_by_its_stream_and_its_id_together(api: Served) -> None:
    pairs = [("a b", "c"), ("a", "b c"), ("a b", "c"), ("1 a", "c"), ("1", "a c")]
    answers = [
        await api.http.post("/v1/events", json={"stream": stream, "id": id, "data": 1})
        for stream, id in pairs
    ]
    assert {answer.status_code for answer in answers} == {202}
    ids = {pair: answer.json()["id"] for pair, answer in zip(pairs, answers, strict=True)}
    assert len(set(ids.values())) == len(set(pairs)) == 4
    assert answers[0].json() == answers[2].json()
