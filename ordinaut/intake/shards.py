"""The masters of a cluster that are away, so that they hold nobody up who is interested in the others."""

import time
from collections.abc import Iterable

import structlog
from redis.asyncio import Redis

from ordinaut.runtime.redis_client import cluster_of, shard_of

AWAY_SECONDS = (2.0, 4.0, 8.0)
"""How long one that failed is left alone: the first time, the second, and each further one."""

logger = structlog.get_logger(__name__)


class Shards:
    """Without a cluster there is one server, and nothing to do while it is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._away: dict[str, tuple[float, Exception]] = {}
        self._failures: dict[str, int] = {}

    def failed(self, stream: str, error: Exception) -> None:
        """Leave the master of this stream alone for a while. Raises `error` without a cluster."""
        if cluster_of(self._redis) is None:
            raise error
        shard = shard_of(self._redis, stream)
        failures = self._failures.setdefault(shard, 0)
        if not failures:
            logger.warning("intake.shard_away", shard=shard, reason=f"{type(error).__name__}: {error}")
        if not self.away(stream):
            self._failures[shard] += 1
            self._away[shard] = (time.monotonic() + AWAY_SECONDS[min(failures, len(AWAY_SECONDS) - 1)], error)

    def split(self, streams: Iterable[str]) -> list[list[str]]:
        """The streams that have a master in common, together."""
        shards: dict[str, list[str]] = {}
        for stream in streams:
            shards.setdefault(shard_of(self._redis, stream), []).append(stream)
        return list(shards.values())

    def away(self, stream: str) -> bool:
        """Whether the master of this stream is left alone at the moment."""
        if not self._away:
            return False
        until, _ = self._away.get(shard_of(self._redis, stream), (0.0, None))
        return time.monotonic() < until

    def answered(self, stream: str) -> None:
        """The master of this stream is there."""
        shard = shard_of(self._redis, stream)
        if self._failures.pop(shard, None):
            self._away.pop(shard, None)
            logger.info("intake.shard_recovered", shard=shard)

    def trouble(self, streams: Iterable[str]) -> Exception | None:
        """Why none of these streams can be read, when that is so."""
        shards = [self._away.get(shard_of(self._redis, stream)) for stream in streams]
        reasons = [why for why in shards if why is not None and time.monotonic() < why[0]]
        return reasons[0][1] if shards and len(reasons) == len(shards) else None
