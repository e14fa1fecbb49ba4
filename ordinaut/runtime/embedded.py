"""The servers `ordinaut dev` and the tests bring along, in one directory that one process owns.

`DIR/lock` is held (flock) by the owner for as long as it lives, so a file left by a dead one is no
obstacle. `DIR/pg` and `DIR/valkey` are the servers' data; `DIR/dev.json` says where everything is.
If the owner is killed, its servers live on until the next start in the directory stops them.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

from ordinaut.domain.errors import OrdinautError
from ordinaut.runtime.embedded_postgres import EmbeddedPostgres
from ordinaut.runtime.embedded_redis import EmbeddedValkey

_EPHEMERAL = "ordinaut-ephemeral-"


class DirectoryInUse(OrdinautError):
    """Another process owns the data directory; the message is one sentence naming it."""

    slug = "directory-in-use"
    title = "Data directory in use"
    status = 409

    def __init__(self, directory: Path, pid: str, api: str | None) -> None:
        where = f", API at {api}" if api else ""
        super().__init__(
            f"{directory} is in use by another `ordinaut dev` (process {pid}{where}): "
            "stop that one, or give this one another --data-dir."
        )
        self.directory = directory
        self.api = api


class DirectoryUnusable(OrdinautError):
    """The data directory cannot be made or written by this user."""

    slug = "directory-unusable"
    title = "Data directory unusable"

    def __init__(self, directory: Path, error: OSError) -> None:
        super().__init__(
            f"{directory} cannot be used as a data directory ({error.strerror}: {error.filename}); "
            "give another --data-dir, or start this as the user it belongs to."
        )


class EmbeddedServers:
    """`with EmbeddedServers(directory) as servers:` — PostgreSQL and Valkey, started and stopped in order.

    Only what `database_url` / `redis_url` do not name is started. `ephemeral` uses a temporary
    directory instead, removed at the end. `fsync=False` is for throw-away data (tests).

    Blocking on purpose: enter it before the event loop starts, leave it after the loop has ended. Until
    it is left, a SIGTERM that nobody else handles raises SystemExit, so that the servers are stopped too.

    Raises `DirectoryInUse`, `DirectoryUnusable`, `ServerFailed` and `EmbeddedMissing`.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        database_url: str | None = None,
        redis_url: str | None = None,
        ephemeral: bool = False,
        fsync: bool = True,
        databases: int = 16,
    ) -> None:
        if not ephemeral and data_dir is None:
            raise ValueError("a data directory is needed unless the servers are ephemeral")
        self.data_dir = Path(data_dir or ".").resolve()
        self.database_url = database_url or ""
        self.redis_url = redis_url or ""
        self.postgres: EmbeddedPostgres | None = None
        self.redis: EmbeddedValkey | None = None
        self._ephemeral = ephemeral
        self._fsync = fsync
        self._databases = databases
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Own the directory and start what is missing; on any failure everything is undone."""
        with contextlib.ExitStack() as undo:
            undo.enter_context(_sigterm_raises())
            self._own(undo)
            undo.callback((self.data_dir / "dev.json").unlink, missing_ok=True)
            (self.data_dir / "dev.json").unlink(missing_ok=True)
            if not self.redis_url:
                self.redis = EmbeddedValkey(self.data_dir / "valkey", databases=self._databases)
                undo.callback(self.redis.stop)
                self.redis.start()
                self.redis_url = self.redis.url()
            if not self.database_url:
                self.postgres = EmbeddedPostgres(self.data_dir / "pg", fsync=self._fsync)
                undo.callback(self.postgres.stop)
                self.postgres.start()
                self.database_url = self.postgres.url()
            self._undo = undo.pop_all()

    def stop(self) -> None:
        """Stop PostgreSQL, then Valkey, remove dev.json, give up the directory. Does nothing if stopped.

        SIGINT and SIGTERM are ignored until that is done (well below a minute).
        """
        with _signals_ignored():
            self._undo.close()

    def _own(self, undo: contextlib.ExitStack) -> None:
        if not self._ephemeral:
            try:
                self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
                undo.callback(_lock(self.data_dir).close)
            except OSError as error:
                raise DirectoryUnusable(self.data_dir, error) from None
            return
        _sweep()
        while True:
            self.data_dir = Path(tempfile.mkdtemp(prefix=_EPHEMERAL)).resolve()
            try:
                undo.callback(_lock(self.data_dir).close)
            except DirectoryInUse:  # somebody's sweep came between making and locking it
                continue
            undo.callback(shutil.rmtree, self.data_dir, ignore_errors=True)
            return


def write_dev_json(data_dir: Path, *, api: str, database_url: str, redis_url: str) -> Path:
    """Tell scripts where everything is: `DIR/dev.json`, whole or not at all, readable by the owner only."""
    target = data_dir / "dev.json"
    beside = data_dir / f".dev.json.{os.getpid()}"
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"api": api, "database_url": database_url, "redis_url": redis_url}, file, indent=2)
        file.write("\n")
    beside.replace(target)
    return target


def read_dev_json(data_dir: Path) -> dict[str, str] | None:
    """What `DIR/dev.json` says ({"api", "database_url", "redis_url"}); None when there is none."""
    try:
        content = json.loads((data_dir / "dev.json").read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _lock(directory: Path) -> IO[str]:
    """Own `directory` until the answer is closed or this process ends, however it ends."""
    file = os.fdopen(os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = file.read().strip() or "unknown"
        file.close()
        dev = read_dev_json(directory)
        raise DirectoryInUse(directory, pid, dev.get("api") if dev else None) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _sweep() -> None:
    """Stop and remove what ephemeral predecessors left behind when they were killed."""
    for directory in Path(tempfile.gettempdir()).resolve().glob(f"{_EPHEMERAL}*"):
        with contextlib.suppress(OSError, OrdinautError):
            if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
                continue
            if not (directory / "lock").exists():
                continue  # just being made by somebody
            with _lock(directory):
                EmbeddedPostgres(directory / "pg").discard()
                EmbeddedValkey(directory / "valkey").discard()
                shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """While this lasts, SIGTERM ends the program by SystemExit unless somebody else handles it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(_number: int, _frame: Any) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is leave:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """While this lasts, SIGINT and SIGTERM do nothing (where the main thread asks for it)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A handler, not a signal mask: with other threads about, a mask on this one would not hold them off.
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
