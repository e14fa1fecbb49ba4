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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from redis.exceptions import RedisError

from ordinaut.intake import source as sources
from ordinaut.intake.batch import Batch
from ordinaut.intake.claim import Held, claim, give_back, keep
from ordinaut.intake.log_events import LogEvents
from ordinaut.intake.pressure import LEAST_SECONDS, Pressure
from ordinaut.intake.reads import BATCH, BLOCK_MS, Read, Reads
from ordinaut.intake.record import AWAY, DeadLetter, Recorder
from ordinaut.intake.shards import Shards
from ordinaut.intake.source import Source
from ordinaut.intake.watch import Watch
from ordinaut.intake.windows import Windows
from ordinaut.log.wake import PROJECTED, Wake
from ordinaut.runtime.entries import Entry, History
from ordinaut.runtime.streams import DEAD, GROUP, streams_of
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex

HEAD_START_SECONDS = 0.001
"""What a batch gets before the next one is asked for, so that asking does not delay its append."""

GONE_LEASES = 20
"""A consumer that was not heard of for so many leases, with nothing in hand, is gone for good."""

DISCOVER_SECONDS = 5.0
"""How often Redis is asked for the streams that patterns stand for: it looks at every key it has."""

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
        self._holds: list[Held] = []
        self._owed: deque[tuple[Sequence[DeadLetter], Held]] = deque()
        self.consumer = f"intake-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._reads = Reads(self._redis, self.consumer)
        self._shards = Shards(self._redis)
        self._watch = Watch(self._redis, self._shards)
        self._batch = Batch(BATCH)
        settings = system.settings
        self.pressure = Pressure(
            system.pool, settings.queue_high_water, settings.poll_seconds, lambda: self._requested
        )
        self._reactions = LogEvents(system, self._index, self.pressure)
        self._windows = Windows(system, self.pressure)
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

    @property
    def unreadable(self) -> str | None:
        """A sentence while streams that tasks listen to cannot be read."""
        return sources.unreadable(self._sources.values())

    @property
    def _requested(self) -> int:
        return self._recorder.matched + self._reactions.matched + self._windows.requested

    async def run(self, stop: asyncio.Event) -> None:
        """Take entries in, and the log's own events; outages of either server are waited out. At the end the
        batch in hand is finished, or left unacknowledged for others when it cannot be."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reactions.run(stop), name="log-events")
            group.create_task(self._windows.run(stop), name="windows")
            await self._take_entries(stop)

    async def _take_entries(self, stop: asyncio.Event) -> None:
        unhear = self._system.notifications.hear(PROJECTED, self._heard)
        keeping = asyncio.create_task(self._keep_hold(), name="intake-hold")
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
                entries = self._entries(await self._reads.finish())
                await self._settle()
                if entries:
                    await self._take_in(entries, stop)
                await self._pay()
        finally:
            unhear()
            keeping.cancel()
            self._reads.cancel()
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
        if await self.pressure.hold():
            await self._settle()
            if entries := self._entries(await self._reads.finish()):
                await self._take_in(entries, stop)
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
            if not source.ready and not self._shards.away(name):
                listeners = self._index.listening(name)
                try:
                    await sources.prepare(self._redis, source, listeners, self._system.pool)
                    self._shards.answered(name)
                except RedisError as error:
                    self._shards.failed(name, error)
        if not self._readable() and (reason := self._shards.trouble(self._sources)):
            raise reason

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
        return self._entries(
            await self._reads.next([source.stream for source in readable], self._batch.count)
        )

    def _entries(self, reads: Sequence[Read]) -> list[Entry]:
        """What was read. Raises why a read failed, unless it is one of a cluster's many."""
        found: list[Entry] = []
        for read in reads:
            if read.error is not None:
                self._lost(read.streams, read.error)
            for name, last in {entry.stream: entry for entry in read.entries}.items():
                if name in self._sources:
                    self._sources[name].saw(last)
            found += read.entries
        self._batch.read(found, full=any(read.full for read in reads))
        return found

    def _lost(self, streams: Sequence[str], error: Exception) -> None:
        """Redis does not say which group is gone: look at all of those that were asked for. Raises `error`
        when it is something else, and there is one server only."""
        if not str(error).startswith(_LOST):
            self._shards.failed(streams[0], error)
        for name in streams:
            if name in self._sources:
                self._sources[name].ready = False
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
            except RedisError as error:
                self._lost([source.stream], error)

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
        with self._holding(held):
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

    @contextmanager
    def _holding(self, held: Held) -> Iterator[None]:
        """While this lasts no other intake takes these entries for left behind."""
        self._holds.append(held)
        try:
            yield
        finally:
            self._holds.remove(held)

    async def _keep_hold(self) -> None:
        while True:
            await asyncio.sleep(self._system.settings.lease_seconds / 3)
            for stream, ids in [one for held in self._holds for one in held.items()]:
                with suppress(RedisError, OSError, TimeoutError):
                    await keep(self._redis, self.consumer, {stream: ids})

    async def _pay(self) -> None:
        """Copy and acknowledge what is recorded. What Redis did not take, it is given again when it is back:
        it was not the entries' fault."""
        for _ in range(len(self._owed)):
            dead, held = self._owed[0]
            unpaid: Held = held
            if await self._copied(dead):
                dead = ()
                self._owed[0] = (dead, held)
                unpaid = await self._acknowledge(held)
            self._owed.popleft()
            if unpaid:
                self._owed.append((dead, unpaid))

    async def _acknowledge(self, held: Held) -> Held:
        """What could not be acknowledged because its master is away. Raises without a cluster."""
        unpaid: Held = {}
        for streams in self._shards.split(held):
            theirs = {stream: held[stream] for stream in streams}
            try:
                if self._shards.away(streams[0]):
                    unpaid |= theirs
                else:
                    await self._acknowledge_at_once(theirs)
            except RedisError as error:
                self._shards.failed(streams[0], error)
                unpaid |= theirs
        return unpaid

    async def _acknowledge_at_once(self, held: Held) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream, entry_ids in held.items():
                pipeline.xack(stream, GROUP, *entry_ids)
            for answer in await pipeline.execute(raise_on_error=False):
                if isinstance(answer, RedisError) and not str(answer).startswith(_LOST):
                    raise answer

    async def _copied(self, dead: Sequence[DeadLetter]) -> bool:
        """Whether the copies are in `ordinaut:dead`. Raises without a cluster."""
        if dead and self._shards.away(DEAD):
            return False
        try:
            await self._copy_dead(dead)
        except RedisError as error:
            self._shards.failed(DEAD, error)
            return False
        return True

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
