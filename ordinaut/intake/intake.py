"""The role `intake`: reads Redis streams with a consumer group and records what their entries mean.

An entry is acknowledged (XACK) only when its verdicts are on PostgreSQL's disk and its rejection, if
any, is in `ordinaut:dead`. Whatever happens before that, it is read again, by this process or by
another that claims it, and comes to the same runs (I7). Any number of intakes may share the work.
"""

import asyncio
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from redis.exceptions import RedisError, ResponseError

from ordinaut.intake import source as sources
from ordinaut.intake.batch import Batch
from ordinaut.intake.claim import Held, claim, give_back, keep
from ordinaut.intake.log_events import LogEvents
from ordinaut.intake.pressure import LEAST_SECONDS, Pressure
from ordinaut.intake.record import AWAY, DeadLetter, Recorder
from ordinaut.intake.source import Source
from ordinaut.intake.watch import Watch
from ordinaut.intake.windows import Windows
from ordinaut.log.wake import PROJECTED, Wake
from ordinaut.runtime.entries import Entry, History
from ordinaut.runtime.streams import DEAD, GROUP, streams_of
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex

BATCH = 1000
"""How many entries are read at once at the most, over all streams together (at least one of each)."""

BLOCK_MS = 250
"""How long one read waits for entries; a new stream and the end of the process wait that long too."""

HEAD_START_SECONDS = 0.001
"""What a batch gets before the next one is asked for, so that asking does not delay its append."""

GONE_LEASES = 20
"""A consumer that was not heard of for so many leases, with nothing in hand, is gone for good."""

DISCOVER_SECONDS = 5.0
"""How often Redis is asked for the streams that patterns stand for: it looks at every key it has."""

HANGS_SECONDS = 15.0
"""A read that has not come back by then will not."""

DEAD_MAXLEN = 100_000
"""Entries kept, about, in `ordinaut:dead`; the log keeps the reason of every one."""

_LOST = ("NOGROUP", "UNBLOCKED", "WRONGTYPE")
"""What Redis says when a group or a stream is gone, or the key has become something else."""

logger = structlog.get_logger(__name__)


class Intake:
    """Reads the streams that tasks listen to until told to stop.

    `received`, `matched` and `rejected` count entries, verdicts and rejections of this process; `lags`
    are the unread entries of each stream (None: unknown), as of a few seconds ago; `trouble` is a
    sentence while it cannot work, else None.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._redis = system.redis
        self._index = TriggerIndex(system.pool)
        self._recorder = Recorder(system, self._index)
        self._sources: dict[str, Source] = {}
        self._wake = Wake()
        self._found: frozenset[str] = frozenset()
        self._patterns: frozenset[str] = frozenset()
        self._look_at = self._claim_at = self._discover_at = 0.0
        self._in_hand: asyncio.Task[None] | None = None
        self._owed: deque[tuple[Sequence[DeadLetter], Held]] = deque()
        self.consumer = f"intake-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._watch = Watch(system.redis)
        self._batch = Batch(BATCH)
        settings = system.settings
        self.pressure = Pressure(system.pool, settings.queue_high_water, settings.poll_seconds)
        self.trouble: str | None = None

    @property
    def lags(self) -> dict[str, int | None]:
        """The unread entries of each stream (None: unknown), as of a few seconds ago."""
        return self._watch.lags

    @property
    def received(self) -> int:
        """Entries read and dealt with."""
        return self._recorder.received

    @property
    def matched(self) -> int:
        """Runs requested and occurrences skipped."""
        return self._recorder.matched

    @property
    def rejected(self) -> int:
        """Rejections: entries that cannot be read, and triggers that failed on one."""
        return self._recorder.rejected

    async def run(self, stop: asyncio.Event) -> None:
        """Take entries in, and the log's own events; outages of either server are waited out. At the end the
        batch in hand is finished, or left unacknowledged for others when it cannot be."""
        async with asyncio.TaskGroup() as group:
            group.create_task(LogEvents(self._system, self._index).run(stop), name="log-events")
            group.create_task(Windows(self._system).run(stop), name="windows")
            await self._take_entries(stop)

    async def _take_entries(self, stop: asyncio.Event) -> None:
        unhear = self._system.notifications.hear(PROJECTED, self._heard)
        try:
            while not stop.is_set():
                try:
                    await self._cycle(stop)
                except (RedisError, *AWAY) as error:
                    self._report(f"{type(error).__name__}: {error}")
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), self._system.settings.poll_seconds)
                else:
                    self._report(None)
            with suppress(RedisError, *AWAY):
                await self._settle()
                await self._pay()
        finally:
            unhear()
            if self._in_hand is not None:
                self._in_hand.cancel()
        await self._leave()

    def _heard(self, payload: str) -> None:
        if payload in ("", "tasks"):
            self._wake.set()
            self._look_at = 0.0

    def _report(self, trouble: str | None) -> None:
        if trouble is None and self.trouble is not None:
            logger.info("intake.recovered")
        elif trouble is not None and self.trouble is None:
            logger.warning("intake.waits", reason=trouble)
        self.trouble = trouble

    async def _cycle(self, stop: asyncio.Event) -> None:
        if self._in_hand is None:
            await self._pay()
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + self._system.settings.poll_seconds
            await self._index.refresh()
            await self._prepare()
        await self._watch.look([source.stream for source in self._readable()])
        if await self.pressure.hold(self._recorder.matched):
            await self._settle()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), min(self._system.settings.poll_seconds, LEAST_SECONDS))
            return
        if now >= self._claim_at:
            # After the first look at the streams, so a predecessor's entries are claimed at startup too.
            self._claim_at = now + self._system.settings.lease_seconds / 2
            await self._settle()
            await self._claim(stop)
        entries = await self._read()
        try:
            await self._settle()
        finally:
            if entries:
                # The next batch is read while this one is recorded; they are recorded one after another.
                self._in_hand = asyncio.create_task(self._take_in(entries, stop), name="intake-batch")
                await asyncio.wait([self._in_hand], timeout=HEAD_START_SECONDS)

    async def _settle(self) -> None:
        """Wait for the batch in hand; raises what became of it."""
        batch, self._in_hand = self._in_hand, None
        if batch is not None:
            await batch

    async def _prepare(self) -> None:
        """Make the groups that are missing."""
        await self._discover()
        for name in self._index.streams() | self._found:
            source = self._sources.setdefault(name, Source(name))
            if not source.ready:
                listeners = self._index.listening(name)
                await sources.prepare(self._redis, source, listeners, self._system.pool)

    async def _discover(self) -> None:
        """Look, now and then, for the streams that patterns stand for; those that are gone are left."""
        patterns, now = self._index.patterns(), time.monotonic()
        if now < self._discover_at and patterns == self._patterns:
            return
        self._discover_at, self._patterns = now + DISCOVER_SECONDS, patterns
        found = await streams_of(self._redis, patterns)
        for name in self._found - found - self._index.streams():
            self._sources.pop(name, None)
        self._found = found

    def _readable(self) -> list[Source]:
        return [source for source in self._sources.values() if source.ready]

    async def _read(self) -> list[Entry]:
        readable = self._readable()
        if not readable:
            await self._wake.wait(min(self._system.settings.poll_seconds, BLOCK_MS / 1000))
            return []
        try:
            async with asyncio.timeout(HANGS_SECONDS):
                reply = await self._redis.xreadgroup(
                    GROUP, self.consumer, {source.stream: ">" for source in readable},
                    count=max(1, self._batch.count // len(readable)), block=BLOCK_MS,
                )  # fmt: skip
        except ResponseError as error:
            if not str(error).startswith(_LOST):
                raise
            self._lost()
            return []
        found: list[Entry] = []
        for key, raw in reply.items() if isinstance(reply, dict) else reply or ():
            name = sources.text(key)
            if not (entries := sources.entries_of(name, raw)):
                continue
            self._sources[name].saw(entries[-1])
            found += entries
        self._batch.read(found)
        return found

    def _lost(self) -> None:
        """Redis does not say which group is gone: look at all of them."""
        for source in self._sources.values():
            source.ready = False
        self._look_at = self._discover_at = 0.0

    async def _claim(self, stop: asyncio.Event) -> None:
        """Take over what others left, and take those out of the groups who will not come back."""
        settings = self._system.settings
        for source in self._readable():
            if stop.is_set():
                return
            try:
                async for claimed in claim(
                    self._redis, source, self.consumer, idle_seconds=settings.lease_seconds,
                    most=settings.max_deliveries, count=self._batch.count,
                ):  # fmt: skip
                    logger.info("intake.claimed", stream=source.stream, entries=len(claimed.entries))
                    await self._take_in(claimed.entries, stop, claimed.before, claimed.histories)
                    if stop.is_set():
                        return
                await sources.tidy(self._redis, source, idle_seconds=GONE_LEASES * settings.lease_seconds)
            except ResponseError as error:
                if not str(error).startswith(_LOST):
                    raise
                self._lost()

    async def _take_in(
        self,
        entries: Sequence[Entry],
        stop: asyncio.Event,
        before: int = 0,
        histories: Mapping[str, History] | None = None,
    ) -> None:
        """Record what the entries mean, then acknowledge them; with `histories` they are rejected. While
        PostgreSQL is away the batch stays in hand; at the end of the process it is given back as it was,
        delivered `before` times."""
        held: Held = {}
        for entry in entries:
            held.setdefault(entry.stream, []).append(entry.id)
        async with self._holding(held):
            while True:
                try:
                    if histories:
                        dead = await self._recorder.reject_all(entries, self._sources, histories)
                    else:
                        dead = await self._recorder.record(entries, self._sources)
                    break
                except AWAY as error:
                    self._report(f"{type(error).__name__}: {error}")
                    if stop.is_set():
                        idle = self._system.settings.lease_seconds
                        await give_back(self._redis, self.consumer, held, before=before, idle_seconds=idle)
                        return
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), self._system.settings.poll_seconds)
        self._owed.append((dead, held))
        await self._pay()

    @asynccontextmanager
    async def _holding(self, held: Held) -> AsyncIterator[None]:
        """While this lasts no other intake takes these entries for left behind."""

        async def hold() -> None:
            while True:
                await asyncio.sleep(self._system.settings.lease_seconds / 3)
                with suppress(RedisError, OSError, TimeoutError):
                    await keep(self._redis, self.consumer, held)

        holding = asyncio.create_task(hold(), name="intake-hold")
        try:
            yield
        finally:
            holding.cancel()

    async def _pay(self) -> None:
        """Copy and acknowledge what is recorded. What Redis did not take, it is given again when it is back:
        it was not the entries' fault."""
        while self._owed:
            dead, held = self._owed[0]
            await self._copy_dead(dead)
            self._owed[0] = ((), held)
            async with self._redis.pipeline(transaction=False) as pipeline:
                for stream, entry_ids in held.items():
                    pipeline.xack(stream, GROUP, *entry_ids)
                for answer in await pipeline.execute(raise_on_error=False):
                    if isinstance(answer, RedisError) and not str(answer).startswith(_LOST):
                        raise answer
            self._owed.popleft()

    async def _copy_dead(self, dead: Sequence[DeadLetter]) -> None:
        """Put the copies into `ordinaut:dead`, at least once: a crash before XACK repeats them."""
        for start in range(0, len(dead), BATCH):
            async with self._redis.pipeline(transaction=False) as pipeline:
                for fields in dead[start : start + BATCH]:
                    letter: dict[Any, Any] = {**fields}
                    pipeline.xadd(DEAD, letter, maxlen=DEAD_MAXLEN, approximate=True)
                for answer in await pipeline.execute(raise_on_error=False):
                    if not isinstance(answer, RedisError):
                        continue
                    if not str(answer).startswith("WRONGTYPE"):
                        raise answer
                    # The log has the rejection; a key that is no stream must not hold all entries up.
                    logger.error("intake.no_dead_letter", key=DEAD, reason=str(answer))

    async def _leave(self) -> None:
        for source in self._readable():
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await sources.leave(self._redis, source, self.consumer)
