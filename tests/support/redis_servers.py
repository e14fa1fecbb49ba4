"""Servers of the Redis protocol that a test configures, starts and breaks by itself."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis.asyncio import Redis

from ordinaut.runtime.embedded_process import last_lines, spawn
from ordinaut.runtime.embedded_redis import server_binary
from tests.support.eventually import eventually

HOST = "127.0.0.1"

Options = Mapping[str, str | int]


def debian_redis() -> str | None:
    """Redis itself (Debian: package redis-server) where the machine has it; the embedded one is Valkey."""
    return shutil.which("redis-server")


def chosen_binary() -> str:
    """The program that the tests start: ORDINAUT_TEST_REDIS_BINARY, else the embedded Valkey."""
    return os.environ.get("ORDINAUT_TEST_REDIS_BINARY") or str(server_binary())


def free_port() -> int:
    """A TCP port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


async def needs(client: Redis, version: int, what: str) -> None:
    """Skip the test where the server's major version is older: it knows nothing of `what` then."""
    about: dict[str, str] = await client.info("server")
    if int(about["redis_version"].partition(".")[0]) < version:
        pytest.skip(f"Redis {about['redis_version']} knows nothing of {what}")


class RedisServer:
    """One server process in `directory`; `options` are those of its configuration file."""

    def __init__(
        self,
        directory: Path,
        options: Options | None = None,
        *,
        binary: str | None = None,
        port: int = 0,
        sentinel: str = "",
    ) -> None:
        self.directory = directory
        self.log = directory / "server.log"
        self.port = port or free_port()
        self._binary = binary or chosen_binary()
        self._sentinel = sentinel
        own = {"bind": HOST, "port": self.port, "dir": str(directory)}
        kept = {} if sentinel else {"save": '""', "appendonly": "no", "repl-diskless-sync-delay": 0}
        self.options: dict[str, str | int] = {**own, **kept, **(options or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where to connect."""
        return f"redis://{HOST}:{self.port}/0"

    def client(self) -> Redis:
        """A client of this one server, whatever it is part of; close it."""
        password = self.options.get("requirepass")
        return Redis(host=HOST, port=self.port, password=password, decode_responses=True)

    async def start(self) -> None:
        """Start it, and wait until its port is open."""
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "server.conf"
        lines = [f"{name} {value}" for name, value in self.options.items()]
        file.write_text("\n".join([*lines, self._sentinel, ""]))
        command = [self._binary, str(file), *(["--sentinel"] if self._sentinel else [])]
        self._process = spawn(command, self.directory, self.log)
        await eventually(self._is_open, timeout=30)

    def _is_open(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, last_lines(self.log)
        with socket.socket() as probe:
            port = int(self.options["port"]) or int(self.options["tls-port"])
            return probe.connect_ex((HOST, port)) == 0

    def kill(self) -> None:
        """kill -9; nothing if it does not run."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, which: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(which)


@asynccontextmanager
async def started(*servers: RedisServer) -> AsyncIterator[None]:
    """These servers run while the block lasts."""
    try:
        for server in servers:
            await server.start()
        yield
    finally:
        for server in servers:
            server.kill()


def tls_options(directory: Path, port: int) -> dict[str, str | int]:
    """A server that speaks TLS only, with a certificate for 127.0.0.1 by the authority in `ca.pem`."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST, "localhost")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    return {
        "port": 0,
        "tls-port": port,
        "tls-cert-file": str(directory / "cert.pem"),
        "tls-key-file": str(directory / "key.pem"),
        "tls-ca-cert-file": str(directory / "ca.pem"),
        "tls-auth-clients": "no",
    }


async def set_user(redis: Any, name: str, rules: str) -> None:
    """An ACL user with exactly these rules."""
    await redis.execute_command("ACL", "SETUSER", name, "reset", *rules.split())
