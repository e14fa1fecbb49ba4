"""`ordinaut dev`: one command, everything runs, and whatever happened before, it starts or says why not."""

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ordinaut.runtime.embedded import EmbeddedServers, read_dev_json
from tests.support.commands import ordinaut
from tests.support.eventually import eventually
from tests.support.processes import OrdinautProcess, free_port

SECONDS = 90.0
"""The longest wait for anything: a busy machine is not a failure."""


def ask(api: str, path: str, key: str = "") -> Any:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with urllib.request.urlopen(urllib.request.Request(api + path, headers=headers), timeout=5) as answer:
        return json.load(answer)


def is_ready(api: str) -> bool:
    try:
        return bool(ask(api, "/health/ready")["status"])
    except OSError as error:
        raise AssertionError(error) from None


async def ready(process: OrdinautProcess, api: str) -> None:
    def check() -> bool:
        if not process.alive:
            pytest.fail(process.tail())
        return is_ready(api)

    await eventually(check, timeout=SECONDS, every=0.1)


def succeeded(api: str, key: str, task: str) -> list[str]:
    found = ask(api, f"/v1/runs?task={task}&state=succeeded", key)["items"]
    return [run["cause"]["kind"] for run in found]


def left_behind(directory: Path) -> list[Path]:
    return list(directory.glob("ordinaut-ephemeral-*"))


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A data directory; what a test leaves running there is stopped."""
    yield tmp_path / "data"
    with EmbeddedServers(tmp_path / "data"):
        pass


async def test_everything_runs_survives_kill_9_and_stops_in_order(directory: Path, tmp_path: Path) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}"
    dev = OrdinautProcess(
        ["dev", "--port", str(port), "--data-dir", str(directory)], {}, tmp_path / "dev.log"
    ).start()
    try:
        await ready(dev, api)
        assert (read_dev_json(directory) or {})["api"] == api
        key = (directory / "admin-key").read_text().strip()
        assert (directory / "admin-key").stat().st_mode & 0o777 == 0o600

        # One task by its schedule, one by an order that dev adds to the stream.
        await eventually(lambda: "schedule" in succeeded(api, key, "heartbeat"), timeout=SECONDS)
        await eventually(lambda: "stream" in succeeded(api, key, "big-orders"), timeout=SECONDS)
        await eventually(lambda: "due by its schedule" in dev.output, timeout=SECONDS)
        await eventually(lambda: "triggered by an entry of orders" in dev.output, timeout=SECONDS)
        assert dev.output.count(key) == 1

        second = ordinaut("dev", "--port", str(free_port()), "--data-dir", str(directory))
        assert second.returncode == 1
        sentence = second.stderr.splitlines()[-1]
        assert str(dev.pid) in sentence and api in sentence

        before = len(succeeded(api, key, "big-orders"))
        dev.kill()
        dev.start()
        await ready(dev, api)
        assert len(succeeded(api, key, "big-orders")) >= before
        await eventually(lambda: "in " + str(directory / "admin-key") in dev.output, timeout=SECONDS)
        assert dev.output.count(key) == 1
        assert ordinaut("doctor", env={"ORDINAUT_DATA_DIR": str(directory)}).returncode == 0

        dev.send(signal.SIGINT)
        assert dev.wait() == 0
        assert not (directory / "dev.json").exists()
        assert "Traceback" not in dev.output
    finally:
        dev.kill()


async def test_an_ephemeral_one_keeps_nothing(tmp_path: Path) -> None:
    port = free_port()
    arguments = ["dev", "--ephemeral", "--no-examples", "--port", str(port)]
    # Its path is too long for a socket, as a temporary directory's may be.
    place = tmp_path / ("long" * 20)
    place.mkdir()
    dev = OrdinautProcess(arguments, {"TMPDIR": str(place)}, tmp_path / "dev.log").start()
    try:
        await ready(dev, f"http://127.0.0.1:{port}")
        assert dev.terminate() == 0
        assert not left_behind(place)
    finally:
        dev.kill()


def test_a_taken_port_is_one_sentence_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        answer = ordinaut("dev", "--port", str(port), "--data-dir", str(tmp_path / "data"))
    assert answer.returncode == 1
    sentence = answer.stderr.splitlines()[-1]
    assert f"port {port}" in sentence and "--port" in sentence
    assert not (tmp_path / "data" / "pg").exists()


def test_a_data_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = ordinaut("dev", "--port", str(free_port()), "--data-dir", str(tmp_path / "file"))
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert os.fspath(tmp_path / "file") in answer.stderr
