"""A whole API in the test's own event loop: uvicorn on a free port, the projector beside it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from ordinaut.api.server import Api
from ordinaut.runtime.keys import ensure_admin_key
from ordinaut.runtime.settings import Settings
from ordinaut.runtime.system import System, open_system
from ordinaut.work.tools.registry import BUILT_IN, Registry
from projections.projector import Projector
from projections.registry import all_projections

KEY = "ord_test_0123456789abcdef0123456789abcdef"
TOOLS = Registry(BUILT_IN).described()

PIPELINE = [{"id": "say", "uses": "debug.echo", "with": {"text": "hello ${run.id}"}}]


def task(name: str = "hello", **more: Any) -> dict[str, Any]:
    """A small definition."""
    return {"name": name, "pipeline": PIPELINE, **more}


@dataclass(frozen=True)
class Served:
    """A running API: `http` is a client with the admin key."""

    system: System
    http: httpx.AsyncClient
    url: str
    stop: asyncio.Event
    serving: "asyncio.Task[None]"

    def client(self, key: str | None) -> httpx.AsyncClient:
        """Another client, with another key or none."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=10)

    async def fresh(self, path: str, since: httpx.Response, /, **query: Any) -> Any:
        """GET what shows at least what `since`, the answer to a command, did."""
        headers = {"Ordinaut-Wait": since.headers["Ordinaut-Position"]}
        answer = await self.http.get(path, params=query, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def running_api(
    database_url: str,
    redis_url: str,
    *,
    projector: bool = True,
    roles: tuple[str, ...] = ("api",),
    **settings: Any,
) -> AsyncIterator[Served]:
    """Serve the API on a free port of 127.0.0.1 until the block ends."""
    values: Mapping[str, Any] = {
        "database_url": database_url,
        "redis_url": redis_url,
        "port": 0,
        "pool_max": 20,
    }
    async with open_system(Settings(**{**values, **settings})) as system:
        await ensure_admin_key(system, KEY)
        stop = asyncio.Event()
        api = Api(system, tools=TOOLS, roles=roles)
        url = api.bind()
        serving = asyncio.create_task(api.run(stop))
        tasks = [serving]
        if projector:
            table = Projector(
                database_url, system.notifications, list(all_projections().values()), poll_seconds=0.2
            )
            tasks.append(asyncio.create_task(table.run(stop)))
        try:
            headers = {"Authorization": f"Bearer {KEY}"}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=10) as http:
                yield Served(system, http, url, stop, serving)
        finally:
            stop.set()
            await asyncio.gather(*tasks)


async def sse(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
    """Server-sent events as `{"id", "event", "data"}`; data is parsed, heartbeats are left out."""
    found: dict[str, Any] = {}
    async for line in lines:
        if not line:
            if "data" in found:
                yield found
            found = {}
            continue
        name, _, value = line.partition(":")
        if name:
            value = value.removeprefix(" ")
            found[name] = json.loads(value) if name == "data" else value


def problem(answer: httpx.Response, status: int) -> dict[str, object]:
    """The problem document of a refused request: it must have this status, and say what it is."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert {"type", "title", "status", "detail"} <= set(body) and body["status"] == status
    return body


def pointers(answer: httpx.Response) -> list[str]:
    """Where the faults of a refused request are, as JSON pointers."""
    return [error["pointer"] for error in answer.json()["errors"]]
