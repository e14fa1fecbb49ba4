"""What the README tells people to type works as written, and so does every example.

It is typed in a directory made to look like a fresh checkout, so that nothing here meets a `make dev` of
this machine: the port is a free one, where the README has 8080.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.story.service import Service
from tests.support.processes import ROOT, free_port

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [block.strip() for block in BLOCK.findall((ROOT / "README.md").read_text())]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))

CURL = """
import argparse, urllib.request
options = argparse.ArgumentParser()
options.add_argument("url")
options.add_argument("-s", action="store_true")
options.add_argument("-H", action="append")
options.add_argument("-d")
options.add_argument("-o")
options.add_argument("-w")
given = options.parse_args()
headers = dict(header.split(": ", 1) for header in given.H)
with urllib.request.urlopen(urllib.request.Request(given.url, given.d.encode(), headers)) as answer:
    print(answer.status if given.w else answer.read().decode(), end="")
"""
"""As much of curl as the README needs, for machines that have none."""


@dataclass(frozen=True)
class Checkout:
    """A directory with a running `make dev`; `terminal` is the file that its output goes to."""

    directory: Path
    port: int
    terminal: Path
    env: dict[str, str]

    def type(self, command: str) -> str:
        """Give `command` to a shell; what it wrote to stdout. It must exit with 0."""
        command = command.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.directory, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def ordinaut(self, *arguments: str) -> Any:
        """`.venv/bin/ordinaut … --json`; the JSON."""
        return json.loads(self.type(shlex.join([".venv/bin/ordinaut", *arguments, "--json"])))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """The first command of the README, started and ready."""
    directory = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "pyproject.toml", ".ci", "examples"):
        (directory / name).symlink_to(ROOT / name)
    _installed(directory / ".venv")
    if shutil.which("curl") is None:
        _program(directory / "bin" / "curl", f"#!{sys.executable}\n{CURL}")
    port = free_port()
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("ORDINAUT_", "MAKE"))
    }
    path = os.pathsep.join([str(directory / "bin"), os.environ["PATH"]])
    env = {**inherited, "PATH": path, "PORT": str(port), "PYTHONUNBUFFERED": "1"}
    terminal = directory / "terminal"
    with terminal.open("wb") as output:
        process = subprocess.Popen(
            shlex.split(BLOCKS[0]),
            cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        _wait(lambda: "Ordinaut is ready" in terminal.read_text(), terminal)
        yield Checkout(directory, port, terminal, env)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def _installed(venv: Path) -> None:
    """What `make install` leaves behind, with the Python that runs the tests."""
    python, root = shlex.quote(sys.executable), shlex.quote(str(ROOT))
    _program(venv / "bin" / "ordinaut", f'#!/bin/sh\nPYTHONPATH={root} exec {python} -m ordinaut "$@"\n')
    (venv / ".installed").touch()


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(0o755)


def _wait(check: Callable[[], Any], terminal: Path, timeout: float = 60.0) -> Any:
    """Ask until the answer is something; that answer. Fails with what the terminal shows."""
    deadline = time.monotonic() + timeout
    while not (result := check()):
        assert time.monotonic() < deadline, f"not within {timeout:g} seconds:\n{terminal.read_text()}"
        time.sleep(0.1)
    return result


def test_make_dev_shows_a_scheduled_and_a_triggered_task_at_work(checkout: Checkout) -> None:
    assert BLOCKS[0] == "make dev"
    for task in ("heartbeat", "big-orders"):
        _wait(lambda: re.search(rf"{task} .*succeeded in", checkout.terminal.read_text()), checkout.terminal)  # noqa: B023


def test_the_commands_of_the_readme_do_what_it_says(checkout: Checkout) -> None:
    """Every block, in the order of the page: each has its check here."""
    # `make test` is what runs this test; inside itself it would never end.
    assert BLOCKS[1] == "make test"
    apply, publish, runs, curl, log, preview = BLOCKS[2:]

    assert "+ vip-orders  new" in checkout.type(apply)

    event = checkout.type(publish).strip()
    assert re.fullmatch(r"[0-9a-f-]{36}", event)

    def succeeded() -> str | None:
        shown = checkout.type(runs)
        return shown if re.search(rf"vip-orders +succeeded +1 +event orders {event}", shown) else None

    _wait(succeeded, checkout.terminal)

    first, second = json.loads(checkout.type(curl)), json.loads(checkout.type(curl))
    assert first == second
    assert re.fullmatch(r"[0-9a-f-]{36}", first["run"])
    assert checkout.type(curl.replace("curl", "curl -o /dev/null -w '%{http_code}'", 1)) == "202"
    _wait(lambda: checkout.ordinaut("run", "show", first["run"])["state"] == "succeeded", checkout.terminal)
    story = checkout.type(log)
    for type in ("RunRequested", "RunStarted", "StepSucceeded", "RunSucceeded"):
        assert type in story
    assert "order 8 over 500 is confirmed" in story
    assert story.count("RunRequested") == 1

    instants = [line.split()[:4] for line in checkout.type(preview).splitlines()[1:]]
    assert instants == [
        ["Fri", "2026-10-23", "08:30:00", "+0300"],
        ["Mon", "2026-10-26", "08:30:00", "+0200"],
        ["Tue", "2026-10-27", "08:30:00", "+0200"],
    ]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_does_what_its_comment_says(example: Path, checkout: Checkout) -> None:
    with Service() as service:
        service.always = {"current_condition": [{"weatherDesc": [{"value": "Sunny"}]}]}
        text = example.read_text()
        here = text.replace("127.0.0.1:8080", f"127.0.0.1:{checkout.port}").replace(
            "https://wttr.in", service.url
        )
        (checkout.directory / example.name).write_text(here)
        checkout.type(f".venv/bin/ordinaut apply --yes -f {example.name}")
        assert checkout.ordinaut("task", "show", example.stem)["labels"] == {"example": "yes"}
        CHECKS[example.stem](checkout, service)


def _big_orders(checkout: Checkout, service: Service) -> None:
    event = checkout.ordinaut("event", "publish", "orders", '{"id": 9, "amount": 150}')["id"]

    def confirmed() -> bool:
        runs = checkout.ordinaut("run", "list", "--task", "big-orders")
        return any(run["cause"].get("id") == event and run["state"] == "succeeded" for run in runs)

    _wait(confirmed, checkout.terminal)
    assert checkout.ordinaut("event", "publish", "orders", '{"id": 9, "amount": 50}')["runs"] == []


def _failure_and_retry(checkout: Checkout, service: Service) -> None:
    service.answers = [(503, None)]
    given = json.dumps({"url": service.url})
    run = checkout.ordinaut("task", "run", "failure-and-retry", "--follow", "--input", given)
    assert run["steps"][0]["attempt"] == 2
    assert run["steps"][1]["input"] == {"message": f"{service.url} answered 200 in the end"}


def _heartbeat(checkout: Checkout, service: Service) -> None:
    def beat() -> bool:
        runs = checkout.ordinaut("run", "list", "--task", "heartbeat", "--state", "succeeded")
        return any(run["cause"]["kind"] == "schedule" for run in runs)

    _wait(beat, checkout.terminal)


def _morning_briefing(checkout: Checkout, service: Service) -> None:
    run = checkout.ordinaut("task", "run", "morning-briefing", "--follow")
    assert service.asked[0].path == "/Chisinau?format=j1"
    assert run["steps"][1]["input"] == {"message": "Chisinau today: Sunny"}


CHECKS: dict[str, Callable[[Checkout, Service], None]] = {
    "big-orders": _big_orders,
    "failure-and-retry": _failure_and_retry,
    "heartbeat": _heartbeat,
    "morning-briefing": _morning_briefing,
}
