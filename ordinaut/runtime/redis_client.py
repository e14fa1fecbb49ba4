"""The client that all roles share, for each kind of Redis; and what a cluster makes different.

A cluster's client has the commands of a server's and goes by its type, `Redis`. What is not the same
has a function here: streams of different hash slots cannot be read by one command, and each node has a
clock of its own.
"""

from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import SlotNotCoveredError

from ordinaut.runtime.redis_url import RedisAddress, parse_redis_url
from ordinaut.runtime.settings import Settings

REDIS_CONNECTIONS = 50
"""How many connections to Redis a process opens at the most. However many steps want one, a command takes
a millisecond, so they wait for each other; a pool that does not wait would fail them."""

CLUSTER_CONNECTIONS = 1000
"""The same for each node of a cluster, where the pool does not wait."""

ANSWER_SECONDS = 15.0
"""A server that has not answered by then does not: it hangs, or its machine is gone."""


class WaitingSentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to a service's master, at most so many; closing it closes those to the sentinels too."""

    async def aclose(self) -> None:
        """Close all of them."""
        await super().aclose()
        await self.sentinel_manager.aclose()


def create_redis(settings: Settings) -> Redis:
    """A client that answers or fails within seconds, so that nobody hangs on a Redis that is away.

    Commands are never sent twice: who cannot bear a failure repeats them himself.
    """
    address = parse_redis_url(settings.redis_url)
    options: dict[str, Any] = {
        "socket_connect_timeout": settings.connect_seconds,
        "socket_timeout": ANSWER_SECONDS,
        "health_check_interval": 15,
        # With version 3 redis-py 8.1.0 hands out connections that the server has closed, and after a
        # restart of Redis one command fails for each of them.
        "protocol": 2,
        **address.options,
    }
    if address.kind == "cluster":
        return cast(Redis, _cluster(address, options))
    waiting = {"max_connections": REDIS_CONNECTIONS, "timeout": settings.connect_seconds}
    if address.kind == "sentinel":
        return _master(address, options | waiting, settings.connect_seconds)
    return Redis.from_pool(BlockingConnectionPool(**(waiting | options)))


def _master(address: RedisAddress, options: dict[str, Any], connect_seconds: float) -> Redis:
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        address.hosts,
        sentinel_kwargs={
            "socket_connect_timeout": connect_seconds,
            "socket_timeout": connect_seconds,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "ssl": address.ssl,
            **address.sentinel_options,
        },
    )
    pool = WaitingSentinelPool(  # type: ignore[no-untyped-call]
        address.service, sentinels, ssl=address.ssl, **options
    )
    return Redis.from_pool(pool)


def _cluster(address: RedisAddress, options: dict[str, Any]) -> RedisCluster:
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
        ssl=address.ssl,
        max_connections=CLUSTER_CONNECTIONS,
        retry=Retry(NoBackoff(), 0),
        # A shard that is away must not take the others with it, nor a slot that has moved the connections.
        require_full_coverage=False,
        reinitialize_steps=0,
        **options,
    )


def cluster_of(redis: Redis) -> RedisCluster | None:
    """The client as what it is when it is a cluster's."""
    client: Any = redis
    return client if isinstance(client, RedisCluster) else None


async def each_master(redis: Redis) -> list[dict[str, Any]]:
    """The keywords that send a command which concerns no key to each master; one, empty, without a cluster.
    Raises what redis raises."""
    cluster = cluster_of(redis)
    if cluster is None:
        return [{}]
    await cluster.initialize()
    return [{"target_nodes": node} for node in cluster.get_primaries()]


async def time_of(redis: Redis, stream: str) -> tuple[int, int]:
    """Seconds and microseconds by the clock that makes the ids of this stream. Raises what redis raises."""
    cluster = cluster_of(redis)
    if cluster is None:
        seconds, microseconds = await redis.time()
    else:
        await cluster.initialize()
        node = cluster.get_node_from_key(stream)
        if node is None:
            raise SlotNotCoveredError(f"no node of the cluster has the slot of {stream}")
        seconds, microseconds = await cluster.time(target_nodes=node)
    return int(seconds), int(microseconds)
