"""Looking at the streams from time to time: how far behind the group is, and what it will never read."""

import time
from collections.abc import Collection

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from ordinaut.intake.shards import Shards
from ordinaut.runtime.metrics import ENTRIES_GONE, STREAM_LAG, STREAM_PENDING
from ordinaut.runtime.stream_health import Look, gone_unread, look

SECONDS, STREAMS_A_SECOND = 2.0, 50
"""How often each stream is looked at; less often where there are many."""

MOST_LABELS = 100
"""Streams that have a time series of their own: those that are furthest behind."""

logger = structlog.get_logger(__name__)


class Watch:
    """What was seen of each stream last. `lags` are their unread entries (None: Redis does not know)."""

    def __init__(self, redis: Redis, shards: Shards) -> None:
        self._redis = redis
        self._shards = shards
        self._at = 0.0
        self._streams: frozenset[str] = frozenset()
        self._looks: dict[str, Look] = {}
        self._gone: dict[str, int] = {}
        self.lags: dict[str, int | None] = {}

    async def look(self, streams: Collection[str]) -> None:
        """Look at these streams, if it is time to. Raises what redis raises when it is away."""
        now, wanted = time.monotonic(), frozenset(streams)
        if now < self._at and wanted == self._streams:
            return
        self._streams = wanted
        self._at = now + max(SECONDS, len(streams) / STREAMS_A_SECOND)
        for stream in streams:
            if self._shards.away(stream):
                continue
            seen = None
            try:
                seen = await look(self._redis, stream)
            except ResponseError:
                pass  # whoever reads it says what is wrong
            except RedisError as error:
                self._shards.failed(stream, error)
            if seen is not None:
                self._compare(stream, seen)
        for stream in self._looks.keys() - wanted:
            del self._looks[stream]
            self._gone.pop(stream, None)
            self.lags.pop(stream, None)
        self._show()

    def _compare(self, stream: str, seen: Look) -> None:
        before = self._looks.get(stream)
        gone = gone_unread(seen, before)
        same = before is not None and before.delivered == seen.delivered
        known = self._gone.get(stream, 0) if same else 0
        if gone > known:
            ENTRIES_GONE.inc(gone - known)
            logger.warning("intake.entries_gone_unread", stream=stream, entries=gone - known)
        self._gone[stream] = max(gone, known)
        self._looks[stream] = seen
        self.lags[stream] = seen.lag

    def _show(self) -> None:
        STREAM_LAG.clear()
        STREAM_PENDING.clear()
        behind = sorted(self._looks.items(), key=lambda one: -((one[1].lag or 0) + one[1].pending))
        for stream, seen in behind[:MOST_LABELS]:
            STREAM_PENDING.labels(stream).set(seen.pending)
            if seen.lag is not None:
                STREAM_LAG.labels(stream).set(seen.lag)
