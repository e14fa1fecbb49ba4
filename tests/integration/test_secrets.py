"""I11: a secret that a task names goes to the service it is for, and is recorded nowhere."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from ordinaut.domain.redact import MARK
from ordinaut.log.database import connect
from ordinaut.work.tools.base import StepContext, Tool
from ordinaut.work.tools.errors import ToolError
from tests.conftest import StartRole
from tests.support.eventually import eventually
from tests.support.probes import Asked, HttpProbe, Probe, Reply, http_probe
from tests.support.world import World, open_world

KEY = "ord_test_0123456789abcdef0123456789abcdef"
TOKEN = 'hunter2 "quoted"/hünter+&'
"""What looks different in a header, a URL, JSON in ASCII and JSON in UTF-8."""
PIN = "7319028465"
ENV = {
    "ORDINAUT_API_KEY": KEY,
    "ORDINAUT_SECRET_DOOR_TOKEN": TOKEN,
    "ORDINAUT_LOG_LEVEL": "debug",
}


@pytest.fixture
async def server() -> AsyncIterator[HttpProbe]:
    async with http_probe() as probe:
        yield probe


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(database_url, redis_url, secrets_dir=tmp_path) as opened:
        yield opened


def repeating(status: int) -> Any:
    """A service that answers with all it was asked, and with the PIN as a number."""

    def answer(asked: Asked) -> Reply:
        said = {"path": asked.path, "headers": asked.headers, "body": asked.body, "pin": int(PIN)}
        return (status, {"X-Said": asked.headers["x-door-pin"]}, said)

    return answer


def asking(server: HttpProbe) -> dict[str, Any]:
    """A `with` that has the secrets in all places there are."""
    return {
        "url": server.url + "/",
        "query": {"t": "${secrets.door_token}"},
        "headers": {"Authorization": "Pin ${secrets.pin}", "X-Door-Pin": "${secrets.pin}"},
        "json": {"padding": "x" * 420, "said": "so: ${secrets.door_token}", "list": ["${secrets.pin}"]},
    }


async def everything(database_url: str, redis_url: str) -> str:
    """All that PostgreSQL and Redis hold, as text."""
    found = []
    connection = await connect(database_url)
    try:
        for (table,) in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
            rows = await connection.fetch(f'SELECT t::text FROM "{table}" AS t')
            found += [row[0] for row in rows]
    finally:
        await connection.close()
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        assert "ordinaut:log" in await redis.keys()
        found += [str(await redis.xrange(key)) async for key in redis.scan_iter(_type="stream")]
    return "\n".join(found)


def traces(text: str) -> list[str]:
    """What of the secrets is in a text, however it is written."""
    return [part for part in ("hunter", "unter+", "unter%2B", PIN, PIN[:7]) if part in text]


async def test_i11_a_secret_is_sent_and_is_nowhere_else(
    start_role: StartRole, server: HttpProbe, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "pin").write_text(PIN + "\n")
    roles = ("api", "relay", "projector", "worker")
    env = ENV | {"ORDINAUT_SECRETS_DIR": str(tmp_path)}
    process = await asyncio.to_thread(start_role, *roles, env=env)
    steps = [
        {
            "id": "ask",
            "uses": "http.post",
            "with": asking(server),
            "retry": {"max_attempts": 2, "base": "10ms"},
        },
        {"id": "tell", "uses": "debug.echo", "with": "${steps.ask}"},
        {"id": "show", "uses": "debug.echo", "with": "it is ${secrets.door_token}"},
    ]
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=process.api, headers=headers, timeout=20) as http:
        assert (await http.put("/v1/tasks/door", json={"pipeline": steps})).status_code == 201

        async def run(state: str) -> dict[str, Any]:
            path = f"/v1/runs/{(await http.post('/v1/tasks/door/run')).json()['run']}"

            async def ended() -> dict[str, Any]:
                found = (await http.get(path)).json()
                assert found["state"] == state, found
                return dict(found)

            return await eventually(ended)

        server.answer = repeating(503)
        failed = await run("failed")
        server.answer = repeating(200)
        done = await run("succeeded")
        metrics = (await http.get("/metrics")).text
        told = (await http.get("/v1/log", params={"limit": 500})).text
    asked = server.asked[-1]
    assert (asked.headers["authorization"], asked.headers["x-door-pin"]) == (f"Pin {PIN}", PIN)
    assert (asked.body["said"], asked.body["list"]) == (f"so: {TOKEN}", [PIN])
    assert httpx.URL(asked.path).params["t"] == TOKEN

    ask, _, show = done["steps"]
    assert ask["input"]["json"]["said"] == f"so: {MARK}" and ask["input"]["headers"]["X-Door-Pin"] == MARK
    assert ask["output"]["body"]["body"]["said"] == f"so: {MARK}"
    assert (ask["output"]["body"]["pin"], ask["output"]["headers"]["x-said"]) == (MARK, MARK)
    assert show["output"] == f"it is {MARK}" == done["output"]
    assert failed["steps"][0]["error"]["details"]["status"] == 503
    process.terminate()
    stored = await everything(database_url, redis_url)
    assert MARK in stored and "step.failed" in process.output
    for place in (stored, process.output, metrics, told):
        assert traces(place) == []


def failing(said: Any) -> Tool:
    async def call(given: Any, ctx: StepContext) -> Any:
        raise said(given)

    return Tool("test.fails", "For tests.", {}, {}, call)


@pytest.mark.parametrize(
    "said",
    [
        lambda given: RuntimeError(f"cannot open with {given['key']}"),
        lambda given: RuntimeError(f"{'x' * 960} cut: {given['key']}"),
        lambda given: ToolError("no", retryable=False, details={given["key"]: [given["key"]]}),
    ],
    ids=["its text", "its text, cut in the middle", "its details"],
)
async def test_i11_a_secret_that_comes_back_in_an_error_is_blotted_out(
    world: World, tmp_path: Path, said: Any
) -> None:
    (tmp_path / "key").write_text("correct-horse-battery-staple-0123456789")
    world.start_worker(failing(said))
    await world.define("open", [{"id": "try", "uses": "test.fails", "with": {"key": "${secrets.key}"}}])
    run = await world.finished(await world.request("open"))
    assert run.state == "failed" and run.steps["try"].input == {"key": MARK}
    whole = json.dumps([event.data for event in await world.events(run.id)])
    assert MARK in whole
    assert "correct" not in whole


async def test_a_missing_secret_is_told_with_where_it_was_looked_for(world: World, tmp_path: Path) -> None:
    probe = Probe()
    world.start_worker(probe.tool)
    steps = [{"id": "ask", "uses": "test.probe", "with": "${secrets.door_key}", "retry": {"max_attempts": 5}}]
    await world.define("open", steps)
    run = await world.finished(await world.request("open"))
    message = run.steps["ask"].error["message"]
    assert (run.state, run.steps["ask"].attempt, probe.given) == ("failed", 1, [])
    for place in ("'door_key'", "ORDINAUT_SECRET_DOOR_KEY", str(tmp_path / "door_key")):
        assert place in message


async def test_a_secret_that_is_replaced_counts_from_the_next_step_on(world: World, tmp_path: Path) -> None:
    probe = Probe()
    world.start_worker(probe.tool)
    await world.define("open", [{"id": "ask", "uses": "test.probe", "with": "${secrets.key}"}])
    for value in ("the old one", "the new one"):
        (tmp_path / "key").write_text(f"{value}\n")
        assert (await world.finished(await world.request("open"))).output == MARK
    assert probe.given == ["the old one", "the new one"]


async def test_a_simulated_run_reads_no_secrets(world: World) -> None:
    world.start_worker()
    given = {"url": "${secrets.hook}", "headers": {"Authorization": "Bearer ${secrets.token}"}}
    await world.define("call", [{"id": "call", "uses": "http.get", "with": given}])
    run = await world.finished(await world.request("call", simulate=True))
    assert (run.state, run.error) == ("succeeded", None)
    assert run.steps["call"].input == {"url": MARK, "headers": {"Authorization": MARK}}


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("event.publish", {"stream": "s", "data": "${secrets.key}"}),
        ("stream.add", {"stream": "s", "data": "${secrets.key}"}),
        ("log.write", {"message": "${secrets.key}"}),
    ],
)
async def test_a_tool_that_records_what_it_gets_is_given_no_secret(
    world: World, tmp_path: Path, tool: str, given: Any
) -> None:
    (tmp_path / "key").write_text("correct-horse")
    world.start_worker()
    await world.define("tell", [{"id": "tell", "uses": tool, "with": given}])
    run = await world.finished(await world.request("tell"))
    assert run.state == "failed" and "gets no secrets" in run.steps["tell"].error["message"]
