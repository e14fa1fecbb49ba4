"""What docs/feed.md shows works as written: with redis-cli, with Python, and with Node where there is one."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.conftest import StartRole
from tests.support.eventually import eventually
from tests.support.processes import ROOT

PAGE = (ROOT / "docs" / "feed.md").read_text()
KEY = "ord_feed_tests_0123456789abcdef012345678"
FOLLOWED = re.compile(r"^(\d+) (\w+) (\S+)$", re.MULTILINE)

REDIS_CLI = """
import redis, sys
assert sys.argv[1] == "-u"
def show(value):
    if isinstance(value, list):
        for one in value:
            show(one)
    else:
        print(value.decode())
server = redis.Redis.from_url(sys.argv[2], protocol=2)
server.response_callbacks.clear()
show(server.execute_command(*sys.argv[3:]))
"""
"""As much of redis-cli as the page needs, for machines that have none."""

NODE_REDIS = """
import { connect } from "node:net";
export function createClient({ url }) {
  const { hostname, port, pathname } = new URL(url);
  const socket = connect(Number(port), hostname);
  let text = "", wake = () => {};
  socket.setEncoding("utf8");
  socket.on("data", (more) => { text += more; wake(); });
  const line = async () => {
    while (!text.includes("\\r\\n")) await new Promise((done) => { wake = done; });
    const end = text.indexOf("\\r\\n"), found = text.slice(0, end);
    text = text.slice(end + 2);
    return found;
  };
  const reply = async () => {
    const head = await line(), size = Number(head.slice(1));
    if (head[0] === "*") {
      if (size < 0) return null;
      const all = [];
      for (let n = 0; n < size; n++) all.push(await reply());
      return all;
    }
    return head[0] === "$" && size >= 0 ? await line() : head[0] === "$" ? null : head.slice(1);
  };
  const ask = (...words) => {
    const sent = words.map((word) => `$${Buffer.byteLength(word)}\\r\\n${word}\\r\\n`);
    socket.write(`*${words.length}\\r\\n${sent.join("")}`);
    return reply();
  };
  return {
    connect: () => ask("SELECT", pathname.slice(1) || "0"),
    xRead: async ({ key, id }, { COUNT, BLOCK }) => {
      const found = await ask("XREAD", "COUNT", `${COUNT}`, "BLOCK", `${BLOCK}`, "STREAMS", key, id);
      return found?.map(([name, entries]) => ({
        name, messages: entries.map(([id, [field, value]]) => ({ id, message: { [field]: value } })),
      }));
    },
  };
}
"""
"""As much of the package `redis` for Node as the page needs: it is not among what the tests install."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def env(redis_url: str, start_role: StartRole) -> dict[str, str]:
    """What the page names; the log is on the stream."""
    roles = start_role("api", "relay", env={"ORDINAUT_API_KEY": KEY})
    return {
        **os.environ, "ORDINAUT_REDIS_URL": redis_url, "ORDINAUT_URL": roles.api, "ORDINAUT_API_KEY": KEY,
    }  # fmt: skip


Publish = Callable[[int], int]


@pytest.fixture
def publish(env: dict[str, str]) -> Publish:
    """Publish so many events; the position of the last one."""

    def publish(number: int) -> int:
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=env["ORDINAUT_URL"], headers=headers) as http:
            for n in range(number):
                answer = http.post("/v1/events", json={"stream": "news", "data": n})
                assert answer.status_code == 202, answer.text
        return int(answer.headers["Ordinaut-Position"])

    return publish


class Consumer:
    """A program of the page in a directory of its own; it goes on until it is killed."""

    def __init__(self, command: list[str], directory: Path, env: dict[str, str]) -> None:
        self._start = lambda output: subprocess.Popen(
            command, cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        self._output = directory / "output"

    async def until(self, position: int) -> list[tuple[int, str]]:
        """Run it until it has told of the event at this position: (position, type) of all it has told of, in
        all its runs. What it was killed behind, before it could remember it, it tells of twice."""
        with self._output.open("ab") as output:
            process = self._start(output)

        async def told() -> bool:
            text = self._output.read_text()
            assert process.poll() is None, text
            return any(int(found[0]) == position for found in FOLLOWED.findall(text))

        try:
            await eventually(told, timeout=30)
        finally:
            process.kill()
            process.wait()
        seen = [(int(found[0]), found[1]) for found in FOLLOWED.findall(self._output.read_text())]
        return [one for n, one in enumerate(seen) if n == 0 or seen[n - 1] != one]


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


async def on_the_feed(client: Any, position: int) -> None:
    async def there() -> bool:
        return bool(client.xrange("ordinaut:log", f"{position}-0", f"{position}-0"))

    await eventually(there, timeout=20)


def _typed(command: str, env: dict[str, str]) -> list[str]:
    """What a shell prints for the command, which must be content."""
    shell = ["bash", "-euo", "pipefail", "-c", command]
    done = subprocess.run(shell, env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def _log(env: dict[str, str]) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx.get(f"{env['ORDINAUT_URL']}/v1/log?limit=500", headers=headers)
    return list(answer.json()["items"])


async def test_the_commands_for_redis_cli_show_events(
    env: dict[str, str], publish: Publish, client: Any, tmp_path: Path
) -> None:
    last = publish(12)
    await on_the_feed(client, last)
    if shutil.which("redis-cli") is None:
        program = tmp_path / "redis-cli"
        (tmp_path / "cli.py").write_text(REDIS_CLI)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "cli.py"} "$@"\n')
        program.chmod(0o755)
        env = {**env, "PATH": f"{tmp_path}{os.pathsep}{env['PATH']}"}
    (block,) = blocks("sh")
    commands = [line for line in block.splitlines() if not line.startswith("#")]
    shown: list[list[dict[str, Any]]] = []
    for command in commands:
        shown.append([json.loads(line) for line in _typed(command, env) if line.startswith("{")])
    newest, first, fifth = shown
    assert [event["position"] for event in newest] == [last, last - 1, last - 2]
    assert newest[0]["type"] == "EventReceived" and newest[0]["data"]["data"] == 11
    assert [event["position"] for event in first] == list(range(1, 11))
    assert [event["position"] for event in fifth] == [5]


async def test_the_consumer_in_python_goes_on_where_it_ended_and_fetches_what_was_trimmed(
    env: dict[str, str], publish: Publish, client: Any, tmp_path: Path
) -> None:
    (code,) = blocks("python")
    (tmp_path / "feed").mkdir()
    (tmp_path / "feed" / "feed.py").write_text(code)
    consumer = Consumer([sys.executable, "feed.py"], tmp_path / "feed", env)
    seen = await consumer.until(publish(3))
    last = publish(30)
    await on_the_feed(client, last)
    client.xtrim("ordinaut:log", maxlen=5, approximate=False)
    seen = await consumer.until(last)
    # What tells that this is all of the space's events: none is told twice, none is missing.
    assert seen == [(event["position"], event["type"]) for event in _log(env)]
    # And Redis may forget everything.
    client.flushdb()
    more = publish(2)
    assert [position for position, _ in await consumer.until(more)] == list(range(1, more + 1))


async def test_the_consumer_in_node_goes_on_where_it_ended(
    env: dict[str, str], publish: Publish, tmp_path: Path
) -> None:
    (code,) = blocks("js")
    for said in ("ordinaut:log", "`${position}-0`", "JSON.parse(message.event)", "event.position"):
        assert said in code
    node = shutil.which("node")
    if node is None:
        return  # then what it says is all that can be looked at
    package = tmp_path / "feed" / "node_modules" / "redis"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"name": "redis", "type": "module", "exports": "./index.js"}')
    (package / "index.js").write_text(NODE_REDIS)
    (tmp_path / "feed" / "feed.mjs").write_text(code)
    consumer = Consumer([node, "feed.mjs"], tmp_path / "feed", env)
    await consumer.until(publish(3))
    last = publish(5)
    assert [position for position, _ in await consumer.until(last)] == list(range(1, last + 1))
