"""POST /v1/triggers/test of triggers that collect events: what the windows would have held, and the runs."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest

from ordinaut.domain import windows
from ordinaut.domain.ids import task_id
from ordinaut.runtime import rehearsed_windows
from ordinaut.runtime.keys import issue_key
from tests.support.api import PIPELINE, Served, pointers, problem, running_api
from tests.support.eventually import eventually
from tests.support.listening import an_intake, events, listen
from tests.support.windows import BEGIN, add, old, read_everything, table

KINDS: dict[str, dict[str, Any]] = {
    "debounce": {"debounce": {"quiet": "7s", "max_wait": "20s"}},
    "batch": {"batch": {"size": 4, "time": "15s"}},
    "first": {"throttle": {"limit": 2, "window": "10s"}},
    "last": {"throttle": {"limit": 1, "window": "10s", "keep": "last"}},
    "sequence": {
        "sequence": {
            "within": "15s",
            "events": [
                {"name": "placed", "stream": "orders", "where": "data.n != `7`", "input": "${data.n}"},
                {"name": "paid", "stream": "payments", "input": "${data}"},
            ],
        }
    },
    "all_of": {
        "all_of": {
            "within": "9s",
            "events": [{"name": "a"}, {"name": "b", "stream": "payments"}],
        },
        "stream": "orders",
    },
    "absent": {
        "absent": {
            "within": "5s",
            "after": {"stream": "orders", "input": "${data.n}"},
            "expected": {"stream": "payments"},
        }
    },
}
COLLECTED = ("sequence", "all_of", "absent")


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url, poll_seconds=0.1) as served:
        yield served


def trigger(kind: str, **more: Any) -> dict[str, Any]:
    single = {} if kind in COLLECTED else {"stream": "orders", "input": "${data.n}"}
    return single | {"key": "${data.key}"} | KINDS[kind] | more


async def tried(api: Served, on: dict[str, Any], **more: Any) -> Any:
    body = {"definition": {"name": "ship", "on": on, "pipeline": PIPELINE}, **more}
    answer = await api.http.post("/v1/triggers/test", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def some_entries(api: Served, chance: random.Random) -> None:
    for stream in ("orders", "payments"):
        seconds = sorted(chance.uniform(0, 200) for _ in range(60))
        given = [(at, {"key": chance.choice("xyz"), "n": n}) for n, at in enumerate(seconds)]
        await add(api.system, stream, *given)


def told(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


@pytest.mark.parametrize("kind", KINDS)
async def test_it_says_which_runs_come_of_the_windows_that_intake_then_fills(
    api: Served, kind: str, seed: int
) -> None:
    await some_entries(api, random.Random(seed))
    position = await api.system.pool.fetchval("SELECT position FROM log_head")
    found = await tried(api, trigger(kind), limit=500)
    assert await api.system.pool.fetchval("SELECT position FROM log_head") == position
    assert await api.system.redis.exists("orders") and not await api.system.redis.xinfo_groups("orders")
    held = found["windows"]["items"]
    assert found["windows"]["left_off"] == 0 and found["counts"]["open"] == 0
    assert found["counts"]["entries"] == (120 if kind in COLLECTED else 60)

    task = await old(api.system, "ship", **trigger(kind))
    assert task.id == task_id("default", "ship")
    async with an_intake(api.system):

        async def done() -> bool:
            rows = await table(api.system)
            waiting = [row for row in rows.values() if row.window and row.window.held]
            read = await read_everything(api.system)
            runs = len(await events(api.system, "RunRequested"))
            return read and not waiting and runs >= found["counts"]["runs"]

        await eventually(done, timeout=20)
    runs = await events(api.system, "RunRequested")
    expected = [(window["key"], told(run["input"])) for window in held for run in window["runs"]]
    assert sorted((run.data["cause"]["key"], told(run.data["input"])) for run in runs) == sorted(expected)
    assert found["counts"]["runs"] == len(runs) > 3
    skipped = await events(api.system, "OccurrenceSkipped")
    dropped = Counter(each["reason"] for window in held for each in window["dropped"])
    assert Counter(event.data["reason"] for event in skipped) == dropped
    assert sum(dropped.values()) == found["counts"]["dropped"]
    if kind != "first":  # whose windows hold nothing
        closed = [event.data for event in await events(api.system, "WindowClosed")]
        names = ("key", "reason", "count", "from", "to")
        assert sorted(told([one[name] for name in names]) for one in closed) == sorted(
            told([one[name] for name in names]) for one in held
        )


async def test_a_batch_of_too_many_bytes_ends_where_intake_ends_it(
    api: Served, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(windows, "MOST_BYTES", 300)
    given = [{"key": "x", "n": {"ä": ["é" * chance.randrange(60), n, None]}} for n in range(40)]
    await add(api.system, "orders", *((n / 10, data) for n, data in enumerate(given)))
    on = trigger("batch", batch={"size": 100, "time": "1m"})
    found = await tried(api, on)
    await old(api.system, "ship", **on)
    async with an_intake(api.system):

        async def done() -> bool:
            return len(await events(api.system, "RunRequested")) >= found["counts"]["runs"]

        await eventually(done, timeout=20)
    runs = [told(run.data["input"]) for run in await events(api.system, "RunRequested")]
    assert runs == [told(run["input"]) for one in found["windows"]["items"] for run in one["runs"]]
    assert len(runs) > 5
    assert {one["reason"] for one in found["windows"]["items"][:-1]} == {"size"}


async def test_a_window_tells_its_entries_its_runs_and_what_it_left_out(api: Served) -> None:
    await add(api.system, "orders", *((n, {"key": "x", "n": n}) for n in (0, 1, 2, 20)))
    ids = [entry_id.decode() for entry_id, _ in await api.system.redis.xrange("orders")]
    entries = [{"source": "orders", "id": entry_id} for entry_id in ids]
    found = await tried(api, trigger("last"))
    first, second = found["windows"]["items"]
    at = [(BEGIN + timedelta(seconds=n)).isoformat() for n in (0, 2, 10)]
    assert first == {
        "key": "x", "pattern": "throttle", "from": at[0], "to": at[1], "count": 3, "reason": "window",
        "ended_at": at[2], "due_at": None, "entries": entries[:3],
        "runs": [{"count": 1, "entries": entries[2:3], "input": 2}],
        "dropped": [{**one, "reason": "throttled"} for one in entries[:2]], "dropped_count": 2,
    }  # fmt: skip
    assert [run["input"] for run in second["runs"]] == [20]
    assert found["counts"] == {
        "entries": 4, "match": 4, "none": 0, "error": 0, "runs": 2, "windows": 2, "open": 0, "dropped": 2,
    }  # fmt: skip
    assert (found["from_time"], found["from"], found["to"]) == (at[0], ids[0], ids[-1])
    assert [one["run"] for one in found["items"]] == [None] * 4


async def test_what_is_not_over_by_now_is_open_and_says_when_it_is_due(api: Served) -> None:
    await api.system.redis.xadd("orders", {"data": '{"key": "x", "n": 1}'})
    await api.system.redis.xadd("orders", {"data": '{"key": "y", "n": 2}'})
    found = await tried(api, trigger("debounce", debounce={"quiet": "1h"}))
    assert (found["counts"]["open"], found["counts"]["windows"], found["counts"]["runs"]) == (2, 0, 0)
    (first, second) = found["windows"]["items"]
    assert (first["key"], first["reason"], first["ended_at"], first["runs"]) == ("x", None, None, [])
    due, to = datetime.fromisoformat(first["due_at"]), datetime.fromisoformat(first["to"])
    assert due - to == timedelta(hours=1) and second["due_at"] >= first["due_at"]


async def test_the_parts_of_a_pattern_come_from_all_their_streams_and_from_the_log(api: Served) -> None:
    for stream, data in (
        ("orders", {"key": "bill", "n": 1}),
        ("orders", {"key": "other", "n": 2}),
        ("payments", {"key": "bill", "n": 3}),
    ):
        await api.system.redis.xadd(stream, {"data": told(data)})
    await listen(api.system, "bill", stream="elsewhere")
    on = {
        "key": "${data.key}",
        "sequence": {
            "within": "1h",
            "events": [
                {"name": "placed", "stream": "orders", "input": "${data.n}"},
                {"name": "paid", "stream": "pay*", "input": "${data.n}"},
                {"name": "made", "event": "TaskCreated", "key": "${data.name}", "input": "${data.name}"},
            ],
        },
    }
    found = await tried(api, on)
    assert found["sources"] == [
        {"kind": "stream", "stream": "orders"}, {"kind": "stream", "stream": "pay*"},
        {"kind": "event", "event": "TaskCreated"},
    ]  # fmt: skip
    assert (found["from"], found["to"]) == (None, None)
    assert [one["source"] for one in found["items"]] == ["orders", "orders", "payments", "TaskCreated"]
    (run,) = [run for one in found["windows"]["items"] for run in one["runs"]]
    assert run["input"] == {"placed": 1, "paid": 3, "made": "bill"}
    assert run["parts"]["paid"]["source"] == "payments"
    alone = await tried(api, on, stream="payments")
    assert alone["counts"]["entries"] == 1 and alone["counts"]["runs"] == 0
    refused = await api.http.post(
        "/v1/triggers/test",
        json={"definition": {"name": "ship", "on": on, "pipeline": PIPELINE}, "from": "1-0"},
    )
    assert pointers(refused) == ["/from"] and "listens to several" in refused.text


async def test_the_newest_of_each_stream_are_looked_at_as_far_back_as_there_are_some_of_all(
    api: Served,
) -> None:
    await add(api.system, "orders", *((n, {"key": "x", "n": n}) for n in range(300)))
    await add(api.system, "payments", *((n * 10, {"key": "x", "n": n}) for n in range(30)))
    found = await tried(api, trigger("sequence"), last=20, limit=500)
    assert found["from_time"] == (BEGIN + timedelta(seconds=280)).isoformat()
    assert Counter(one["source"] for one in found["items"]) == {"orders": 20, "payments": 2}
    assert found["counts"]["runs"] == 2


async def test_another_pattern_is_held_beside_the_one_in_force(api: Served) -> None:
    await add(api.system, "orders", *((n, {"key": "x", "n": n}) for n in range(12)))
    await old(api.system, "ship", **trigger("batch"))
    found = await tried(api, trigger("batch", batch={"size": 6, "time": "1h"}))
    assert (found["counts"]["runs"], found["counts"]["runs_now"], found["compared_with"]) == (2, 3, 1)
    plain = await tried(api, {"stream": "orders"})
    assert (plain["counts"]["runs"], plain["counts"]["runs_now"], plain["windows"]) == (12, 3, None)


async def test_windows_beyond_what_is_listed_are_counted(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(api.system, "orders", *((n, {"key": str(n), "n": "x" * 100}) for n in range(30)))
    on = trigger("batch")
    found = await tried(api, on, limit=7)
    assert (len(found["windows"]["items"]), found["windows"]["left_off"]) == (7, 23)
    assert found["counts"]["runs"] == found["counts"]["windows"] == 30
    monkeypatch.setattr(rehearsed_windows, "MOST_KEPT_BYTES", 1000)
    found = await tried(api, on)
    assert 0 < len(found["windows"]["items"]) < 30 and found["counts"]["runs"] == 30


async def test_a_reader_tries_a_pattern_of_streams_only_where_his_space_hears_all_of_them(
    api: Served,
) -> None:
    await add(api.system, "orders", (0, {"key": "x", "n": 1}))
    await old(api.system, "narrow", stream="ord*")
    _, reader = await issue_key(api.system, space="default", agent="rita", role="reader")
    body = {"definition": {"name": "new", "on": {"stream": "*"}, "pipeline": PIPELINE}}
    async with api.client(reader) as mine:
        problem(await mine.post("/v1/triggers/test", json=body), 403)
        await old(api.system, "wide", stream="*")
        assert (await mine.post("/v1/triggers/test", json=body)).json()["counts"]["match"] == 1
