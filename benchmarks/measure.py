"""What every measurement shares, standard library only: it also runs inside the peers' environments.

A `Tally` is how a job says "I ran" without I/O in its way: a file per worker process, mapped into memory,
that holds a count and, for each job, when it was enqueued and when the first line of its handler ran.
Both instants are `time.monotonic()`, which on one machine is one clock for all processes.
"""

import math
import mmap
import os
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SAMPLES = 400_000
"""How many jobs one worker process can tally; later ones are counted and their instants dropped."""

_COUNT = struct.Struct("<q")
_SAMPLE = struct.Struct("<dd")


class Tally:
    """One process's record of the jobs it ran, at `directory/<pid>`."""

    def __init__(self, directory: Path) -> None:
        path = directory / str(os.getpid())
        with path.open("w+b") as file:
            file.truncate(_COUNT.size + SAMPLES * _SAMPLE.size)
            self._map = mmap.mmap(file.fileno(), 0)
        self._count = 0

    def hit(self, enqueued: float) -> None:
        """Records a job that was enqueued at `enqueued` and starts now."""
        now = time.monotonic()
        if self._count < SAMPLES:
            _SAMPLE.pack_into(self._map, _COUNT.size + self._count * _SAMPLE.size, enqueued, now)
        self._count += 1
        # Last, so that a reader never counts a sample that is not there yet.
        _COUNT.pack_into(self._map, 0, self._count)


_mine: tuple[int, Tally] | None = None


def hit(enqueued: float) -> None:
    """`Tally.hit` on this process's own tally, made at its first job (so also after a fork)."""
    global _mine
    if _mine is None or _mine[0] != os.getpid():
        _mine = os.getpid(), Tally(Path(os.environ["BENCH_TALLY"]))
    _mine[1].hit(enqueued)


def executed(directory: Path) -> int:
    """How many jobs have begun so far, over all worker processes."""
    total = 0
    for path in directory.iterdir():
        with path.open("rb") as file:
            head = file.read(_COUNT.size)
        if len(head) == _COUNT.size:
            total += _COUNT.unpack(head)[0]
    return total


def latencies(directory: Path, since: float) -> list[float]:
    """Seconds from enqueue to the handler's first line, of the jobs enqueued at or after `since`."""
    return [started - enqueued for enqueued, started in _samples(directory) if enqueued >= since]


def _samples(directory: Path) -> Iterator[tuple[float, float]]:
    for path in directory.iterdir():
        content = path.read_bytes()
        count = min(_COUNT.unpack_from(content)[0], SAMPLES)
        yield from _SAMPLE.iter_unpack(content[_COUNT.size : _COUNT.size + count * _SAMPLE.size])


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
