"""How far sources have been read: whether events before an instant may not have been collected yet."""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from time import monotonic
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from ordinaut.domain.trigger import LOG
from ordinaut.intake.source import text
from ordinaut.log.append import Connection
from ordinaut.runtime.listening import is_pattern
from ordinaut.runtime.redis_client import cluster_of, time_of
from ordinaut.runtime.streams import GROUP, milliseconds, parse_id, streams_of

LOOK_SECONDS = 5.0
"""How often, at the most, Redis is asked for the streams that a pattern stands for."""

ANSWER_SECONDS = 5.0
"""How long Redis has for an answer, and for all the streams of a pattern."""

_UNREACHABLE = (RedisError, OSError, TimeoutError)

_NOTHING = 2**63

_FIRST_UNREAD = """
SELECT min(at) FROM events
 WHERE type = $1 AND position > (SELECT position FROM log_readers WHERE name = 'events')
"""


class _Found(NamedTuple):
    """The streams of a pattern as of an instant of the database's time, and of the clock here."""

    streams: frozenset[str]
    at: datetime
    looked: float


class Backlog:
    """Asks Redis and the log about sources (see domain/trigger.py), about each once until told to `forget`.

    Whoever decides by the answers asks first, and then reads from the log what has been collected: what a
    source is said to be done with is there.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._read_to: dict[str, int] = {}
        self._found: dict[str, _Found] = {}
        self._away = False

    def forget(self) -> None:
        """Ask anew."""
        self._read_to.clear()
        self._away = False

    async def ask(
        self, connection: Connection, sources: Iterable[str], until: datetime, now: datetime
    ) -> None:
        """Ask how far these have been read; for the streams of a pattern only where that has not been done
        since `until`, which is over `now`."""
        for source in sources:
            try:
                streams = await self._streams(source, until, now)
            except _UNREACHABLE as error:
                self._failed(error)
                continue
            for stream in streams:
                if stream not in self._read_to:
                    self._read_to[stream] = await self._progress(connection, stream)

    def hides(self, sources: Iterable[str], until: datetime) -> bool:
        """Whether one of these sources may hold events up to an instant that have not been dealt with. Yes,
        too, where Redis did not answer, or was not asked."""
        return any(self._hides(source, until) for source in sources)

    def _hides(self, source: str, until: datetime) -> bool:
        streams: Iterable[str] = (source,)
        if is_pattern(source):
            found = self._found.get(source)
            if found is None or found.at < until:
                return True  # there may be another one by now
            streams = found.streams
        return any(self._read_to.get(stream, 0) <= milliseconds(until) for stream in streams)

    async def _streams(self, source: str, until: datetime, now: datetime) -> Iterable[str]:
        if not is_pattern(source):
            return (source,)
        found = self._found.get(source)
        if found is None or (found.at < until and monotonic() - found.looked >= LOOK_SECONDS):
            if self._away:
                return ()
            async with asyncio.timeout(ANSWER_SECONDS):
                found = _Found(await streams_of(self._redis, [source]), now, monotonic())
            self._found[source] = found
        return found.streams

    async def _progress(self, connection: Connection, stream: str) -> int:
        """Events before this millisecond have been dealt with."""
        if stream.startswith(LOG):
            at: datetime | None = await connection.fetchval(_FIRST_UNREAD, stream.removeprefix(LOG))
            return _NOTHING if at is None else milliseconds(at)
        if self._away:
            return 0
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._progress_in_redis(stream)
        except _UNREACHABLE as error:
            if str(error).startswith("WRONGTYPE"):
                return _NOTHING  # it is no stream any more, and holds no events
            self._failed(error)
            return 0

    def _failed(self, error: Exception) -> None:
        """A server that does not answer is not waited for a second time; of a cluster's one may be away, and
        the others there."""
        self._away = not isinstance(error, ResponseError) and cluster_of(self._redis) is None

    async def _progress_in_redis(self, stream: str) -> int:
        # What is added from now on has an id by this clock, which need not be the database's, or a later one.
        seconds, microseconds = await time_of(self._redis, stream)
        now = seconds * 1000 + microseconds // 1000
        if not await self._redis.exists(stream):
            return now
        groups: list[dict[str, Any]] = await self._redis.xinfo_groups(stream)
        group = next((one for one in groups if one["name"] in (GROUP, GROUP.encode())), None)
        if group is None:
            return 0  # intake has not come to it yet
        if group["pending"]:
            summary: dict[str, Any] = await self._redis.xpending(stream, GROUP)
            if summary["min"] is not None:  # else they have been acknowledged meanwhile
                return parse_id(summary["min"])[0]
        # Not by the stream's last id: its last entries may have been deleted, and nobody will ever read them.
        last = text(group["last-delivered-id"])
        unread: Any = await self._redis.xrange(stream, f"({last}", count=1)
        return parse_id(unread[0][0])[0] if unread else max(now, parse_id(last)[0])
