"""Replays: which entries they are of, and what is refused."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from ordinaut.domain.ids import new_id
from ordinaut.domain.planned import Replayed, Source
from ordinaut.runtime import replay
from ordinaut.runtime.keys import issue_key
from ordinaut.runtime.reach import Hearing, Reach
from tests.support.api import PIPELINE, Served, pointers, problem, running_api
from tests.support.listening import listen
from tests.support.replaying import add, replayed


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url, poll_seconds=0.1) as served:
        yield served


@pytest.fixture
def redis(api: Served) -> Redis:
    return api.system.redis


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({"stream": ""}, "/stream", "name a stream"),
        ({"stream": "nowhere"}, "/stream", "no stream 'nowhere'"),
        ({"stream": "a-list"}, "/stream", "something else than a stream"),
        ({"stream": "ordinaut:log"}, "/stream", "the system's own"),
        ({"stream": "orders", "log": True}, "/stream", "no event of the stream"),
        ({"stream": "orders", "from": "yesterday"}, "/from", "not the id of an entry"),
        ({"stream": "orders", "from": "1-2-3"}, "/from", "not the id of an entry"),
        ({"stream": "orders", "from": "01-0"}, "/from", "not the id of an entry"),
        ({"stream": "orders", "to": f"{2**64}"}, "/to", "not the id of an entry"),
        ({"stream": "orders", "to": "١"}, "/to", "not the id of an entry"),
        ({"stream": "orders", "from": "2-0", "to": "1"}, "/from", "comes behind `to`"),
        ({"stream": "orders", "log": True, "from": "1-0"}, "/from", "not the id of an entry"),
        ({"stream": "orders", "max_parallel": 0}, "/max_parallel", "whole number"),
        ({"stream": "orders", "order": "up"}, "/order", "not known"),
        ({"stream": "orders", "form": "1-0"}, "/form", "there is no field"),
        ({"stream": "other"}, "/stream", "does not listen to 'other'"),
    ],
)  # fmt: skip
async def test_what_cannot_be_replayed_is_refused_with_its_place(
    api: Served, redis: Redis, body: dict[str, Any], pointer: str, words: str
) -> None:
    await listen(api.system, "ship")
    await listen(api.system, "any", "*")
    await add(redis, 1)
    await redis.lpush("a-list", "1")
    name = "any" if body.get("stream") in ("nowhere", "a-list") else "ship"
    answer = await api.http.post(f"/v1/tasks/{name}/replay", json=body)
    problem(answer, 422)
    assert pointers(answer) == [pointer] and words in answer.json()["errors"][0]["detail"]


async def test_ids_without_a_sequence_take_the_whole_millisecond(api: Served, redis: Redis) -> None:
    await listen(api.system, "ship")
    for entry in ("5-0", "5-1", "6-0", "7-0", "7-3"):
        await redis.xadd("orders", {"data": "1"}, id=entry)
    plan = await replayed(api, 200, dry_run=True, **{"from": "5-1", "to": "7"})
    assert [one["id"] for one in plan["items"]] == ["5-1", "6-0", "7-0", "7-3"]
    plan = await replayed(api, 200, dry_run=True, **{"from": "6", "to": "6"})
    assert [one["id"] for one in plan["items"]] == ["6-0"]
    assert (await replayed(api, 200, dry_run=True, **{"from": "8"}))["items"] == []
    done = await replayed(api, **{"from": "8"})
    assert done["state"] == "finished" and done["counts"]["entries"] == 0


async def test_events_that_are_not_of_the_stream_bound_nothing(api: Served) -> None:
    sent = [
        (await api.http.post("/v1/events", json={"stream": stream, "data": 1})).json()["id"]
        for stream in ("orders", "other", "orders")
    ]
    await listen(api.system, "ship")
    for unknown in (sent[1], new_id()):
        answer = await api.http.post(
            "/v1/tasks/ship/replay", json={"stream": "orders", "log": True, "from": unknown}
        )
        assert pointers(answer) == ["/from"]
    backwards = {"stream": "orders", "log": True, "from": sent[2], "to": sent[0]}
    assert pointers(await api.http.post("/v1/tasks/ship/replay", json=backwards)) == ["/from"]


async def test_more_than_a_plan_holds_is_refused_with_where_to_cut(
    api: Served, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await listen(api.system, "ship")
    added = await add(redis, *range(250))
    definition = await api.system.tasks.definition(state.id, state.version)
    hearing, reach = Hearing(state, definition), Reach((Source("stream", "orders"),))

    async def found(most: int) -> list[Replayed]:
        return await replay.past_entries(api.system, hearing, reach, rerun=False, most=most)

    assert [one.id for one in await found(250)] == added
    with pytest.raises(replay.Invalid, match=f"the first 220 end with {added[219]}"):
        await found(220)
    monkeypatch.setattr(replay, "MOST_INPUT_BYTES", 1000)
    with pytest.raises(replay.Invalid, match="end before"):
        await found(250)


async def test_a_task_that_collects_events_is_not_replayed_entry_by_entry(api: Served, redis: Redis) -> None:
    await listen(api.system, "ship", batch={"time": "1h"})
    await add(redis, 1)
    answer = await api.http.post("/v1/tasks/ship/replay", json={"stream": "orders"})
    assert pointers(answer) == ["/stream"]
    (error,) = answer.json()["errors"]
    assert "collects events (batch)" in error["detail"] and "ordinaut trigger test" in answer.text


async def test_a_retired_task_an_unknown_one_and_one_that_listens_to_nothing_are_refused(
    api: Served, redis: Redis
) -> None:
    await add(redis, 1)
    assert (await api.http.post("/v1/tasks/none/replay", json={"stream": "orders"})).status_code == 404
    await api.http.post("/v1/tasks", json={"name": "tick", "schedule": {"every": "1d"}, "pipeline": PIPELINE})
    answer = await api.http.post("/v1/tasks/tick/replay", json={"stream": "orders"})
    assert pointers(answer) == ["/stream"]
    await listen(api.system, "ship")
    assert (await api.http.delete("/v1/tasks/ship")).status_code == 200
    assert (await api.http.post("/v1/tasks/ship/replay", json={"stream": "orders"})).status_code == 404


async def test_a_reader_may_not_replay_and_another_space_sees_neither_task_nor_events(api: Served) -> None:
    await listen(api.system, "ship")
    await api.http.post("/v1/events", json={"stream": "orders", "data": 1})
    _, reader = await issue_key(api.system, space="default", agent="eve", role="reader")
    async with api.client(reader) as http:
        assert (await http.post("/v1/tasks/ship/replay", json={"stream": "orders"})).status_code == 403
    _, other = await issue_key(api.system, space="other", agent="olga", role="operator")
    await listen(api.system, "ship", space="other")
    async with api.client(other) as http:
        answer = await http.post("/v1/tasks/ship/replay", json={"stream": "orders", "log": True})
        assert pointers(answer) == ["/stream"]


async def test_while_redis_is_away_the_answer_is_that_it_is(api: Served, redis: Redis) -> None:
    await listen(api.system, "ship")
    await redis.connection_pool.disconnect()
    connection = redis.connection_pool.connection_kwargs
    kept = connection["port"]
    connection["port"] = 1
    try:
        problem(await api.http.post("/v1/tasks/ship/replay", json={"stream": "orders"}), 503)
    finally:
        connection["port"] = kept
