"""Tasks that wait for several events, or for one that does not come."""

import asyncio
import random
from typing import Any

import pytest

from ordinaut.domain import task
from ordinaut.domain.definition import parse_definition
from ordinaut.intake.windows import Windows
from ordinaut.runtime.system import System
from tests.support.api import KEY, PIPELINE, running_api
from tests.support.commands import ordinaut
from tests.support.eventually import eventually
from tests.support.listening import a_system, an_intake, events, happen, listen
from tests.support.windows import (
    add,
    collect_some,
    cut_off,
    old,
    read_everything,
    runs,
    settle,
    table,
)

ORDER_PAID: dict[str, Any] = {
    "within": "1m",
    "events": [
        {"name": "placed", "stream": "orders", "input": "${data.n}"},
        {"name": "paid", "stream": "payments", "key": "${data.order}", "input": "${data.n}"},
    ],
}


async def skipped(system: System) -> dict[str, list[Any]]:
    """What was collected in vain: inputs by reason."""
    collected = {event.stream: event.data["input"] for event in await events(system, "EventCollected")}
    found: dict[str, list[Any]] = {}
    for event in await events(system, "OccurrenceSkipped"):
        found.setdefault(event.data["reason"], []).append(collected[event.stream])
    return found


async def all_decided(system: System) -> None:
    """Wait until everything has been read and nothing waits."""

    async def done() -> bool:
        read = await read_everything(system)
        position = await system.pool.fetchval("SELECT position FROM log_readers WHERE name = 'windows'")
        collected = await events(system, "EventCollected")
        return read and collected[-1].position <= position and await table(system) == {}

    await eventually(done, timeout=20)


async def test_a_sequence_of_two_streams_has_one_run_with_what_both_say(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        await old(system, "ship", key="${data.id}", sequence=ORDER_PAID)
        await add(system, "orders", *((n, {"id": n, "n": n}) for n in range(4)))
        payments = [
            (2, {"order": 1, "n": "x"}),
            (0.5, {"order": 2, "n": "early"}),
            (100, {"order": 3, "n": "z"}),
        ]
        await add(system, "payments", *sorted(payments, key=lambda each: each[0]))
        async with an_intake(system):
            (run,) = await runs(system, 1)
            await all_decided(system)
        assert run.data["input"] == {"placed": 1, "paid": "x"}
        cause = run.data["cause"]
        assert (cause["kind"], cause["pattern"], cause["key"], cause["count"]) == (
            "window",
            "sequence",
            "1",
            2,
        )
        assert [(each["part"], each["stream"]) for each in cause["events"]] == [
            ("placed", "orders"), ("paid", "payments"),
        ]  # fmt: skip
        assert len(await events(system, "RunRequested")) == 1
        assert sorted(map(str, (await skipped(system))["incomplete"])) == sorted(
            map(str, [{"placed": 0}, {"placed": 2}, {"placed": 3}, {"paid": "early"}, {"paid": "z"}])
        )


async def test_all_of_them_in_whatever_order_make_one_run(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        await old(system, "ship", key="${data.id || data.order}", all_of=ORDER_PAID)
        await add(system, "orders", (10, {"id": "a", "n": 1}), (11, {"id": "b", "n": 2}))
        await add(system, "payments", (5, {"order": "a", "n": 3}), (200, {"order": "b", "n": 4}))
        async with an_intake(system):
            (run,) = await runs(system, 1)
            await all_decided(system)
        assert run.data["input"] == {"placed": 1, "paid": 3}
        assert [each["part"] for each in run.data["cause"]["events"]] == ["placed", "paid"]
        assert (await skipped(system))["incomplete"] == [{"placed": 2}, {"paid": 4}]


async def test_what_does_not_come_in_time_starts_a_run_and_what_comes_does_not(
    database_url: str, redis_url: str
) -> None:
    unpaid = {"within": "30s", "after": {"stream": "orders", "input": "${data.id}"}}
    unpaid["expected"] = {"stream": "payments", "key": "${data.order}"}
    async with a_system(database_url, redis_url) as system:
        await old(system, "remind", key="${data.id}", absent=unpaid)
        await add(system, "orders", *((n, {"id": n}) for n in range(3)))
        await add(system, "payments", (20, {"order": 1}), (33, {"order": 2}), (40, {"order": 7}))
        async with an_intake(system):
            found = await runs(system, 2)
            await all_decided(system)
        assert sorted(run.data["input"] for run in found) == [0, 2]
        assert {run.data["cause"]["pattern"] for run in found} == {"absent"}
        reasons = sorted(event.data["reason"] for event in await events(system, "WindowClosed"))
        assert reasons == ["absent", "absent", "arrived", "unmatched", "unmatched"]
        assert await events(system, "OccurrenceSkipped") == [], "nothing was missed"


async def test_a_heartbeat_that_stops_is_noticed_once(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        alive = {"within": "1m", "after": {"stream": "beats"}}
        await old(system, "alarm", key="${data.host}", absent=alive)
        await add(system, "beats", *((n * 20, {"host": "a", "n": n}) for n in range(10)))
        async with an_intake(system):
            (run,) = await runs(system, 1)
            await all_decided(system)
        assert run.data["input"] == {"host": "a", "n": 9}
        assert len(await events(system, "RunRequested")) == 1


async def test_the_absence_of_what_has_not_been_read_yet_is_no_absence(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def idle(self: Windows, stop: asyncio.Event) -> None:
        await stop.wait()

    unpaid = {"within": "30s", "after": {"stream": "orders"}, "expected": {"stream": "payments.*"}}
    async with a_system(database_url, redis_url) as system:
        await old(system, "remind", key="${data}", absent=unpaid)
        await add(system, "orders", (0, 1))
        with monkeypatch.context() as patched:
            patched.setattr(Windows, "run", idle)
            async with an_intake(system):
                await eventually(lambda: events(system, "EventCollected"), timeout=20)
        # Nobody reads now, and the stream is new: only its name is on a pattern.
        await add(system, "payments.eu", (5, 1))
        await settle(system)
        (row,) = (await table(system)).values()
        assert row.window is not None and row.window.due_at < system.time.now()
        async with an_intake(system):
            await all_decided(system)
        assert [event.data["reason"] for event in await events(system, "WindowClosed")] == ["arrived"]
        assert await events(system, "RunRequested") == []


async def test_the_log_s_own_events_are_parts_too(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        forgotten = {
            "within": "2s",
            "after": {"event": "TaskPaused", "input": "${data.task}"},
            "expected": {"event": "TaskResumed"},
        }
        await listen(system, "remind", key="${data.task}", absent=forgotten)
        one, other = await listen(system, "one"), await listen(system, "other")
        one = await happen(system, one, task.pause(one, None))
        await happen(system, other, task.pause(other, None))
        await happen(system, one, task.resume(one))
        async with an_intake(system):
            (run,) = await runs(system, 1)
            await all_decided(system)
        assert (run.data["input"], run.data["depth"]) == ("other", 1)
        assert len(await events(system, "RunRequested")) == 1


async def test_an_entry_may_be_several_parts_but_has_one_key(database_url: str, redis_url: str) -> None:
    both = {
        "within": "1m",
        "events": [
            {"name": "big", "where": "data.n > `1`"},
            {"name": "odd", "where": "data.odd", "key": "${data.k}"},
        ],
    }
    async with a_system(database_url, redis_url) as system:
        await listen(system, "both", key="${data.id}", all_of=both)
        for n, k in ((1, "1"), (3, "1"), (5, "other")):
            await system.redis.xadd("orders", {"data": f'{{"n":{n},"odd":true,"id":"1","k":"{k}"}}'})
        async with an_intake(system):
            (run,) = await runs(system, 1)
            (rejected,) = await eventually(lambda: events(system, "EventRejected"), timeout=20)
            await all_decided(system)
        assert (
            run.data["input"]["big"] == run.data["input"]["odd"] == {"n": 3, "odd": True, "id": "1", "k": "1"}
        )
        assert "different keys: '1' and 'other'" in rejected.data["reason"]
        collected = await events(system, "EventCollected")
        assert [event.data["parts"] for event in collected] == [["odd"], ["big", "odd"]]
        assert await skipped(system) == {"superseded": [{"odd": {"n": 1, "odd": True, "id": "1", "k": "1"}}]}


async def test_each_event_is_decided_on_once_however_often_the_process_is_cut_off(
    database_url: str, redis_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    async with a_system(database_url, redis_url) as system:
        await old(system, "ship", key="${data.k}", sequence=ORDER_PAID | {"events": [
            {"name": "placed", "stream": "orders", "input": "${data.n}"},
            {"name": "paid", "stream": "payments", "input": "${data.n}"},
        ]})  # fmt: skip
        for stream, first in (("orders", 0), ("payments", 0.25)):
            entries = [(first + n / 2, {"k": str(chance.randrange(5)), "n": n}) for n in range(150)]
            await add(system, stream, *entries)
        await collect_some(system, 150)
        await cut_off(system, chance, times=15)
        async with an_intake(system), an_intake(system):
            await all_decided(system)
        collected_events = await events(system, "EventCollected")
        assert len(collected_events) == 300
        started = [
            (cause["stream"], cause["id"])
            for run in await events(system, "RunRequested")
            for cause in run.data["cause"]["events"]
        ]
        left = [
            (event.data["cause"]["stream"], event.data["cause"]["id"])
            for event in await events(system, "OccurrenceSkipped")
        ]
        assert len(started) > 20
        expected = [(one.data["cause"]["stream"], one.data["cause"]["id"]) for one in collected_events]
        assert sorted(started + left) == sorted(expected)


async def test_a_task_whose_parts_change_decides_anew_from_then_on(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        alive = {"within": "1h", "after": {"stream": "orders"}}
        state = await listen(system, "alarm", absent=alive)
        await system.redis.xadd("orders", {"data": "1"})
        async with an_intake(system):
            await eventually(lambda: events(system, "EventCollected"), timeout=20)
            document = {"name": "alarm", "pipeline": [{"id": "echo", "uses": "debug.echo"}]}
            document["on"] = {"stream": "orders", "batch": {"size": 1, "time": "1h"}}  # type: ignore[assignment]
            now = system.time.now()
            definition = parse_definition(document, created_at=now, known_tools=None)
            changed = task.change(state, definition.normalised(), [], "")
            await happen(system, state, changed)
            await system.redis.xadd("orders", {"data": "2"})
            (run,) = await runs(system, 1)
            await all_decided(system)
        assert run.data["input"] == [2]
        assert await skipped(system) == {"changed": [{"after": 1, "expected": 1}]}


async def test_what_waits_for_several_events_is_shown_by_part(database_url: str, redis_url: str) -> None:
    async with running_api(database_url, redis_url) as api:
        body = {"pipeline": PIPELINE, "on": {"key": "${data}", "sequence": ORDER_PAID | {"events": [
            {"name": "placed", "stream": "orders"}, {"name": "paid", "event": "RunFailed"},
        ]}}}  # fmt: skip
        answer = await api.http.put("/v1/tasks/ship", json=body)
        assert answer.status_code == 201, answer.text
        await api.http.post("/v1/events", json={"stream": "orders", "data": "a"})
        await settle(api.system)
        (item,) = (await api.http.get("/v1/windows")).json()["items"]
        assert (item["pattern"], item["count"], item["parts"]) == ("sequence", 1, {"placed": 1, "paid": 0})
        env = {"ORDINAUT_URL": api.url, "ORDINAUT_API_KEY": KEY, "ORDINAUT_DATABASE_URL": database_url}
        shown = await asyncio.to_thread(ordinaut, "window", "list", env=env)
        assert "sequence" in shown.stdout and "placed 1" in shown.stdout, shown.stdout
        listed = await asyncio.to_thread(ordinaut, "task", "list", env=env)
        assert "sequence of orders, RunFailed" in " ".join(listed.stdout.split()), listed.stdout


async def test_a_run_of_several_events_says_which_they_were(database_url: str, redis_url: str) -> None:
    async with running_api(database_url, redis_url) as api:
        body = {"pipeline": PIPELINE, "on": {"key": "${data.id || data.order}", "all_of": ORDER_PAID}}
        assert (await api.http.put("/v1/tasks/ship", json=body)).status_code == 201
        await api.http.post("/v1/events", json={"stream": "orders", "data": {"id": "a", "n": 1}})
        await api.system.redis.xadd("payments", {"data": '{"order": "a", "n": 2}'})
        async with an_intake(api.system):
            (run,) = await runs(api.system, 1)
        env = {"ORDINAUT_URL": api.url, "ORDINAUT_API_KEY": KEY, "ORDINAUT_DATABASE_URL": database_url}
        env["ORDINAUT_REDIS_URL"] = redis_url
        told = await asyncio.to_thread(ordinaut, "run", "why", run.stream.removeprefix("run-"), env=env)
        first, second = (each["id"] for each in run.data["cause"]["events"])
        lines = [line.strip() for line in told.stdout.splitlines()]
        assert f"placed: orders {first}" in lines and f"paid: payments {second}" in lines, told
        assert "2 events collected by all_of ended as complete" in told.stdout
        assert "ship collected it as paid" in told.stdout
        assert lines[-1] == f"because  the entry {second} was added to the Redis stream payments", told
        checked = await asyncio.to_thread(ordinaut, "doctor", env=env)
        assert "stream payments" in checked.stdout, checked


async def test_what_is_expected_arrives_at_a_paused_task_too(database_url: str, redis_url: str) -> None:
    unpaid = {"within": "3s", "after": {"stream": "orders"}, "expected": {"stream": "payments"}}
    async with a_system(database_url, redis_url) as system:
        state = await listen(system, "remind", key="${data}", absent=unpaid)
        async with an_intake(system):
            await system.redis.xadd("orders", {"data": "1"})
            await eventually(lambda: events(system, "EventCollected"), timeout=20)
            state = await happen(system, state, task.pause(state, None))
            await system.redis.xadd("orders", {"data": "2"})
            await system.redis.xadd("payments", {"data": "1"})
            await eventually(lambda: events(system, "WindowClosed"), timeout=20)
            await happen(system, state, task.resume(state))
            await all_decided(system)
        assert [one.data["reason"] for one in await events(system, "WindowClosed")] == ["arrived"]
        assert [one.data["reason"] for one in await events(system, "OccurrenceSkipped")] == ["paused"]
        assert await events(system, "RunRequested") == []


@pytest.mark.parametrize(
    "on",
    [{"absent": {"within": "2s", "after": {}}}, {"debounce": {"quiet": "2s"}}, {"batch": {"time": "2s"}}],
)
async def test_a_task_made_anew_has_no_run_for_what_the_one_before_collected(
    database_url: str, redis_url: str, on: dict[str, Any]
) -> None:
    async with a_system(database_url, redis_url) as system:
        state = await listen(system, "again", key="${data}", **on)
        async with an_intake(system):
            await system.redis.xadd("orders", {"data": "1"})
            await eventually(lambda: events(system, "EventCollected"), timeout=20)
            await happen(system, state, task.retire(state, None))
            await listen(system, "again", key="${data}", **on)
            await system.redis.xadd("orders", {"data": "2"})
            (run,) = await runs(system, 1)
            await all_decided(system)
        assert run.data["cause"]["key"] == "2"
        assert len(await events(system, "RunRequested")) == 1
        (skipped_,) = await events(system, "OccurrenceSkipped")
        assert (skipped_.data["reason"], skipped_.data["cause"]["key"]) == ("retired", "1")
