"""How far sources have been read: whether events before an instant may not have been collected yet."""

from collections.abc import Iterable
from datetime import datetime
from time import monotonic
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ordinaut.domain.trigger import LOG
from ordinaut.log.append import Connection
from ordinaut.runtime.listening import is_pattern
from ordinaut.runtime.streams import GROUP, milliseconds, parse_id, streams_of

LOOK_SECONDS = 5.0
"""How often, at the most, Redis is asked for the streams that a pattern stands for."""

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
    """Asks Redis and the log, about each source once until told to `forget`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._read_to: dict[str, int] = {}
        self._found: dict[str, _Found] = {}

    def forget(self) -> None:
        """Ask anew."""
        self._read_to.clear()

    async def hides(
        self, connection: Connection, sources: Iterable[str], until: datetime, now: datetime
    ) -> bool:
        """Whether one of these sources (see domain/trigger.py) may hold events up to an instant, which is
        over `now`, that have not been dealt with. Yes, too, while Redis does not answer."""
        for source in sources:
            try:
                streams = await self._streams(source, until, now)
            except (RedisError, OSError, TimeoutError):
                return True
            for stream in streams:
                if stream not in self._read_to:
                    self._read_to[stream] = await self._progress(connection, stream)
                if self._read_to[stream] <= milliseconds(until):
                    return True
        return False

    async def _streams(self, source: str, until: datetime, now: datetime) -> Iterable[str]:
        if not is_pattern(source):
            return (source,)
        found = self._found.get(source)
        if found is None or found.at < until:
            if found is not None and monotonic() - found.looked < LOOK_SECONDS:
                raise TimeoutError  # there may be another one by now
            found = _Found(await streams_of(self._redis, [source]), now, monotonic())
            self._found[source] = found
        return found.streams

    async def _progress(self, connection: Connection, stream: str) -> int:
        """Events before this millisecond have been dealt with."""
        if stream.startswith(LOG):
            at: datetime | None = await connection.fetchval(_FIRST_UNREAD, stream.removeprefix(LOG))
            return _NOTHING if at is None else milliseconds(at)
        try:
            return await self._progress_in_redis(stream)
        except (RedisError, OSError, TimeoutError):
            return 0

    async def _progress_in_redis(self, stream: str) -> int:
        if not await self._redis.exists(stream):
            return _NOTHING
        groups: list[dict[str, Any]] = await self._redis.xinfo_groups(stream)
        group = next((one for one in groups if one["name"] in (GROUP, GROUP.encode())), None)
        if group is None:
            return 0  # intake has not come to it yet
        if group["pending"]:
            summary: dict[str, Any] = await self._redis.xpending(stream, GROUP)
            return parse_id(summary["min"])[0]
        info: dict[str, Any] = await self._redis.xinfo_stream(stream)
        delivered = parse_id(group["last-delivered-id"])
        return _NOTHING if delivered >= parse_id(info["last-generated-id"]) else delivered[0]
