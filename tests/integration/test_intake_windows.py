"""Tasks that collect events: one run for many, each event in exactly one, whatever is killed on the way."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from ordinaut.domain import task
from ordinaut.domain.definition import parse_definition
from ordinaut.domain.errors import Invalid
from ordinaut.domain.events import Event
from ordinaut.intake import windows
from ordinaut.intake.windows import Windows
from ordinaut.runtime.windows import rebuild
from tests.support.api import KEY, PIPELINE, running_api
from tests.support.commands import ordinaut
from tests.support.eventually import eventually
from tests.support.listening import a_system, an_intake, events, happen, listen
from tests.support.windows import (
    add,
    as_json,
    collect_some,
    cut_off,
    folded,
    old,
    read_everything,
    runs,
    settle,
    table,
)


async def test_a_debounced_task_has_one_run_for_the_last_of_many_events_of_a_key(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        debounce = {"quiet": "10s", "max_wait": "1m"}
        await old(system, "save", key="${data.doc}", input="${data.text}", debounce=debounce)
        texts = [(0, "a", "1"), (4, "b", "x"), (8, "a", "2"), (12, "a", "3"), (40, "a", "4")]
        await add(system, "orders", *((second, {"doc": doc, "text": text}) for second, doc, text in texts))
        async with an_intake(system):
            found = await runs(system, 3)
        assert sorted((run.data["cause"]["key"], run.data["input"]) for run in found) == [
            ("a", "3"), ("a", "4"), ("b", "x"),
        ]  # fmt: skip
        (first,) = [run for run in found if run.data["input"] == "3"]
        cause = first.data["cause"]
        assert (cause["kind"], cause["pattern"], cause["count"]) == ("window", "debounce", 3)
        assert [one["kind"] for one in cause["events"]] == ["stream"] * 3
        assert (datetime.fromisoformat(cause["to"]) - datetime.fromisoformat(cause["from"])).seconds == 12
        closed = {event.reference: event for event in await events(system, "WindowClosed")}
        assert closed[first.causation or ""].data["reason"] == "quiet"
        assert await table(system) == {}


async def test_a_batch_gives_its_run_the_list_of_what_came(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        await old(system, "load", input="${data.n}", batch={"size": 4, "time": "30s"})
        await add(system, "orders", *((n, {"n": n}) for n in range(10)))
        async with an_intake(system):
            found = await runs(system, 3)
        assert [run.data["input"] for run in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert [event.data["reason"] for event in await events(system, "WindowClosed")] == [
            "size",
            "size",
            "time",
        ]


@pytest.mark.parametrize(("keep", "started"), [("first", [0, 1, 6, 7]), ("last", [2, 3, 7, 8])])
async def test_a_throttled_task_runs_so_often_in_a_window_and_says_what_it_left_out(
    database_url: str, redis_url: str, keep: str, started: list[int]
) -> None:
    async with a_system(database_url, redis_url) as system:
        throttle = {"limit": 2, "window": "5s", "keep": keep}
        await old(system, "tell", input="${data.n}", throttle=throttle)
        await add(system, "orders", *((n, {"n": n}) for n in (0, 1, 2, 3, 6, 7, 8)))
        async with an_intake(system):
            found = await runs(system, 4)

            async def left_out() -> list[Event]:
                skipped = await events(system, "OccurrenceSkipped")
                assert len(skipped) == 3
                return skipped

            skipped = await eventually(left_out, timeout=20)
        assert sorted(run.data["input"] for run in found) == started
        assert {event.data["reason"] for event in skipped} == {"throttled"}
        assert {event.version for event in skipped} == {2}, "behind EventCollected, on the same stream"


async def test_each_event_is_in_one_run_however_often_the_process_is_cut_off(
    database_url: str, redis_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    async with a_system(database_url, redis_url) as system:
        await old(system, "load", key="${data.key}", input="${data.n}", batch={"size": 7, "time": "20s"})
        entries = [(n / 4, {"key": str(chance.randrange(5)), "n": n}) for n in range(300)]
        await add(system, "orders", *entries)
        await collect_some(system, 150)
        await cut_off(system, chance, times=15)
        async with an_intake(system), an_intake(system):

            async def all_of_them() -> list[Any]:
                inputs = [n for run in await events(system, "RunRequested") for n in run.data["input"]]
                assert len(inputs) >= 300
                return inputs

            inputs = await eventually(all_of_them, timeout=30)
        assert sorted(inputs) == list(range(300))
        assert await table(system) == {}


async def test_the_table_follows_from_the_log_and_can_be_made_anew(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        await listen(system, "wait", key="${data.key}", debounce={"quiet": "1h"})
        await listen(system, "keep", key="${data.key}", throttle={"limit": 1, "window": "1h"})
        for n in range(20):
            await system.redis.xadd("orders", {"data": as_json({"key": str(n % 3)})})
        async with an_intake(system):

            async def taken_in() -> bool:
                await settle(system)
                return len(await events(system, "EventCollected")) == 40 and len(await table(system)) == 6

            await eventually(taken_in, timeout=20)
        before = await table(system)
        assert before == await folded(system)
        env = {"ORDINAUT_DATABASE_URL": database_url, "ORDINAUT_REDIS_URL": redis_url}
        checked = await asyncio.to_thread(ordinaut, "window", "verify", env=env)
        assert (checked.returncode, checked.stdout) == (
            0, "6 windows are open by the log; of 0 the table says something else\n",
        ), checked.stderr  # fmt: skip
        await system.pool.execute("UPDATE windows SET positions = '{}', due_at = now()")
        wrong = await asyncio.to_thread(ordinaut, "window", "verify", env=env)
        assert wrong.returncode == 1 and "of 6 the table" in wrong.stdout, wrong
        assert all(f"{task_id} {key}" in wrong.stdout for task_id, key in before), wrong
        async with system.pool.acquire() as connection, connection.transaction():
            assert await rebuild(connection) == 6
        assert await table(system) == before


async def test_a_window_that_is_due_waits_for_what_the_stream_still_holds(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def idle(self: Windows, stop: asyncio.Event) -> None:
        await stop.wait()

    async with a_system(database_url, redis_url) as system:
        await old(system, "load", input="${data}", batch={"size": 100, "time": "60s"})
        await add(system, "orders", (0, 0))
        with monkeypatch.context() as patched:
            patched.setattr(Windows, "run", idle)
            async with an_intake(system):
                await eventually(lambda: events(system, "EventCollected"), timeout=20)
                await eventually(lambda: read_everything(system), timeout=20)
        await add(system, "orders", (30, 1))
        await settle(system)
        (row,) = (await table(system)).values()
        assert row.window is not None and row.window.due_at < system.time.now()
        assert await events(system, "RunRequested") == []
        async with an_intake(system):
            found = await runs(system, 1)
        assert [run.data["input"] for run in found] == [[0, 1]]


async def test_a_window_waits_for_no_key_that_has_become_something_else(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system):
        await listen(system, "load", batch={"size": 100, "time": "1s"})
        await system.redis.xadd("orders", {"data": "1"})
        await eventually(lambda: events(system, "EventCollected"))
        await system.redis.delete("orders")
        await system.redis.set("orders", "a text")
        (run,) = await runs(system, 1)
        assert run.data["input"] == [1]


async def test_windows_that_wait_for_their_stream_keep_no_others_waiting(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def idle(self: Windows, stop: asyncio.Event) -> None:
        await stop.wait()

    monkeypatch.setattr("ordinaut.intake.windows.BATCH", 5)
    async with a_system(database_url, redis_url) as system:
        minute = {"size": 100, "time": "60s"}
        await old(system, "waits", key="${data}", batch=minute)
        await old(system, "goes", stream="letters", key="${data}", batch=minute)
        await add(system, "orders", *((n, n) for n in range(12)))
        await add(system, "letters", *((20 + n, n) for n in range(12)))
        with monkeypatch.context() as patched:
            patched.setattr(Windows, "run", idle)
            async with an_intake(system):

                async def collected() -> bool:
                    return len(await events(system, "EventCollected")) == 24

                await eventually(collected, timeout=20)
                await eventually(lambda: read_everything(system), timeout=20)
        await add(system, "orders", (30, "unread"))
        await settle(system)
        assert [run.data["name"] for run in await events(system, "RunRequested")] == ["goes"] * 12
        waiting = await table(system)
        assert len(waiting) == 12
        async with an_intake(system):
            await runs(system, 25)


@pytest.mark.parametrize(
    "pattern",
    [
        {"debounce": {"quiet": "1s"}},
        {"batch": {"time": "1s"}},
        {"throttle": {"window": "1s"}},
        {"absent": {"within": "1s", "after": {"stream": "orders"}}, "key": "${data}"},
    ],
    ids=lambda pattern: next(iter(pattern)),
)
async def test_an_event_from_years_to_come_is_one_of_now(
    database_url: str, redis_url: str, pattern: dict[str, Any]
) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system):
        await listen(system, "far", **pattern)
        await system.redis.xadd("orders", {"data": "1"}, id="253402300799999-0")
        await system.redis.xadd("orders", {"data": "2"}, id="18446744073709551615-7")
        await runs(system, 1)
        await eventually(lambda: read_everything(system), timeout=20)

        async def over() -> bool:
            await settle(system)
            rows = await table(system)
            return all(row.window is None or not row.window.held for row in rows.values())

        await eventually(over, timeout=20)


@pytest.mark.parametrize("state", ["paused", "retired"])
async def test_a_window_of_a_task_that_may_not_run_ends_with_that_verdict(
    database_url: str, redis_url: str, state: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        held = await listen(system, "hold", batch={"size": 100, "time": "2s"})
        await system.redis.xadd("orders", {"data": "1"})
        async with an_intake(system):
            await eventually(lambda: events(system, "EventCollected"), timeout=20)
            change = task.pause(held, None) if state == "paused" else task.retire(held, None)
            await happen(system, held, change)
            (skipped,) = await eventually(lambda: events(system, "OccurrenceSkipped"), timeout=20)
        assert (skipped.data["reason"], skipped.data["cause"]["kind"]) == (state, "window")
        assert await events(system, "RunRequested") == []


async def test_the_log_s_own_events_are_collected_too(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        state = await listen(system, "often")
        await listen(
            system, "digest", event="TaskPaused", input="${data.task}", batch={"size": 3, "time": "1h"}
        )
        for _ in range(3):
            state = await happen(system, state, task.pause(state, None))
            state = await happen(system, state, task.resume(state))
        async with an_intake(system):
            (run,) = await runs(system, 1)
        assert run.data["input"] == ["often"] * 3
        assert run.data["depth"] == 1


async def test_a_key_that_names_nothing_is_a_rejection(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        await listen(system, "save", key="${data.doc}", debounce={"quiet": "1s"})
        for data in ({}, {"doc": "x" * 600}):
            await system.redis.xadd("orders", {"data": as_json(data)})
        async with an_intake(system):

            async def both() -> Sequence[Event]:
                rejected = await events(system, "EventRejected")
                assert len(rejected) == 2
                return rejected

            rejected = await eventually(both, timeout=20)
        reasons = [event.data["reason"] for event in rejected]
        assert any("names nothing" in one for one in reasons) and any("512" in one for one in reasons)


async def test_open_windows_are_shown_over_http_and_by_the_command(database_url: str, redis_url: str) -> None:
    async with running_api(database_url, redis_url) as api:
        body = {"pipeline": PIPELINE, "on": {"stream": "docs", "key": "${data}", "debounce": {"quiet": "1h"}}}
        assert (await api.http.put("/v1/tasks/save", json=body)).status_code == 201
        for key in ("a", "b", "a"):
            answer = await api.http.post("/v1/events", json={"stream": "docs", "data": key})
            assert (answer.status_code, answer.json()["runs"]) == (202, [])
        await settle(api.system)
        page = (await api.http.get("/v1/windows", params={"limit": 1})).json()
        (first,) = page["items"]
        assert (first["task"], first["key"], first["pattern"], first["count"]) == ("save", "a", "debounce", 2)
        assert datetime.fromisoformat(first["due_at"]) > datetime.fromisoformat(first["to"])
        rest = (await api.http.get("/v1/windows", params={"after": page["next"], "task": "save"})).json()
        assert [(each["key"], each["count"]) for each in rest["items"]] == [("b", 1)]
        assert (await api.http.get("/v1/windows", params={"task": "other"})).json()["items"] == []
        env = {"ORDINAUT_URL": api.url, "ORDINAUT_API_KEY": KEY, "ORDINAUT_DATABASE_URL": database_url}
        env["ORDINAUT_REDIS_URL"] = redis_url
        shown = await asyncio.to_thread(ordinaut, "window", "list", env=env)
        assert shown.returncode == 0 and "debounce" in shown.stdout, shown.stderr
        again = await asyncio.to_thread(ordinaut, "window", "rebuild", env=env)
        assert "2 windows are open" in again.stdout, again.stderr


@pytest.mark.parametrize(
    ("on", "pointer", "told"),
    [
        ({"key": "${data.x}"}, "/on/key", "add debounce, batch, throttle, sequence, all_of or absent"),
        ({"debounce": {"quiet": "1s"}, "batch": {"time": "1s"}}, "/on/batch", "does not go with 'debounce'"),
        ({"debounce": {}}, "/on/debounce/quiet", "is missing"),
        ({"batch": {"time": "1s", "size": 0}}, "/on/batch/size", "greater than or equal to 1"),
        ({"throttle": {"window": "1s", "keep": "some"}}, "/on/throttle/keep", "'first' or 'last'"),
        ({"throttle": {"windw": "1s"}}, "/on/throttle/window", "is missing"),
        ({"batch": {"time": "1s"}, "key": "${steps.x}"}, "/on/key", "names nothing"),
        ({"batch": {"time": "soon"}}, "/on/batch/time", "90s"),
    ],
)
def test_a_wrong_pattern_is_told_with_its_place(on: dict[str, Any], pointer: str, told: str) -> None:
    document = {"name": "t", "on": {"stream": "s", **on}, "pipeline": [{"id": "say", "uses": "debug.echo"}]}
    with pytest.raises(Invalid) as caught:
        parse_definition(document, created_at=datetime.now(UTC), known_tools=None)
    assert any(
        fault.pointer == pointer and told in f"{fault.message} {fault.hint}" for fault in caught.value.faults
    ), caught.value.faults


async def test_large_events_make_runs_that_can_be_stored(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "ENOUGH_BYTES", 1)  # so that each transaction ends one window at the most
    async with a_system(database_url, redis_url) as system:
        await old(system, "all", batch={"time": "1h"}, key="${data[0]}", input="${data[1]}")
        await old(system, "save", debounce={"quiet": "1h"}, key="${data[0]}", input="${data[1]}")
        large = "x" * 1_000_000
        await add(system, "orders", *((n, [n % 2, large]) for n in range(20)))
        async with an_intake(system):
            found = await runs(system, 6)
        sizes = [len(run.data["input"]) for run in found if run.data["name"] == "all"]
        assert sorted(sizes) == [2, 2, 8, 8]
        assert [run.data["input"] for run in found if run.data["name"] == "save"] == [large] * 2
        assert await table(system) == await folded(system) == {}


@pytest.mark.parametrize("on", [{"batch": {"time": "366d"}}, {"absent": {"within": "366d", "after": {}}}])
async def test_an_event_at_the_end_of_all_time_stops_nothing(
    database_url: str, redis_url: str, on: dict[str, Any]
) -> None:
    async with a_system(database_url, redis_url) as system:
        await listen(system, "far", **on)
        await listen(system, "near", "others", batch={"time": "1h", "size": 1})
        await system.redis.xadd("orders", {"data": "1"}, id="18446744073709551614-1")
        await system.redis.xadd("orders", {"data": "1"}, id="18446744073709551615-1")
        async with an_intake(system):

            async def collected() -> bool:
                return len(await events(system, "EventCollected")) == 2

            await eventually(collected, timeout=20)
            await system.redis.xadd("others", {"data": "2"})
            (run,) = await runs(system, 1)
        assert run.data["input"] == [2]
        assert await table(system) == await folded(system)
