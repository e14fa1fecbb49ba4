"""Reads that wait for entries, as many at once as it takes: one, or in a cluster one for each hash slot."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ordinaut.intake.source import entries_of, text
from ordinaut.runtime.entries import Entry
from ordinaut.runtime.redis_client import read_group, slot_of
from ordinaut.runtime.streams import GROUP

BATCH = 1000
"""How many entries are read at once at the most, over all streams together (at least one of each)."""

BLOCK_MS = 250
"""How long one read waits for entries; a new stream and the end of the process wait that long too."""

SLOT_BLOCK_MS = 1000
"""The same where each hash slot has a read of its own: nobody waits for them but the end of the process."""

AT_ONCE = 64
"""Reads that wait at once. Where there are more hash slots they take turns, and each waits less long."""

HANGS_SECONDS = 15.0
"""A read that has not come back by then will not."""


@dataclass(frozen=True, slots=True)
class Read:
    """What came of one read of `streams`: entries, or an error. `full`: a stream may have more."""

    streams: Sequence[str]
    entries: Sequence[Entry] = ()
    full: bool = False
    error: RedisError | OSError | None = None


class Reads:
    """The reads of one consumer. One that waits goes on waiting while others are dealt with."""

    def __init__(self, redis: Redis, consumer: str) -> None:
        self._redis = redis
        self._consumer = consumer
        self._waiting: dict[int, asyncio.Task[Read]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def next(self, streams: Sequence[str], count: int) -> list[Read]:
        """The reads that are back, at the latest after `BLOCK_MS`; each stream is read again by the next
        call. `count` entries are asked for, over all streams together."""
        slots: dict[int, list[str]] = {}
        for stream in streams:
            slots.setdefault(slot_of(self._redis, stream), []).append(stream)
        if len(slots) == 1 and not self._waiting:
            return [await self._read(streams, max(1, count // len(streams)), BLOCK_MS)]
        # Where many take turns, all of them have had one after about as long.
        block = max(1, SLOT_BLOCK_MS * min(len(slots), AT_ONCE) // len(slots))
        for slot, names in slots.items():
            if slot not in self._waiting:
                read = self._read(names, max(1, count // len(streams)), block)
                self._waiting[slot] = asyncio.create_task(read, name=f"intake-read-{slot}")
        back, _ = await asyncio.wait(
            self._waiting.values(), timeout=BLOCK_MS / 1000, return_when=asyncio.FIRST_COMPLETED
        )
        return self._take(back)

    async def finish(self) -> list[Read]:
        """The reads that still wait, when they are back."""
        if not self._waiting:
            return []
        back, _ = await asyncio.wait(self._waiting.values())
        return self._take(back)

    def cancel(self) -> None:
        """Wait no more. What Redis has already given out is for others to take over."""
        for task in self._waiting.values():
            task.cancel()

    def _take(self, back: set["asyncio.Task[Read]"]) -> list[Read]:
        self._waiting = {slot: task for slot, task in self._waiting.items() if task not in back}
        return [task.result() for task in back]

    async def _read(self, streams: Sequence[str], count: int, block_ms: int) -> Read:
        entries: list[Entry] = []
        try:
            async with self._turns, asyncio.timeout(HANGS_SECONDS):
                reply: list[tuple[Any, Any]] = await read_group(
                    self._redis, GROUP, self._consumer, streams, count=count, block_ms=block_ms
                )
        except (RedisError, OSError) as error:
            return Read(streams, error=error)
        for key, raw in reply:
            entries += entries_of(text(key), raw)
        return Read(streams, entries, full=any(len(raw) >= count for _, raw in reply))
