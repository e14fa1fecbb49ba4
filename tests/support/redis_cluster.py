"""A real cluster of servers, put together as `redis-cli --cluster create` does it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tests.support.eventually import eventually
from tests.support.redis_servers import HOST, RedisServer, free_port, started

MASTERS = 3
BUS = 10_000


class ClusterOfServers:
    """Three masters, each with a third of the slots, and maybe a replica of the first. `admins` are clients
    of the single nodes, in the order of `servers`."""

    def __init__(self, servers: list[RedisServer], admins: list[Redis]) -> None:
        self.servers = servers
        self.admins = admins

    @property
    def url(self) -> str:
        """Names two nodes; the others are found."""
        return f"redis+cluster://{HOST}:{self.servers[0].port},{HOST}:{self.servers[1].port}"

    def shard_of(self, key: str) -> int:
        """The number of the master that had this key in the beginning."""
        return key_slot(key.encode()) * MASTERS // REDIS_CLUSTER_HASH_SLOTS

    def on_shard(self, shard: int, prefix: str = "orders-") -> str:
        """The name of a stream that is there."""
        return next(name for n in range(1000) if self.shard_of(name := f"{prefix}{n}") == shard)

    async def form(self) -> None:
        """Make the servers one cluster, and wait until each says so."""
        first = self.servers[0]
        for number, admin in enumerate(self.admins[:MASTERS]):
            begin, end = (each * REDIS_CLUSTER_HASH_SLOTS for each in (number, number + 1))
            await admin.execute_command(
                "CLUSTER", "ADDSLOTS", *range(-(-begin // MASTERS), -(-end // MASTERS))
            )
            await admin.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for admin in self.admins[1:]:
            await admin.execute_command("CLUSTER", "MEET", HOST, first.port)
        await eventually(self._is_well, timeout=30)
        for admin in self.admins[MASTERS:]:
            await admin.execute_command("CLUSTER", "REPLICATE", await self._id(0))
            await eventually(lambda: self._is_replica(admin), timeout=30)  # noqa: B023

    async def _is_well(self) -> bool:
        infos: list[Any] = [await admin.execute_command("CLUSTER INFO") for admin in self.admins]
        wanted = {"cluster_state": "ok", "cluster_known_nodes": str(len(self.servers))}
        return all(wanted.items() <= info.items() for info in infos)

    async def _is_replica(self, admin: Redis) -> bool:
        info = await admin.info("replication")
        return bool(info["role"] == "slave" and info["master_link_status"] == "up")

    async def _id(self, number: int) -> str:
        return str(await self.admins[number].execute_command("CLUSTER", "MYID"))

    async def move(self, key: str, to: int) -> None:
        """Move the slot of `key`, and all that is in it, to another master, key by key, as redis-cli does."""
        slot, source = key_slot(key.encode()), self.shard_of(key)
        giving, taking = self.admins[source], self.admins[to]
        await taking.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", await self._id(source))
        await giving.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", await self._id(to))
        while keys := await giving.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
            port = self.servers[to].port
            await giving.execute_command("MIGRATE", HOST, port, "", 0, 5000, "KEYS", *keys)
            await asyncio.sleep(0.05)  # the slot is in two places for a moment
        for admin in (taking, giving, *self.admins):
            await admin.execute_command("CLUSTER", "SETSLOT", slot, "NODE", await self._id(to))


@asynccontextmanager
async def a_cluster(
    directory: Path, *, replica: bool = False, binary: str | None = None
) -> AsyncIterator[ClusterOfServers]:
    """A cluster that lasts as long as the block. A master that is away takes only its own slots with it."""
    servers = [
        RedisServer(
            directory / str(number),
            {
                "cluster-enabled": "yes",
                "cluster-node-timeout": 1000,
                "cluster-require-full-coverage": "no",
                "cluster-replica-validity-factor": 0,
            },
            binary=binary,
            port=_free_ports(),
        )
        for number in range(MASTERS + replica)
    ]
    async with started(*servers), AsyncExitStack() as stack:
        admins = [await stack.enter_async_context(server.client()) for server in servers]
        cluster = ClusterOfServers(servers, admins)
        await cluster.form()
        yield cluster


def _free_ports() -> int:
    """A port that is free like the one for the cluster's own talk, 10,000 above: where it is before 7.0."""
    while True:
        port = free_port()
        with suppress(OSError, OverflowError), socket.socket() as probe:
            probe.bind((HOST, port + BUS))
            return port
