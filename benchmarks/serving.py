"""Starting `ordinaut` for a measurement: its command, its environment, and the no-op tool it is given."""

import asyncio
import os
import socket
import subprocess
import sys
import time

import httpx

from benchmarks.venvs import ROOT

CONCURRENCY = 1000
"""Runs a worker process carries at once: the size of pgqueuer's batch."""

TOOL = ROOT / ".bench" / "tool"
_ENTRY_POINTS = "[ordinaut.tools]\nbench.noop = benchmarks.noop_tool:noop\n"
_METADATA = "Metadata-Version: 2.1\nName: ordinaut-bench-tool\nVersion: 0\n"


def program() -> list[str]:
    """The `ordinaut` command of the environment this runs in."""
    return [sys.executable, "-c", "from ordinaut.cli.main import main; main()"]


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(port: int) -> dict[str, str]:
    """What the served processes need beside the servers' URLs; makes the no-op tool findable."""
    information = TOOL / "ordinaut_bench_tool-0.dist-info"
    information.mkdir(parents=True, exist_ok=True)
    (information / "entry_points.txt").write_text(_ENTRY_POINTS)
    (information / "METADATA").write_text(_METADATA)
    database, redis_url = os.environ["BENCH_DATABASE_URL"], os.environ["BENCH_REDIS_URL"]
    return {
        "ORDINAUT_DATABASE_URL": database,
        "ORDINAUT_REDIS_URL": redis_url,
        "ORDINAUT_PORT": str(port),
        "ORDINAUT_LOG_LEVEL": "warning",
        "ORDINAUT_WORKER_CONCURRENCY": str(CONCURRENCY),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(TOOL))),
    }


def prepare() -> str:
    """`ordinaut migrate` and `ordinaut key issue`: answers with an admin key."""
    extra = environment(0)
    run("migrate", extra)
    issued = subprocess.run(
        [*program(), "key", "issue", "bench", "--role", "admin"],
        env={**os.environ, **extra},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if issued.returncode != 0:
        raise RuntimeError(f"ordinaut key issue ended with {issued.returncode}: {issued.stderr[-1500:]}")
    return issued.stdout.strip()


def run(command: str, extra: dict[str, str]) -> tuple[float, int]:
    """Runs an `ordinaut` command to its end: (seconds, peak resident bytes of its process)."""
    start = time.monotonic()
    process = subprocess.Popen(
        [*program(), *command.split()],
        env={**os.environ, **extra},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"ordinaut {command} ended with {process.returncode}: {said[-1500:].decode()}")
    # Kilobytes on Linux, bytes on macOS (getrusage(2)).
    unit = 1 if sys.platform == "darwin" else 1024
    return time.monotonic() - start, usage.ru_maxrss * unit


def client(port: int, key: str = "") -> httpx.AsyncClient:
    """A client of what listens on `port`, with a key for the API."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=10)


async def wait_ready(http: httpx.AsyncClient, path: str = "/health/ready", seconds: float = 30) -> None:
    """Waits until `path` answers 200. Raises RuntimeError with the last answer."""
    deadline = time.monotonic() + seconds
    last = "nothing answers"
    while time.monotonic() < deadline:
        try:
            answer = await http.get(path)
            if answer.status_code == 200:
                return
            last = f"{answer.status_code} {answer.text[:500]}"
        except httpx.TransportError as error:
            last = f"{type(error).__name__}: {error}"
        await asyncio.sleep(0.05)
    raise RuntimeError(f"{path} was not ready after {seconds:.0f} s: {last}")
