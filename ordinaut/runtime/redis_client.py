"""The client that all roles share, for each kind of Redis; and what a cluster makes different.

A cluster's client has the commands of a server's and goes by its type, `Redis`. What is not the same
has a function here: streams of different hash slots cannot be read by one command, and each node has a
clock of its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode, ClusterPipeline
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisClusterException, SlotNotCoveredError

from ordinaut.runtime.redis_url import RedisAddress, parse_redis_url
from ordinaut.runtime.settings import Settings

REDIS_CONNECTIONS = 50
"""How many connections to Redis a process opens at the most. However many steps want one, a command takes
a millisecond, so they wait for each other; a pool that does not wait would fail them."""

CLUSTER_CONNECTIONS = 1000
"""The same for each node of a cluster, where the pool does not wait."""

ANSWER_SECONDS = 15.0
"""A server that has not answered by then does not: it hangs, or its machine is gone."""

NODE_ANSWER_SECONDS = 5.0
NODE_CONNECT_SECONDS = 2.0
"""The same for a node of a cluster, and how long it has for a new connection: others wait meanwhile, who
could do with the other nodes. Longer than any read blocks."""


class WaitingSentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to a service's master, at most so many; closing it closes those to the sentinels too."""

    async def aclose(self) -> None:
        """Close all of them."""
        await super().aclose()
        await self.sentinel_manager.aclose()


@contextmanager
def _as_outage() -> Iterator[None]:
    """A cluster that cannot be reached, or has no master for a slot, is an outage like any other: redis-py's
    own error for that is none of its RedisErrors."""
    try:
        yield
    except RedisClusterException as error:
        raise ConnectionError(str(error)) from error


class Cluster(RedisCluster):
    """A cluster's client that raises RedisErrors only."""

    async def initialize(self, *arguments: Any, **more: Any) -> "Cluster":
        """Learn where things are, unless that is known."""
        with _as_outage():
            await super().initialize(*arguments, **more)
        return self

    async def execute_command(self, *arguments: Any, **more: Any) -> Any:
        """Send a command to where its key is."""
        with _as_outage():
            return await super().execute_command(*arguments, **more)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> "ClusterCommands":
        """Commands that are sent together, to each node those for it."""
        return ClusterCommands(self, transaction)  # type: ignore[abstract]


class ClusterCommands(ClusterPipeline):
    """See `Cluster.pipeline`."""

    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = True) -> list[Any]:
        """The answers, in the order of the commands."""
        with _as_outage():
            return await super().execute(raise_on_error, allow_redirections)


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


def _cluster(address: RedisAddress, options: dict[str, Any]) -> Cluster:
    options["socket_connect_timeout"] = min(options["socket_connect_timeout"], NODE_CONNECT_SECONDS)
    options["socket_timeout"] = NODE_ANSWER_SECONDS
    return Cluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
        ssl=address.ssl,
        max_connections=CLUSTER_CONNECTIONS,
        retry=Retry(NoBackoff(), 0),
        # A shard that is away must not take the others with it, nor a slot that has moved the connections.
        require_full_coverage=False,
        reinitialize_steps=0,
        **options,
    )


def cluster_of(redis: Redis) -> Cluster | None:
    """The client as what it is when it is a cluster's."""
    client: Any = redis
    return client if isinstance(client, Cluster) else None


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
        seconds, microseconds = await cluster.time(target_nodes=await _node_of(cluster, stream))
    return int(seconds), int(microseconds)


def shard_of(redis: Redis, stream: str) -> str:
    """The master that has this stream, as far as it is known; "" without a cluster."""
    cluster = cluster_of(redis)
    if cluster is None:
        return ""
    try:
        node = cluster.get_node_from_key(stream)
    except SlotNotCoveredError:
        node = None
    return node.name if node is not None else "?"


def slot_of(redis: Redis, stream: str) -> int:
    """What streams must have in common to be read by one command: in a cluster their hash slot."""
    cluster = cluster_of(redis)
    return 0 if cluster is None else int(cluster.keyslot(stream))


async def read_group(
    redis: Redis, group: str, consumer: str, streams: Sequence[str], *, count: int, block_ms: int
) -> list[tuple[Any, Any]]:
    """XREADGROUP for what nobody has read of streams of one slot: name and entries of each that had any.
    Raises what redis raises."""
    cluster = cluster_of(redis)
    if cluster is None:
        wanted: dict[Any, Any] = dict.fromkeys(streams, ">")
        reply = await redis.xreadgroup(group, consumer, wanted, count=count, block=block_ms)
    else:
        # Without a node redis-py would ask another one for the keys of each such command.
        reply = await cluster.execute_command(
            "XREADGROUP", "GROUP", group, consumer, "COUNT", count, "BLOCK", block_ms,
            "STREAMS", *streams, *[">"] * len(streams),
            target_nodes=await _node_of(cluster, streams[0]),
        )  # fmt: skip
    return list(reply.items()) if isinstance(reply, dict) else [(key, raw) for key, raw in reply or ()]


async def _node_of(cluster: Cluster, stream: str) -> ClusterNode:
    await cluster.initialize()
    with _as_outage():
        node = cluster.get_node_from_key(stream)
        if node is None:
            raise SlotNotCoveredError(f"no node of the cluster has the slot of {stream}")
        return node
