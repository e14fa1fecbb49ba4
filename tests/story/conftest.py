"""What the story is told with: one running Ordinaut, its HTTP API, its Redis and its command line.

Nothing here reaches inside: whatever a test does, a newcomer can do.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import redis

from tests.story.own_package import ENTRY_POINTS
from tests.story.service import Service
from tests.support.processes import OrdinautProcess, RoleProcess
from tests.support.servers import Servers, blocking, execute, with_database

Result = TypeVar("Result")

KEY = "ord_story_0123456789abcdef0123456789abcdef"
DOOR_KEY = "a-key-that-opens-a-door"
ROLES = ("api", "relay", "projector", "clock", "intake", "worker")
ENDED = ("succeeded", "failed", "canceled", "parked")


@dataclass(frozen=True)
class Story:
    """A running Ordinaut. `http` is a client with the admin key, `redis` the server that streams are on."""

    http: httpx.Client
    redis: "redis.Redis[str]"
    env: dict[str, str]

    def define(self, name: str, **definition: Any) -> dict[str, Any]:
        """PUT /v1/tasks/{name}; the task."""
        answer = self.http.put(f"/v1/tasks/{name}", json=definition)
        assert answer.is_success, answer.text
        return dict(answer.json())

    def start(self, name: str, input: Any = None, **more: Any) -> str:
        """POST /v1/tasks/{name}/run; the run's id."""
        answer = self.http.post(f"/v1/tasks/{name}/run", json={"input": input, **more})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run"])

    def run(self, name: str, input: Any = None, **more: Any) -> dict[str, Any]:
        """Run a task and wait for the end; the run with its steps."""
        return self.ended(self.start(name, input, **more))

    def ended(self, run_id: str) -> dict[str, Any]:
        """Wait for the end of a run; the run with its steps."""
        return self.in_state(run_id, *ENDED)

    def in_state(self, run_id: str, *states: str) -> dict[str, Any]:
        """Wait until a run is in one of these states; the run with its steps."""

        def reached() -> dict[str, Any]:
            run = self.get(f"/v1/runs/{run_id}")
            assert run["state"] in states, run
            return dict(run)

        return self.eventually(reached)

    def tell(self, path: str, **body: Any) -> dict[str, Any]:
        """POST a command; its answer."""
        answer = self.http.post(path, json=body)
        assert answer.is_success, answer.text
        return dict(answer.json())

    def get(self, path: str, **query: Any) -> Any:
        """GET a document."""
        answer = self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def items(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """GET the first page of a list."""
        return list(self.get(path, **query)["items"])

    def runs_of(self, name: str, count: int) -> list[dict[str, Any]]:
        """Wait until a task has `count` runs and all have ended; the runs, newest first."""

        def there() -> list[dict[str, Any]]:
            runs = self.items("/v1/runs", task=name)
            assert len(runs) >= count and all(run["state"] in ENDED for run in runs), runs
            return runs

        return self.eventually(there)

    def eventually(self, check: Callable[[], Result], timeout: float = 20.0) -> Result:
        """Ask until the answer is something, at most `timeout` seconds; an AssertionError is "not yet"."""
        deadline = time.monotonic() + timeout
        while True:
            said: object = None
            try:
                if result := check():
                    return result
            except AssertionError as error:
                said = error
            assert time.monotonic() < deadline, f"not within {timeout:g} seconds: {said}"
            time.sleep(0.03)

    def cli(self, *arguments: str, code: int = 0) -> str:
        """Run `ordinaut …`, which must end with `code`; what it printed, with `--json` without
        what it said on stderr."""
        command = [sys.executable, "-m", "ordinaut", *arguments]
        done = subprocess.run(
            command, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + ("" if "--json" in arguments else done.stderr)


@pytest.fixture(scope="package")
def ordinaut(
    servers: Servers, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """`ordinaut serve` with every role, for all of the story; its environment, and where its API is."""
    name = f"ordinaut_test_{os.getpid()}_story"
    blocking(execute(servers.database_url, f'CREATE DATABASE "{name}" TEMPLATE "{template_database}"'))
    directory = tmp_path_factory.mktemp("story")
    with redis.Redis.from_url(servers.redis_url) as client:
        last = int(client.config_get("databases")["databases"]) - 1
    env = {
        "ORDINAUT_DATABASE_URL": with_database(servers.database_url, name),
        "ORDINAUT_REDIS_URL": with_database(servers.redis_url, str(last)),
        "ORDINAUT_API_KEY": KEY,
        "ORDINAUT_SECRET_DOOR_KEY": DOOR_KEY,
        "ORDINAUT_DATA_DIR": str(directory),
        "PYTHONPATH": os.pathsep.join(filter(None, [_package(directory), os.environ.get("PYTHONPATH")])),
    }
    migrate = OrdinautProcess(["migrate"], env, directory / "migrate.log").start()
    assert migrate.wait() == 0, migrate.tail()
    process = RoleProcess(ROLES, env, directory / "serve.log").start()
    try:
        process.wait_ready()
        yield env | {"ORDINAUT_URL": process.api}
    finally:
        process.kill()
        with redis.Redis.from_url(env["ORDINAUT_REDIS_URL"]) as client:
            client.flushdb()
        blocking(execute(servers.database_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


def _package(directory: Path) -> str:
    """What `pip install` of a package leaves behind: the names of what it offers."""
    about = directory / "greetings-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: greetings\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    return str(directory)


@pytest.fixture
def story(ordinaut: dict[str, str]) -> Iterator[Story]:
    """The running Ordinaut. At the end of a test its tasks are retired, so that none disturbs the next."""
    headers = {"Authorization": f"Bearer {KEY}"}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("ORDINAUT_")}
    with (
        httpx.Client(base_url=ordinaut["ORDINAUT_URL"], headers=headers, timeout=20) as http,
        redis.Redis.from_url(ordinaut["ORDINAUT_REDIS_URL"], decode_responses=True) as streams,
    ):
        # Who tells and then asks sees what he told.
        http.event_hooks["response"] = [lambda answer: _remember(http, answer)]
        story = Story(http, streams, {**outside, **ordinaut})
        yield story
        for task in story.items("/v1/tasks", limit=500):
            http.delete(f"/v1/tasks/{task['name']}")


def _remember(http: httpx.Client, answer: httpx.Response) -> None:
    if position := answer.headers.get("Ordinaut-Position"):
        http.headers["Ordinaut-Wait"] = position


@pytest.fixture
def service() -> Iterator[Service]:
    """A web service that tasks can call."""
    with Service() as running:
        yield running


def as_json(text: str) -> Any:
    """The JSON that a command printed."""
    return json.loads(text)
