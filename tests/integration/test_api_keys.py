"""Keys and spaces: who may ask for what, and sees what."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest

from ordinaut.domain.errors import Invalid
from ordinaut.runtime.keys import KeyInfo, ensure_admin_key, issue_key, list_keys, revoke_key
from tests.support.api import KEY, PIPELINE, Served, problem, running_api, task
from tests.support.eventually import eventually


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url) as served:
        yield served


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer", "Basic YTpi", KEY, f"Bearer {KEY}x"])
async def test_without_a_good_key_nothing_is_told(api: Served, header: str | None) -> None:
    async with httpx.AsyncClient(base_url=api.url) as http:
        for path in ("/v1/tasks", "/v1/log", "/v1/nothing-here"):
            answer = await http.get(path, headers={"Authorization": header} if header else {})
            problem(answer, 401)
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_health_metrics_and_docs_need_no_key(api: Served) -> None:
    async with api.client(None) as http:
        for path in ("/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json"):
            assert (await http.get(path)).status_code == 200, path


async def test_a_reader_may_read_and_nothing_else(api: Served) -> None:
    _, key = await issue_key(api.system, space="default", agent="watcher", role="reader")
    async with api.client(key) as http:
        assert (await http.get("/v1/tasks")).status_code == 200
        preview = await http.post("/v1/schedules/preview", json={"every": "1h"})
        assert preview.status_code == 200
        problem(await http.post("/v1/tasks", json=task()), 403)
        problem(await http.delete("/v1/tasks/hello"), 403)
    assert (await api.http.get("/v1/tasks/hello")).status_code == 404


async def test_a_revoked_key_stops_working(api: Served) -> None:
    key_id, key = await issue_key(api.system, space="default", agent="bot", role="operator")
    async with api.client(key) as http:
        assert (await http.get("/v1/tasks")).status_code == 200
        await revoke_key(api.system, space="default", key_id=key_id)
        await revoke_key(api.system, space="default", key_id=key_id)

        async def refused() -> bool:
            return (await http.get("/v1/tasks")).status_code == 401

        await eventually(refused, timeout=15)
    events = (await api.http.get("/v1/log", params={"type": "AgentRegistered,KeyIssued,KeyRevoked"})).json()[
        "items"
    ]
    assert [event["type"] for event in events[2:]] == ["AgentRegistered", "KeyIssued", "KeyRevoked"]


async def test_a_key_is_never_in_the_log_and_only_its_hash_in_the_database(api: Served) -> None:
    _, key = await issue_key(api.system, space="default", agent="bot", role="operator")
    whole = (await api.http.get("/v1/log")).text
    digest = hashlib.sha256(key.encode())
    for secret in (KEY, key, digest.hexdigest()):
        assert secret not in whole
    row = await api.system.pool.fetchrow("SELECT * FROM api_keys WHERE agent = 'bot'")
    assert key not in str(row) and row["hash"] == digest.digest()


@pytest.mark.parametrize(("space", "agent"), [("a/b", "bot"), ("", "bot"), ("A", "bot"), ("a", "the bot")])
async def test_a_key_is_for_a_space_and_an_agent_with_plain_names(
    api: Served, space: str, agent: str
) -> None:
    with pytest.raises(Invalid, match="is not a name for"):
        await issue_key(api.system, space=space, agent=agent, role="reader")


async def test_the_first_admin_key_is_made_once(api: Served) -> None:
    assert await ensure_admin_key(api.system, None) is None
    assert await ensure_admin_key(api.system, KEY) is None
    await api.system.pool.execute("DELETE FROM api_keys")
    made = await asyncio.gather(*[ensure_admin_key(api.system, None) for _ in range(4)])
    (key,) = [one for one in made if one is not None]
    async with api.client(key) as http:
        assert (await http.get("/v1/tasks")).status_code == 200
    async with api.system.pool.acquire() as connection:
        keys: list[KeyInfo] = await list_keys(connection, "default")
    assert [(one.agent, one.role) for one in keys] == [("admin", "admin")]


async def test_a_space_sees_nothing_of_another(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task())
    run = (await api.http.post("/v1/tasks/hello/run")).json()["run"]
    task_id = (await api.http.get("/v1/tasks/hello")).json()["id"]
    _, key = await issue_key(api.system, space="other", agent="admin", role="admin")
    async with api.client(key) as http:
        for path in (
            f"/v1/tasks/{task_id}",
            "/v1/tasks/hello",
            f"/v1/runs/{run}",
            "/v1/tasks/hello/occurrences",
        ):
            problem(await http.get(path), 404)
        for path in (f"/v1/tasks/{task_id}/run", f"/v1/runs/{run}/cancel", f"/v1/runs/{run}/retry"):
            problem(await http.post(path), 404)
        problem(await http.put(f"/v1/tasks/{task_id}", json={"pipeline": PIPELINE}), 404)
        assert (await http.post("/v1/tasks", json=task())).status_code == 201, "a name is the space's own"
        own = await http.post("/v1/tasks/hello/run")
        wait = {"Ordinaut-Wait": own.headers["Ordinaut-Position"]}
        assert [one["id"] for one in (await http.get("/v1/runs", headers=wait)).json()["items"]] == [
            own.json()["run"]
        ]
        spaces = {event["space"] for event in (await http.get("/v1/log")).json()["items"]}
        assert spaces == {"other"}
