"""What every request has in common: Idempotency-Key, positions."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.api import Served, problem, running_api, task


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url) as served:
        yield served


# Idempotency-Key


async def test_the_same_key_gives_one_run_and_the_same_answer(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task())
    headers = {"Idempotency-Key": "k1"}
    first = await api.http.post("/v1/tasks/hello/run", json={"input": 1}, headers=headers)
    again = await api.http.post("/v1/tasks/hello/run", json={"input": 1}, headers=headers)
    assert first.json() == again.json() and first.status_code == again.status_code == 202
    assert "Idempotency-Replayed" not in first.headers and again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Ordinaut-Position"] == first.headers["Ordinaut-Position"]
    other = await api.http.post("/v1/tasks/hello/run", json={"input": 2}, headers=headers)
    assert problem(other, 422)["type"] == "urn:ordinaut:problem:idempotency-key-reused"


async def test_one_key_sent_many_times_at_once_gives_one_run(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task())
    answers = await asyncio.gather(
        *[api.http.post("/v1/tasks/hello/run", headers={"Idempotency-Key": "k1"}) for _ in range(20)]
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["run"] for answer in answers}) == 1
    log = (await api.http.get("/v1/log", params={"type": "RunRequested"})).json()["items"]
    assert len(log) == 1


async def test_a_key_whose_first_attempt_died_half_way_meets_the_same_run_and_task(api: Served) -> None:
    headers = {"Idempotency-Key": "k1"}
    forget = "UPDATE idempotency_keys SET status = NULL, headers = NULL, body = NULL"
    created = await api.http.post("/v1/tasks", json=task(), headers=headers)
    await api.system.pool.execute(forget)
    again = await api.http.post("/v1/tasks", json=task(), headers=headers)
    assert (created.status_code, again.status_code) == (201, 201)
    assert again.json()["id"] == created.json()["id"] and "Idempotency-Replayed" not in again.headers
    for path, body in (("/v1/tasks/hello/run", {}), ("/v1/events", {"stream": "s", "data": 1})):
        headers = {"Idempotency-Key": f"for {path}".replace(" ", "-")}
        first = await api.http.post(path, json=body, headers=headers)
        await api.system.pool.execute(forget)
        second = await api.http.post(path, json=body, headers=headers)
        assert first.json() == second.json()
    log = (await api.http.get("/v1/log")).json()["items"]
    kinds = [event["type"] for event in log]
    assert kinds[2:] == ["TaskCreated", "RunRequested", "EventReceived"]


async def test_a_key_is_remembered_with_what_was_wrong_but_not_with_what_may_pass(api: Served) -> None:
    bad = {"Idempotency-Key": "bad"}
    for _ in range(2):
        answer = await api.http.post("/v1/tasks", json={"name": "x"}, headers=bad)
        problem(answer, 422)
    assert answer.headers["Idempotency-Replayed"] == "true"
    early = {"Idempotency-Key": "early"}
    problem(await api.http.post("/v1/tasks/hello/run", headers=early), 404)
    await api.http.post("/v1/tasks", json=task())
    assert (await api.http.post("/v1/tasks/hello/run", headers=early)).status_code == 202


# Positions


async def test_a_read_waits_for_what_was_written(api: Served) -> None:
    for number in range(10):
        written = await api.http.post("/v1/tasks", json=task(f"t{number}"))
        found = await api.fresh("/v1/tasks", written, limit=100)
        assert len(found["items"]) == number + 1


async def test_a_read_that_waits_in_vain_says_so(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ordinaut.api.positions.MOST_SECONDS", 0.1)
    async with running_api(database_url, redis_url, projector=False) as api:
        written = await api.http.post("/v1/tasks", json=task())
        headers = {"Ordinaut-Wait": written.headers["Ordinaut-Position"]}
        answer = await api.http.get("/v1/tasks", headers=headers)
        problem(answer, 503)
        assert answer.headers["Retry-After"] and "projector" in answer.json()["detail"]
        direct = await api.http.get("/v1/tasks/hello")
        assert direct.json()["name"] == "hello", "one task is found in the log meanwhile"


@pytest.mark.parametrize("position", ["x", "-1", "999999999"])
async def test_a_position_the_log_has_not_is_refused(api: Served, position: str) -> None:
    answer = await api.http.get("/v1/tasks", headers={"Ordinaut-Wait": position})
    problem(answer, 400)
    assert answer.json()["errors"][0]["header"] == "Ordinaut-Wait"
