"""Ids that are computed from what they stand for, so that two who compute one get the same.

UUID version 8 (RFC 9562, section 5.8): 48 bits of milliseconds since the epoch, then a hash.
Time first keeps the indexes growing at their right edge; the hash makes them deterministic (I7).
"""

import hashlib
import os
import time
import uuid
from datetime import datetime


def _uuid8(milliseconds: int, digest: bytes) -> str:
    time, rest = f"{milliseconds & 0xFFFF_FFFF_FFFF:012x}", digest[:10].hex()
    # The version is all of a digit (8), the variant the upper two bits of one (10).
    variant = "89ab"[digest[2] >> 4 & 0b11]
    return f"{time[:8]}-{time[8:]}-8{rest[1:4]}-{variant}{rest[5:8]}-{rest[8:]}"


def _digest(parts: tuple[str, ...]) -> bytes:
    # Length-prefixed, so that ("a", "bc") and ("ab", "c") differ.
    framed = b""
    for part in parts:
        data = part.encode()
        framed += len(data).to_bytes(4, "big") + data
    return hashlib.blake2b(framed, digest_size=16).digest()


def cause_id(milliseconds: int, *parts: str) -> str:
    """The id of what happened at `milliseconds` (since the epoch, UTC) because of `parts`."""
    return _uuid8(milliseconds, _digest(parts))


def task_id(space: str, name: str) -> str:
    """A task's id. Names are unique within a space and never change, so the id follows from them;
    two who create the same name therefore meet on one stream and the log lets one through."""
    digest = _digest(("task", space, name))
    return _uuid8(int.from_bytes(digest[10:16], "big"), digest)


def scheduled_run_id(task: str, at: datetime) -> str:
    """The run of one scheduled instant of a task, whichever clock fires it."""
    milliseconds = int(at.timestamp() * 1000)
    return cause_id(milliseconds, "schedule", task, str(milliseconds))


def backfilled_run_id(task: str, at: datetime) -> str:
    """The run that a backfill gives an instant of a task whose verdict is that it was skipped, whichever
    backfill it is: a skipped instant is run once."""
    milliseconds = int(at.timestamp() * 1000)
    return cause_id(milliseconds, "backfill", task, str(milliseconds))


def rerun_id(backfill: str, task: str, at: datetime) -> str:
    """The run that the backfill `backfill` gives an instant of a task that has a run already."""
    milliseconds = int(at.timestamp() * 1000)
    return cause_id(milliseconds, "rerun", backfill, task, str(milliseconds))


def entry_run_id(space: str, stream: str, entry: str, task: str, digest: str = "") -> str:
    """The run a task gets for one Redis stream entry (`entry` is its id, `<ms>-<seq>`). `digest`, of its
    fields, is told where another entry had the same id before: the stream was deleted and began anew."""
    return cause_id(entry_ms(entry), "entry", space, stream, entry, task, *([digest] if digest else []))


def rejection_id(space: str, stream: str, entry: str, task: str, digest: str = "") -> str:
    """The rejection of an entry for one task, or ("") for the entry as such. `digest`: see `entry_run_id`."""
    return cause_id(entry_ms(entry), "rejected", space, stream, entry, task, *([digest] if digest else []))


def entry_ms(entry: str) -> int:
    """The milliseconds an entry's id begins with; 0 when it does not."""
    head = entry.partition("-")[0]
    return int(head) if head.isascii() and head.isdigit() else 0


def system_run_id(milliseconds: int, position: int, task: str) -> str:
    """The run a task gets for the log's event at `position`, which was appended at `milliseconds`."""
    return cause_id(milliseconds, "system", str(position), task)


def replayed_run_id(run: str) -> str:
    """The run that a replay gives a stream entry whose verdict is that it was skipped, whichever replay it
    is; `run` is the id of the run that the entry would have had otherwise."""
    return cause_id(uuid.UUID(run).int >> 80, "replay", run)


def replayed_again_id(backfill: str, run: str) -> str:
    """The run that the replay `backfill` gives a stream entry that has one; `run` is as above."""
    return cause_id(uuid.UUID(run).int >> 80, "rerun", backfill, run)


def window_run_id(milliseconds: int, task: str, key: str, first: int, last: int) -> str:
    """The run for the events that a task's window held, collected at the positions `first` to `last`."""
    return cause_id(milliseconds, "window", task, key, str(first), str(last))


def new_id() -> str:
    """A fresh id for something that has no natural cause (a request without an Idempotency-Key)."""
    return _uuid8(time.time_ns() // 1_000_000, os.urandom(10))


def keyed_id(milliseconds: int, *parts: str) -> str:
    """The id for an Idempotency-Key: `parts` alone decide the hash, so pass a time that repeats too."""
    return cause_id(milliseconds, "key", *parts)
