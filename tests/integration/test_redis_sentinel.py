"""A master that Sentinel watches over dies under load: another takes its place, and everything goes on."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ordinaut.log.relay import STREAM, Relay
from ordinaut.runtime import redis_client
from ordinaut.runtime.redis_client import create_redis
from ordinaut.runtime.settings import Settings
from ordinaut.runtime.streams import GROUP
from tests.support.eventually import eventually
from tests.support.listening import a_system, an_intake, events, listen, read_to_the_end
from tests.support.redis_servers import HOST, RedisServer, started
from tests.support.running import running


@dataclass
class Watched:
    """A master, its replica, and the sentinel that makes the one the other."""

    master: RedisServer
    replica: RedisServer
    sentinel: RedisServer

    @property
    def url(self) -> str:
        return f"redis+sentinel://{HOST}:1,{HOST}:{self.sentinel.port}/orders"


@asynccontextmanager
async def watched(directory: Path, password: str = "") -> AsyncIterator[Watched]:
    own = {"requirepass": password, "masterauth": password} if password else {}
    master = RedisServer(directory / "master", own)
    replica = RedisServer(directory / "replica", {**own, "replicaof": f"{HOST} {master.port}"})
    watch = [
        f"sentinel monitor orders {HOST} {master.port} 1",
        "sentinel down-after-milliseconds orders 500",
        "sentinel failover-timeout orders 3000",
        *([f"sentinel auth-pass orders {password}"] if password else []),
    ]
    guarded = {"requirepass": f"{password}-too"} if password else {}
    sentinel = RedisServer(directory / "sentinel", guarded, sentinel="\n".join(watch))
    async with started(master, replica, sentinel):
        async with sentinel.client() as asked:

            async def sees_both() -> bool:
                seen = await asked.sentinel_slaves("orders")
                return [one["master-link-status"] for one in seen] == ["ok"]

            await eventually(sees_both, timeout=30)
        yield Watched(master, replica, sentinel)


async def _produce(redis: Redis, until: asyncio.Event) -> int:
    """Add an entry after the other, each with its number; how many were tried. One of which it is not known
    whether it was added is not tried again."""
    number = 0
    while not until.is_set():
        with suppress(RedisError):
            await redis.xadd("orders", {"data": str(number)})
        number += 1
        await asyncio.sleep(0.002)
    return number


def _kill(master: RedisServer) -> None:
    master.kill()


def _freeze(master: RedisServer) -> None:
    master.freeze()


@pytest.mark.parametrize("end", [_kill, _freeze], ids=["killed", "frozen"])
async def test_a_failover_under_load_loses_nothing_that_the_new_master_or_the_log_has(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[[RedisServer], None]
) -> None:
    monkeypatch.setattr(redis_client, "ANSWER_SECONDS", 1.0)
    async with watched(tmp_path) as servers, a_system(database_url, servers.url) as system:
        listener = await listen(system, "ship")
        relay = Relay(system.pool, system.redis, system.notifications, maxlen=100_000, poll_seconds=0.1)
        enough = asyncio.Event()
        async with (
            an_intake(system) as intake,
            running(relay),
            create_redis(system.settings) as producer,
            servers.replica.client() as heir,
        ):
            producing = asyncio.create_task(_produce(producer, enough))
            await eventually(lambda: intake.matched > 100)
            end(servers.master)
            await eventually(lambda: intake.trouble)

            async def promoted() -> bool:
                return bool((await heir.role())[0] == "master")

            await eventually(promoted, timeout=30)
            before = await heir.xlen("orders")
            await eventually(lambda: _more(heir, before + 100), timeout=30)
            if end is _freeze:
                # It learns that it is a master no more; whoever is still connected to it learns that too.
                servers.master.resume()
            enough.set()
            tried = await producing
            await eventually(lambda: read_to_the_end(heir), timeout=30)

            held = [entry_id for entry_id, _ in await heir.xrange("orders")]
            runs = await events(system, "RunRequested")
            asked_by = [run.data["cause"]["id"] for run in runs]
            assert len(asked_by) == len(set(asked_by))
            assert set(held) <= set(asked_by)
            assert {run.data["input"] for run in runs} <= set(range(tried))
            assert {run.data["task"] for run in runs} == {listener.id}

            head = await system.pool.fetchval("SELECT position FROM log_head")
            await eventually(lambda: _more(heir, head, STREAM))
            published = await heir.xrange(STREAM)
            assert [entry_id for entry_id, _ in published] == [f"{n}-0" for n in range(1, head + 1)]
            assert [json.loads(fields["event"])["position"] for _, fields in published][-1] == head
            await eventually(lambda: relay.trouble is None and intake.trouble is None)


async def _more(redis: Redis, count: int, stream: str = "orders") -> bool:
    return bool(await redis.xlen(stream) >= count)


async def test_servers_and_sentinels_may_have_passwords_and_closing_leaves_no_connection(
    tmp_path: Path,
) -> None:
    async with watched(tmp_path, "secret") as servers, servers.sentinel.client() as sentinel:
        own = f"redis+sentinel://:secret@{HOST}:{servers.sentinel.port}/orders"
        url = f"{own}?sentinel_password=secret-too"
        async with create_redis(Settings(redis_url=url)) as client:
            await client.xgroup_create("orders", GROUP, mkstream=True)
            assert (await client.role())[0] == b"master"

        async def only_this() -> bool:
            theirs = [one for one in await sentinel.client_list() if one["cmd"] == "sentinel|masters"]
            return not theirs

        await eventually(only_this)
        async with create_redis(Settings(redis_url=own)) as stranger:
            with pytest.raises(RedisError):
                await stranger.ping()
