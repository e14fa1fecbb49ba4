"""Events over HTTP: batches, and CloudEvents in every content mode."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from ordinaut.runtime.keys import issue_key
from tests.support.api import PIPELINE, Served, pointers, problem, running_api

CLOUD: dict[str, Any] = {
    "specversion": "1.0", "id": "A1", "source": "/shop", "type": "order.placed", "data": {"amount": 7},
}  # fmt: skip
FORGET = "UPDATE idempotency_keys SET status = NULL, headers = NULL, body = NULL"


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url, projector=False) as served:
        yield served


async def listen(api: Served, name: str, stream: str = "orders", **on: Any) -> None:
    body = {"on": {"stream": stream, **on}, "pipeline": PIPELINE}
    answer = await api.http.put(f"/v1/tasks/{name}", json=body)
    assert answer.status_code == 201, answer.text


async def batch(api: Served, events: Any, **headers: str) -> httpx.Response:
    return await api.http.post("/v1/events:batch", json={"events": events}, headers=headers)


async def cloud(api: Served, event: Any, kind: str = "cloudevents", **more: Any) -> httpx.Response:
    headers = {"Content-Type": f"application/{kind}+json", **more.pop("headers", {})}
    return await api.http.post("/v1/events", content=json.dumps(event), headers=headers, params=more)


async def events(api: Served, *types: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = await api.http.get("/v1/log", params={"type": types, "after": after, "limit": 500})
        found += page.json()["items"]
        after = page.json()["next"]
    return found


# Batches


async def test_a_batch_is_answered_in_its_order(api: Served) -> None:
    await listen(api, "all")
    await listen(api, "big", where="data > `1`")
    answer = await batch(api, [{"stream": "orders", "data": n} for n in (1, 2)] + [{"stream": "else"}])
    assert answer.status_code == 202
    first, second, third = answer.json()["events"]
    assert (len(first["runs"]), len(second["runs"]), third["runs"]) == (1, 2, [])
    received = await events(api, "EventReceived")
    assert [one["stream"] for one in received] == [f"event-{one['id']}" for one in (first, second, third)]
    requested = await events(api, "RunRequested")
    assert {one["stream"] for one in requested} == {f"run-{run}" for run in first["runs"] + second["runs"]}
    assert int(answer.headers["Ordinaut-Position"]) == max(one["position"] for one in requested)


async def test_a_batch_is_one_commit(api: Served) -> None:
    await listen(api, "all")
    answer = await batch(api, [{"stream": "orders", "data": n} for n in range(400)])
    found = await events(api, "EventReceived", "RunRequested")
    assert len(found) == 800
    assert len({one["at"] for one in found}) == 1
    assert [len(one["runs"]) for one in answer.json()["events"]] == [1] * 400


async def test_a_batch_of_a_thousand_with_more_runs_than_fit_in_one_commit_is_whole(api: Served) -> None:
    for name in ("one", "two"):
        await listen(api, name)
    answer = await batch(api, [{"stream": "orders", "data": n, "id": str(n)} for n in range(1000)])
    assert answer.status_code == 202
    assert [len(one["runs"]) for one in answer.json()["events"]] == [2] * 1000
    received = await events(api, "EventReceived")
    assert len({one["at"] for one in received}) == 1
    assert len(await events(api, "RunRequested")) == 2000
    again = await batch(api, [{"stream": "orders", "data": n, "id": str(n)} for n in range(1000)])
    assert again.json() == answer.json()
    assert len(await events(api, "RunRequested")) == 2000


async def test_one_bad_event_and_none_is_published(api: Served) -> None:
    sent = [
        {"stream": "orders", "data": 1}, {"data": 1}, "x", {"stream": "ordinaut:log"},
        {"stream": "s", "dat": 1}, {"stream": "s", "id": 7},
    ]  # fmt: skip
    answer = await batch(api, sent)
    problem(answer, 422)
    places = ["/events/1/stream", "/events/2", "/events/3/stream", "/events/4/dat", "/events/5/id"]
    assert pointers(answer) == places
    assert await events(api, "EventReceived") == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/events"),
        ({"events": {}}, "/events"),
        ({"events": [{"stream": "s"}] * 1001}, "/events"),
        ({"events": [], "stream": "s"}, "/stream"),
        ({"events": [{"stream": "s", "data": "\u0000"}]}, "/events/0/data"),
    ],
)
async def test_a_bad_batch_is_refused_by_place(api: Served, body: Any, pointer: str) -> None:
    answer = await api.http.post("/v1/events:batch", json=body)
    problem(answer, 422)
    assert pointers(answer) == [pointer]


async def test_an_empty_batch_is_nothing(api: Served) -> None:
    answer = await batch(api, [])
    assert (answer.status_code, answer.json()) == (202, {"events": []})


async def test_an_event_with_a_name_of_its_own_counts_once_in_and_across_batches(api: Served) -> None:
    await listen(api, "all")
    named = {"stream": "orders", "data": 1, "id": "o-1"}
    single = (await api.http.post("/v1/events", json=named)).json()
    answer = await batch(api, [named, {"stream": "orders", "data": 2, "id": "o-2"}, named])
    first, other, twice = answer.json()["events"]
    assert first == twice == single != other
    assert len(await events(api, "RunRequested")) == 2
    same_name_elsewhere = await batch(api, [named | {"stream": "else"}])
    assert same_name_elsewhere.json()["events"][0]["id"] != single["id"]


async def test_i7_a_batch_whose_first_attempt_died_half_way_meets_the_same_events(api: Served) -> None:
    await listen(api, "all")
    headers = {"Idempotency-Key": "b1"}
    sent = [{"stream": "orders", "data": n} for n in range(3)]
    first = await batch(api, sent, **headers)
    replayed = await batch(api, sent, **headers)
    assert replayed.headers["Idempotency-Replayed"] == "true"
    await api.system.pool.execute(FORGET)
    again = await batch(api, sent, **headers)
    assert "Idempotency-Replayed" not in again.headers
    assert first.json() == replayed.json() == again.json()
    assert len({one["id"] for one in first.json()["events"]}) == 3
    assert len(await events(api, "EventReceived", "RunRequested")) == 6
    assert problem(await batch(api, sent[:2], **headers), 422)


async def test_many_who_send_overlapping_batches_at_once_agree(api: Served) -> None:
    await listen(api, "all")
    sent = [{"stream": "orders", "data": n, "id": f"o-{n}"} for n in range(20)]
    answers = await asyncio.gather(*[batch(api, sent[::step]) for step in (1, -1, 2, -2) * 3])
    by_name: dict[int, set[str]] = {}
    for step, answer in zip((1, -1, 2, -2) * 3, answers, strict=True):
        for event, one in zip(sent[::step], answer.json()["events"], strict=True):
            assert len(one["runs"]) == 1
            by_name.setdefault(event["data"], set()).add(one["id"])
    assert all(len(found) == 1 for found in by_name.values())
    assert len(await events(api, "EventReceived", "RunRequested")) == 40


async def test_a_reader_publishes_nothing(api: Served) -> None:
    _, key = await issue_key(api.system, space="default", agent="eye", role="reader")
    async with api.client(key) as http:
        problem(await http.post("/v1/events:batch", json={"events": []}), 403)


# CloudEvents


async def test_a_cloud_event_in_structured_mode_is_published_under_its_type(api: Served) -> None:
    await listen(api, "ship", "order.placed", where="event.source == '/shop'", input="${data.amount}")
    answer = await cloud(api, CLOUD)
    assert answer.status_code == 202
    (run,) = await events(api, "RunRequested")
    assert run["data"]["input"] == 7
    assert answer.json()["runs"] == [run["stream"].removeprefix("run-")]
    (received,) = await events(api, "EventReceived")
    assert (received["data"]["stream"], received["data"]["data"]) == ("order.placed", CLOUD)


async def test_the_stream_can_be_named_beside_a_cloud_event(api: Served) -> None:
    await listen(api, "ship")
    assert len((await cloud(api, CLOUD, stream="orders")).json()["runs"]) == 1
    bad = problem(await cloud(api, CLOUD, stream="ordinaut:log"), 400)
    assert bad["errors"][0]["parameter"] == "stream"  # type: ignore[index]
    problem(await cloud(api, CLOUD, steam="orders"), 400)


async def test_a_cloud_event_is_the_same_in_every_mode_and_counts_once(api: Served) -> None:
    await listen(api, "ship", "order.placed")
    first = await cloud(api, CLOUD)
    headers = {
        "ce-specversion": "1.0", "ce-id": "A1", "ce-source": "/shop", "ce-type": "order.placed",
        "Content-Type": "application/json",
    }  # fmt: skip
    second = await api.http.post("/v1/events", content=b'{"amount": 7}', headers=headers)
    third = await cloud(api, [CLOUD, CLOUD | {"id": "A2"}], "cloudevents-batch")
    assert first.json() == second.json() == third.json()["events"][0]
    assert len(await events(api, "RunRequested")) == 2
    for other in (CLOUD | {"source": "/other"}, CLOUD | {"type": "order.paid"}):
        assert (await cloud(api, other)).json()["id"] != first.json()["id"]


async def test_binary_mode_decodes_headers_and_takes_any_content(api: Served) -> None:
    await listen(api, "draw", "pic", input={"subject": "${event.subject}", "png": "${data}"})
    headers = {
        "CE-SpecVersion": "1.0", "CE-Id": "1", "ce-source": "/camera", "ce-type": "pic",
        "ce-subject": "Caf%C3%A9%20%E2%82%AC", "Content-Type": "image/png",
    }  # fmt: skip
    answer = await api.http.post("/v1/events", content=b"\x89PNG", headers=headers)
    assert answer.status_code == 202, answer.text
    (run,) = await events(api, "RunRequested")
    assert run["data"]["input"] == {"subject": "Café €", "png": "iVBORw=="}


async def test_what_is_wrong_with_a_cloud_event_is_told_by_header_or_pointer(api: Served) -> None:
    binary = await api.http.post("/v1/events", content=b"1", headers={"ce-id": "1", "ce-type": "%C0%A0"})
    named = problem(binary, 400)["errors"]
    assert [one["header"] for one in named] == ["ce-type", "ce-specversion", "ce-source"]  # type: ignore[index,attr-defined]
    assert pointers(await cloud(api, CLOUD | {"type": "ordinaut:log"})) == ["/type"]
    assert pointers(await cloud(api, CLOUD | {"data": {"a": "\x00"}})) == ["/data/a"]
    sent = [CLOUD, {}, CLOUD | {"id": "A3", "time": "now"}]
    wrong = await cloud(api, sent, "cloudevents-batch")
    problem(wrong, 422)
    assert pointers(wrong) == ["/1/specversion", "/1/id", "/1/source", "/1/type", "/2/time"]
    problem(await cloud(api, CLOUD, "cloudevents-batch"), 422)
    problem(await cloud(api, [CLOUD] * 1001, "cloudevents-batch"), 422)
    unread = await api.http.post("/v1/events", headers={"Content-Type": "application/cloudevents+avro"})
    assert problem(unread, 415)["type"] == "urn:ordinaut:problem:unsupported-media-type"
    headers = dict.fromkeys(("ce-id", "ce-source"), "x") | {"ce-specversion": "1.0"}
    reserved = await api.http.post("/v1/events", headers=headers | {"ce-type": "ordinaut:x"})
    assert problem(reserved, 400)["errors"][0]["header"] == "ce-type"  # type: ignore[index]
    assert await events(api, "EventReceived") == []


async def test_a_batch_of_cloud_events_may_be_empty_and_is_taken_at_both_doors(api: Served) -> None:
    assert (await cloud(api, [], "cloudevents-batch")).json() == {"events": []}
    headers = {"Content-Type": "application/cloudevents-batch+json; charset=UTF-8"}
    answer = await api.http.post("/v1/events:batch", content=json.dumps([CLOUD]), headers=headers)
    assert len(answer.json()["events"]) == 1


async def test_an_idempotency_key_tells_events_apart_by_their_headers(api: Served) -> None:
    headers = {"ce-specversion": "1.0", "ce-source": "/s", "ce-type": "t", "Idempotency-Key": "k"}
    first = await api.http.post("/v1/events", content=b"1", headers=headers | {"ce-id": "1"})
    again = await api.http.post("/v1/events", content=b"1", headers=headers | {"ce-id": "1"})
    assert again.headers["Idempotency-Replayed"] == "true" and again.json() == first.json()
    problem(await api.http.post("/v1/events", content=b"1", headers=headers | {"ce-id": "2"}), 422)
