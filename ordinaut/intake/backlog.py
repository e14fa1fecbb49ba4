"""How far the group has come in a stream: whether entries before an instant may not have been read yet."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ordinaut.runtime.streams import GROUP, milliseconds, parse_id

_NOTHING = 2**63


class Backlog:
    """Asks Redis, each stream once until told to `forget`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._read_to: dict[str, int] = {}

    def forget(self) -> None:
        """Ask anew."""
        self._read_to.clear()

    async def hides(self, streams: Iterable[str], until: datetime) -> bool:
        """Whether one of these streams may hold entries up to an instant that have not been dealt with. Yes,
        too, while Redis does not answer."""
        for stream in streams:
            if stream not in self._read_to:
                try:
                    self._read_to[stream] = await self._progress(stream)
                except (RedisError, OSError, TimeoutError):
                    self._read_to[stream] = 0
            if self._read_to[stream] <= milliseconds(until):
                return True
        return False

    async def _progress(self, stream: str) -> int:
        """Entries before this millisecond have been dealt with."""
        if not await self._redis.exists(stream):
            return _NOTHING
        groups: list[dict[str, Any]] = await self._redis.xinfo_groups(stream)
        group = next((one for one in groups if one["name"] in (GROUP, GROUP.encode())), None)
        if group is None:
            return _NOTHING
        if group["pending"]:
            summary: dict[str, Any] = await self._redis.xpending(stream, GROUP)
            return parse_id(summary["min"])[0]
        info: dict[str, Any] = await self._redis.xinfo_stream(stream)
        delivered = parse_id(group["last-delivered-id"])
        return _NOTHING if delivered >= parse_id(info["last-generated-id"]) else delivered[0]
