"""One environment a peer, below `.bench/venvs/<name>`, made when it is missing or its packages changed."""

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Peer:
    """A system to compare with: what to install, and how many jobs a throughput round has."""

    name: str
    title: str
    requirements: tuple[str, ...]
    jobs: int


PEERS = (
    Peer("pgqueuer", "pgqueuer", ("pgqueuer[asyncpg]>=1.6", "uvloop"), 125_000),
    Peer("taskiq", "taskiq (Redis Streams)", ("taskiq>=0.13", "taskiq-redis>=1.2", "uvloop"), 20_000),
    Peer("celery", "Celery (Redis)", ("celery[redis]>=5.7",), 10_000),
    Peer("procrastinate", "procrastinate", ("procrastinate>=3.10", "psycopg[binary,pool]"), 10_000),
    Peer("dbos", "DBOS", ("dbos>=3.4",), 10_000),
)


def python_of(peer: Peer) -> Path:
    """The peer's interpreter, its environment made if need be. Raises RuntimeError with pip's words."""
    directory = ROOT / ".bench" / "venvs" / peer.name
    python = directory / "bin" / "python"
    stamp = directory / "installed"
    wanted = "\n".join((sys.version, *peer.requirements))
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    venv.create(directory, with_pip=True, clear=True)
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"pip could not install {' '.join(peer.requirements)}: {done.stderr.strip()[-600:]}"
        )
    stamp.write_text(wanted)
    return python
