"""The process around the API: live streams, health, metrics, the page of documentation, start and stop."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from ordinaut.api.server import Api
from ordinaut.runtime.keys import issue_key
from ordinaut.runtime.ports import PortTaken
from tests.support.api import TOOLS, Served, running_api, sse, task
from tests.support.eventually import eventually

NO_REDIS = "redis://127.0.0.1:1/0"


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url) as served:
        yield served


class Follower:
    """Follows /v1/log/live in the background; `events` grows."""

    def __init__(self, http: httpx.AsyncClient, headers: dict[str, str] | None = None, **query: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.connected = asyncio.Event()
        self.ended = asyncio.create_task(self._follow(http, headers or {}, query))

    async def _follow(self, http: httpx.AsyncClient, headers: dict[str, str], query: dict[str, str]) -> None:
        async with http.stream("GET", "/v1/log/live", params=query, headers=headers, timeout=None) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            self.connected.set()
            async for event in sse(answer.aiter_lines()):
                self.events.append(event)

    async def has(self, count: int) -> list[dict[str, Any]]:
        await eventually(lambda: len(self.events) >= count)
        return self.events

    async def close(self) -> None:
        self.ended.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.ended


async def test_the_log_is_followed_live_and_resumed_where_it_was_left(api: Served) -> None:
    follower = Follower(api.http)
    await follower.connected.wait()
    await api.http.post("/v1/tasks", json=task("a"))
    await api.http.post("/v1/tasks", json=task("b"))
    seen = list(await follower.has(2))
    assert [event["event"] for event in seen] == ["TaskCreated", "TaskCreated"]
    assert [event["id"] for event in seen] == [str(event["data"]["position"]) for event in seen]
    await follower.close()
    await api.http.post("/v1/tasks/a/pause")
    resumed = Follower(api.http, {"Last-Event-ID": seen[0]["id"]})
    again = await resumed.has(2)
    assert again[0] == seen[1] and again[1]["event"] == "TaskPaused"
    await resumed.close()


async def test_a_follower_gets_only_what_it_asked_for_and_only_its_space(api: Served) -> None:
    _, key = await issue_key(api.system, space="other", agent="admin", role="admin")
    async with api.client(key) as http:
        other = Follower(http, after="0")
        retired = Follower(api.http, type="TaskRetired")
        await other.connected.wait()
        await retired.connected.wait()
        for number in range(5):
            await api.http.post("/v1/tasks", json=task(f"t{number}"))
        await api.http.delete("/v1/tasks/t3")
        assert [event["event"] for event in await retired.has(1)] == ["TaskRetired"]
        await http.post("/v1/tasks", json=task("own"))
        events = await other.has(3)
        assert [event["event"] for event in events] == ["AgentRegistered", "KeyIssued", "TaskCreated"]
        assert {event["data"]["space"] for event in events} == {"other"}
        await other.close()
        await retired.close()


async def test_a_long_log_is_followed_from_its_beginning_without_a_gap(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task())
    for _ in range(60):
        await asyncio.gather(*[api.http.post("/v1/tasks/hello/run") for _ in range(10)])
    follower = Follower(api.http, after="0")
    events = await follower.has(603)
    assert [int(event["id"]) for event in events] == list(range(1, 604))
    await follower.close()


async def test_stopping_ends_live_streams_and_the_server(database_url: str, redis_url: str) -> None:
    async with running_api(database_url, redis_url) as api:
        async with api.client("wrong") as other:
            assert (await other.get("/v1/tasks")).status_code == 401
        follower = Follower(api.http)
        await follower.connected.wait()
        api.stop.set()
        await asyncio.wait_for(follower.ended, 10)
        await asyncio.wait_for(asyncio.shield(api.serving), 10)
        with pytest.raises(httpx.ConnectError):
            await api.http.get("/health/live")


async def test_a_taken_port_is_told_in_one_sentence(api: Served) -> None:
    port = int(api.url.rpartition(":")[2])
    system = api.system
    settings = system.settings.model_copy(update={"port": port})
    taken = Api(type(system)(**{**{f: getattr(system, f) for f in system.__slots__}, "settings": settings}))
    with pytest.raises(PortTaken, match=f"127.0.0.1:{port}: another program listens there; .*ORDINAUT_PORT"):
        taken.bind()


async def test_ready_says_what_is_well(api: Served) -> None:
    answer = await api.http.get("/health/ready")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "ready" and body["roles"] == ["api"]
    assert set(body["checks"]) == {"database", "migrations", "projections", "redis"}


@pytest.mark.parametrize(
    ("roles", "status"), [(("api",), 200), (("api", "relay"), 503), (("api", "intake"), 503)]
)
async def test_without_redis_only_who_needs_it_is_not_ready(
    database_url: str, roles: tuple[str, ...], status: int
) -> None:
    async with running_api(database_url, NO_REDIS, roles=roles) as api:
        answer = await api.http.get("/health/ready")
        assert answer.status_code == status
        check = answer.json()["checks"]["redis"]
        assert check["ok"] is (status == 200) and check["state"] == (
            "degraded" if status == 200 else "failed"
        )
        created = await api.http.put(
            "/v1/tasks/t", json={"on": {"stream": "s"}, "pipeline": task()["pipeline"]}
        )
        assert created.status_code == 201, "a task is created with Redis away"


async def test_missing_tables_are_named(api: Served) -> None:
    await api.system.pool.execute("DELETE FROM projection_checkpoints WHERE name = 'runs'")
    answer = await api.http.get("/health/ready")
    assert answer.status_code == 503 and answer.json()["not_ready"] == ["projections"]
    assert "runs" in answer.json()["checks"]["projections"]["detail"]
    await api.system.pool.execute("DELETE FROM schema_migrations WHERE name LIKE '0002%'")
    answer = await api.http.get("/health/ready")
    assert answer.json()["not_ready"] == ["migrations"]
    assert "0002" in answer.json()["checks"]["migrations"]["detail"]


async def test_metrics_tell_of_the_queue_and_the_lags(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task())
    asked = await api.http.post("/v1/tasks/hello/run")
    await api.fresh("/v1/runs", asked)

    async def counted() -> bool:
        text = (await api.http.get("/metrics")).text
        return 'ordinaut_queue_runs{state="ready"} 1.0' in text

    await eventually(counted)
    text = (await api.http.get("/metrics")).text
    for name in (
        "relay_lag_events",
        "clock_lag_seconds",
        'projection_lag_events{projection="tasks"}',
        "log_position",
    ):
        assert f"ordinaut_{name} " in text, name
    assert 'route="/v1/tasks/{name_or_id}/run"' in text and "/v1/tasks/hello" not in text


async def test_the_documentation_works_offline_and_describes_every_route(api: Served) -> None:
    page = (await api.http.get("/docs")).text
    assert not re.search(r"""(src|href|import)\s*[=(]\s*["'](https?:)?//""", page), "nothing from elsewhere"
    described = (await api.http.get("/openapi.json")).json()
    for path in (
        "/v1/tasks", "/v1/tasks/{name_or_id}", "/v1/tasks/{name_or_id}/run", "/v1/tasks/{name_or_id}/pause",
        "/v1/tasks/{name_or_id}/resume", "/v1/tasks/{name_or_id}/snooze",
        "/v1/tasks/{name_or_id}/occurrences",
        "/v1/runs", "/v1/runs/{run_id}", "/v1/runs/{run_id}/cancel", "/v1/runs/{run_id}/retry", "/v1/events",
        "/v1/log", "/v1/log/live", "/v1/schedules/preview", "/v1/tools", "/v1/projections",
        "/health/ready", "/metrics",
    ):  # fmt: skip
        assert path in described["paths"], path
        for operation in described["paths"][path].values():
            assert operation["description"], path
            declared = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            assert declared == set(re.findall(r"{(\w+)}", path)), path
    assert "pipeline" in described["components"]["schemas"]["Task"]["properties"]


async def test_the_tools_are_listed_with_what_they_take_and_give(api: Served) -> None:
    page = (await api.http.get("/v1/tools")).json()
    assert [tool["name"] for tool in page["items"]] == sorted(TOOLS)
    assert page["items"][0] == {"name": "debug.echo", **TOOLS["debug.echo"]}


async def test_the_projections_are_listed_with_their_lags(api: Served) -> None:
    items = (await api.http.get("/v1/projections")).json()["items"]
    assert {"tasks", "schedules", "due_work", "runs", "occurrences"} <= {item["name"] for item in items}
    assert all(item["lag"] >= 0 for item in items)


async def test_the_log_is_filtered_and_paged(api: Served) -> None:
    await api.http.post("/v1/tasks", json=task("a"))
    await api.http.post("/v1/tasks", json=task("b"), headers={"X-Request-Id": "r-1"})
    everything = (await api.http.get("/v1/log")).json()["items"]
    assert [event["position"] for event in everything] == [1, 2, 3, 4]
    one = (await api.http.get("/v1/log", params={"correlation": "r-1"})).json()["items"]
    assert one == [everything[3]]
    page = (await api.http.get("/v1/log", params={"limit": 3})).json()
    rest = (await api.http.get("/v1/log", params={"limit": 3, "after": page["next"]})).json()
    assert page["items"] + rest["items"] == everything and rest["next"] is None
    newest = (await api.http.get("/v1/log", params={"order": "desc", "actor": "key:admin"})).json()["items"]
    assert newest == [everything[3], everything[2]]
    since = {"since": everything[3]["at"], "type": "TaskCreated"}
    assert (await api.http.get("/v1/log", params=since)).json()["items"] == [everything[3]]
    assert (await api.http.get("/v1/log", params={"until": everything[0]["at"]})).json()["items"] == []


async def test_with_the_database_away_requests_are_refused_for_a_moment_and_the_process_lives(
    api: Served,
) -> None:
    await api.http.post("/v1/tasks", json=task())
    api.system.pool.terminate()
    for answer in (
        await api.http.get("/v1/tasks"),
        await api.http.get("/v1/log"),
        await api.http.post("/v1/tasks", json=task("b")),
        await api.http.post("/v1/tasks/hello/run", headers={"Idempotency-Key": "k"}),
    ):
        assert answer.status_code == 503, answer.text
        assert answer.headers["content-type"] == "application/problem+json" and answer.headers["Retry-After"]
    ready = await api.http.get("/health/ready")
    assert ready.status_code == 503 and ready.json()["not_ready"] == ["database"]
    assert (await api.http.get("/health/live")).status_code == 200
    assert 'ordinaut_up{part="postgresql"} 0.0' in (await api.http.get("/metrics")).text
