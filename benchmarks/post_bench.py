"""`POST /v1/tasks` beside a bare FastAPI route that echoes the same body: same client, same uvicorn
settings, same connections, one after the other in the same round.

Each request creates a task of its own; its 201 means that TaskCreated is on PostgreSQL's disk. The API is
one process, as the bare app is; the roles that read the log run beside it, as they would.
"""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI

from benchmarks import http_client, serving
from benchmarks.peers.harness import stop

CONCURRENCY = 50
WARM_UP = 200
OTHERS = ("relay", "projector", "clock", "intake", "worker")

bare = FastAPI()


@bare.post("/echo", status_code=201)
async def echo(body: dict[str, Any]) -> dict[str, Any]:
    """Gives back what it was given."""
    return body


def task(number: int) -> bytes:
    """A task as a client would create one."""
    body = {
        "name": f"bench-{number}",
        "title": "Weekday morning briefing",
        "schedule": {"cron": "30 8 * * 1-5", "timezone": "Europe/Chisinau"},
        "params": {"city": "Chisinau"},
        "pipeline": [{"id": "say", "uses": "debug.echo", "with": {"text": "Today in ${params.city}"}}],
    }
    return json.dumps(body).encode()


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[int]:
    """A server process, by its id; an error that comes through carries the end of what it wrote."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process.pid
        except (RuntimeError, OSError) as error:
            log.seek(0)
            raise RuntimeError(f"{error}; the server said: {log.read()[-1500:].decode()}") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            stop(process)


async def _rate(port: int, path: str, bodies: Iterator[bytes], count: int, headers: dict[str, str]) -> float:
    async def send(number: int) -> float:
        requests = [http_client.request(port, path, next(bodies), headers) for _ in range(number)]
        rate, statuses = await http_client.throughput(port, requests, CONCURRENCY)
        if set(statuses) != {201}:
            raise RuntimeError(f"POST {path} answered {statuses}, expected 201 only")
        return rate

    await send(WARM_UP)
    return await send(count)


async def measured(count: int, rounds: int) -> list[dict[str, Any]]:
    """`rounds` pairs of rates (requests per second), Ordinaut's first."""
    key = await asyncio.to_thread(serving.prepare)
    api, echo_port = serving.free_port(), serving.free_port()
    environment = serving.environment(api)
    others = [*serving.program(), "serve", *OTHERS]
    uvicorn = f"-m uvicorn benchmarks.post_bench:bare --port {echo_port} --log-level warning"
    plain = f"{uvicorn} --no-access-log --loop uvloop --http httptools --lifespan off".split()
    bodies = (task(number) for number in itertools.count())
    headers = {"authorization": f"Bearer {key}"}
    results = []
    with (
        running([*serving.program(), "serve", "api"], environment),
        running(others, environment),
        running([sys.executable, *plain], environment),
    ):
        async with serving.client(api) as client:
            await serving.wait_ready(client)
        async with serving.client(echo_port) as client:
            await serving.wait_ready(client, "/openapi.json")
        for _ in range(rounds):
            tasks = await _rate(api, "/v1/tasks", bodies, count, headers)
            bare_rate = await _rate(echo_port, "/echo", bodies, count, headers)
            results.append({"tasks_per_s": tasks, "bare_per_s": bare_rate, "ratio": tasks / bare_rate})
    return results
