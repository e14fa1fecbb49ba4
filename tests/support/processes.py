"""Real processes of Ordinaut for tests: started, killed, frozen and drained as an operator would."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from socket import socket
from typing import Self

ROOT = Path(__file__).resolve().parents[2]

_READY = re.compile(r'"event": ?"ready"')


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at this moment."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OrdinautProcess:
    """One process running the command line `ordinaut ARGUMENTS…`, its output captured in a file.

    Its environment is the test's without any ORDINAUT_ variable, plus `env`.
    """

    main = "import sys; from ordinaut.cli.main import main; sys.exit(main())"
    """The program the process runs."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], output: Path) -> None:
        self.arguments = list(arguments)
        self.output_path = output
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ORDINAUT_")},
            "PYTHONUNBUFFERED": "1",
            **env,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it; called again after an end it starts a new process with the same settings."""
        assert not self.alive, "still running"
        with self.output_path.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", self.main, *self.arguments],
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        """The process id of the running (or last) process."""
        assert self._process is not None, "never started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs (a frozen process does)."""
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """Everything it wrote so far, stdout and stderr together, over all its starts."""
        return self.output_path.read_text(errors="replace") if self.output_path.exists() else ""

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone. Does nothing when it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def freeze(self) -> None:
        """SIGSTOP: it stays, but does nothing, as a machine would that hangs."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT after `freeze`."""
        self.send(signal.SIGCONT)

    def terminate(self, timeout: float = 40.0) -> int:
        """SIGTERM, wait for the end; its exit code. Fails the test after `timeout` seconds."""
        self.send(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = 40.0) -> int:
        """Wait for its end; its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.arguments} did not end in {timeout:g} s:\n{self.tail()}") from None

    def tail(self, lines: int = 40) -> str:
        """The last lines of its output, for a failure's message."""
        return "\n".join(self.output.splitlines()[-lines:])


class RoleProcess(OrdinautProcess):
    """`ordinaut serve ROLE…` as a process of its own."""

    def __init__(self, roles: Sequence[str], env: Mapping[str, str], output: Path) -> None:
        self.roles = list(roles)
        self.port = int(env.get("ORDINAUT_PORT") or free_port())
        settings = {"ORDINAUT_PORT": str(self.port), "ORDINAUT_LOG_FORMAT": "json", **env}
        super().__init__(["serve", *self.roles], settings, output)
        self._ready_seen = 0

    @property
    def api(self) -> str:
        """The API's URL, if `api` is among the roles."""
        return f"http://127.0.0.1:{self.port}"

    def wait_ready(self, timeout: float = 30.0) -> Self:
        """Wait until every role runs: the line with event `ready`, and with the api /health/ready.

        Fails the test with the end of the output when the process ends or the time is over.
        """
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            if not self.alive:
                raise AssertionError(f"{self.roles} ended while starting:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.roles} not ready in {timeout:g} s:\n{self.tail()}")
            time.sleep(0.02)
        self._ready_seen = len(_READY.findall(self.output))
        return self

    def _is_ready(self) -> bool:
        if len(_READY.findall(self.output)) <= self._ready_seen:
            return False
        if "api" not in self.roles:
            return True
        try:
            with urllib.request.urlopen(f"{self.api}/health/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
