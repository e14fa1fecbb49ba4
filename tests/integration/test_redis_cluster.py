"""Intake, relay and publishing on a real cluster of three masters, some of which go away."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ordinaut.cli.redis_findings import CLUSTER_RIGHTS
from ordinaut.log.relay import OWNER, STREAM, Relay
from ordinaut.runtime import redis_client
from ordinaut.runtime.redis_client import create_redis
from ordinaut.runtime.settings import Settings
from ordinaut.runtime.streams import DEAD, GROUP, open_source
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex
from tests.integration.test_redis_secured import documented
from tests.support.commands import ordinaut
from tests.support.eventually import eventually
from tests.support.listening import a_system, an_intake, events, listen, read_to_the_end
from tests.support.redis_cluster import MASTERS, a_cluster
from tests.support.redis_servers import HOST, set_user
from tests.support.running import running


@asynccontextmanager
async def a_relay(system: System) -> AsyncIterator[Relay]:
    relay = Relay(system.pool, system.redis, system.notifications, maxlen=100_000, poll_seconds=0.1)
    async with running(relay):
        yield relay


async def _inputs(system: System, expected: Iterable[int]) -> bool:
    """Whether there is one run for each of these, and no other."""
    found = sorted(event.data["input"] for event in await events(system, "RunRequested"))
    assert found == sorted(expected), found
    return True


async def _whole_log(system: System) -> bool:
    head = await system.pool.fetchval("SELECT position FROM log_head")
    ids = [entry_id.decode() for entry_id, _ in await system.redis.xrange(STREAM)]
    return ids == [f"{n}-0" for n in range(1, head + 1)]


async def _add(redis: Redis, stream: str, data: object) -> None:
    """Add an entry; while that fails, again."""

    async def added() -> bool:
        with suppress(RedisError):
            await redis.xadd(stream, {"data": json.dumps(data)})
            return True
        return False

    await eventually(added, timeout=30, every=0.1)


async def _settled(redis: Redis, streams: Sequence[str]) -> bool:
    for stream in streams:
        assert await read_to_the_end(redis, stream), stream
    return True


async def test_entries_of_every_shard_become_runs_and_the_log_is_published(
    database_url: str, tmp_path: Path
) -> None:
    async with a_cluster(tmp_path) as cluster, a_system(database_url, cluster.url) as system:
        redis = system.redis
        named = [cluster.on_shard(shard) for shard in range(MASTERS)]
        letters = [cluster.on_shard(shard, "letters.") for shard in range(MASTERS)]
        for stream in named:
            await listen(system, f"on-{stream}", stream)
        await listen(system, "letters", "letters.*")
        await open_source(redis, system.pool, TriggerIndex(system.pool), named[0])
        # Somebody read this one and died.
        await redis.xadd(named[0], {"data": "0"})
        taken = await redis.execute_command("XREADGROUP", "GROUP", GROUP, "gone", "STREAMS", named[0], ">")
        assert taken
        for number, stream in enumerate(letters, 1):
            await redis.xadd(stream, {"data": str(number)})
        async with an_intake(system), an_intake(system), a_relay(system):
            for number in range(4, 101):
                await redis.xadd([*named, *letters][number % 6], {"data": str(number)})
            for stream in named:
                await redis.xadd(stream, {"data": "no json"})
            await eventually(lambda: _inputs(system, range(101)), timeout=20)
            await eventually(lambda: _settled(redis, [*named, *letters]))
            assert await redis.xlen(DEAD) == 3
            await eventually(lambda: _whole_log(system))
        assert await redis.get(OWNER) == (
            (await system.pool.fetchval("SELECT log_id::text FROM log_head")).encode()
        )

        # The same user, who may do what is on the page, on all nodes: for doctor.
        for admin in cluster.admins:
            rules = documented().replace("~orders*", "~orders* ~letters.*")
            await set_user(admin, "ordinaut", f"{rules} {' '.join(CLUSTER_RIGHTS)}")
        url = cluster.url.replace(f"//{HOST}", f"//ordinaut:secret@{HOST}", 1)
        env = {"ORDINAUT_DATABASE_URL": database_url, "ORDINAUT_REDIS_URL": url}
        done = await asyncio.to_thread(ordinaut, "doctor", "--json", env=env)
        found = [each for each in json.loads(done.stdout) if "redis" in each["check"]]
        assert [each["level"] for each in found if each["check"] == "redis"] == ["ok"] * MASTERS
        assert [each["level"] for each in found if each["check"] == "redis rights"] == ["ok"], found


async def test_a_master_that_dies_is_replaced_or_takes_only_its_own_streams_with_it(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_client, "NODE_ANSWER_SECONDS", 2.0)
    async with a_cluster(tmp_path, replica=True) as cluster, a_system(database_url, cluster.url) as system:
        names = [cluster.on_shard(shard) for shard in range(MASTERS)]
        for stream in names:
            await listen(system, f"on-{stream}", stream)
        # A producer of its own: what it finds out helps nobody else.
        async with (
            an_intake(system) as intake,
            a_relay(system) as relay,
            create_redis(Settings(redis_url=cluster.url)) as producer,
        ):
            for number, stream in enumerate(names):
                await _add(producer, stream, number)
            await eventually(lambda: _inputs(system, range(3)))
            await eventually(lambda: _settled(producer, names))

            cluster.servers[0].kill()
            for number, stream in enumerate(names, 3):
                await _add(producer, stream, number)
            await eventually(lambda: _inputs(system, range(6)), timeout=30)

            # Nobody takes this one's place. The log's stream is elsewhere.
            assert cluster.shard_of(STREAM) != 1
            cluster.servers[1].freeze()
            await _add(producer, names[0], 6)
            await _add(producer, names[2], 7)
            await eventually(lambda: _inputs(system, range(8)), timeout=30)
            cluster.servers[1].kill()
            await _add(producer, names[0], 8)
            await _add(producer, names[2], 9)
            await eventually(lambda: _inputs(system, range(10)), timeout=30)
            await eventually(lambda: _whole_log(system), timeout=30)
            await eventually(lambda: intake.trouble is None)

            # It comes back, empty: its stream begins anew.
            await cluster.servers[1].start()
            await _add(producer, names[1], 10)
            await eventually(lambda: _inputs(system, range(11)), timeout=30)
            await eventually(lambda: relay.trouble is None)


async def test_a_slot_that_moves_under_load_costs_no_entry(database_url: str, tmp_path: Path) -> None:
    async with a_cluster(tmp_path) as cluster, a_system(database_url, cluster.url) as system:
        stream = cluster.on_shard(0)
        await listen(system, "moving", stream)
        await listen(system, "staying", other := cluster.on_shard(2))
        async with an_intake(system), a_relay(system):
            stop = asyncio.Event()

            async def produce() -> int:
                number = 0
                while not stop.is_set():
                    await _add(system.redis, stream if number % 2 else other, number)
                    number += 1
                return number

            producing = asyncio.create_task(produce())
            await eventually(lambda: _at_least(system, 50))
            await cluster.move(stream, to=1)
            await cluster.move(STREAM, to=0 if cluster.shard_of(STREAM) else 1)
            count = len(await events(system, "RunRequested"))
            await eventually(lambda: _at_least(system, count + 50), timeout=30)
            stop.set()
            total = await producing
            await eventually(lambda: _every(system, total), timeout=20)
            await eventually(lambda: _whole_log(system), timeout=20)
            assert await cluster.admins[1].xlen(stream) >= total // 2
            ids = [event.stream for event in await events(system, "RunRequested")]
            assert len(ids) == len(set(ids))


async def _at_least(system: System, count: int) -> bool:
    return len(await events(system, "RunRequested")) >= count


async def _every(system: System, total: int) -> bool:
    found = {event.data["input"] for event in await events(system, "RunRequested")}
    assert found == set(range(total)), set(range(total)) - found
    return True
