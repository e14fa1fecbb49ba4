"""Redis stopped, flushed and started empty; PostgreSQL restarted without a goodbye; all under load."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ordinaut.runtime.embedded import EmbeddedServers
from ordinaut.runtime.settings import Settings
from ordinaut.runtime.system import System, open_system
from tests.chaos.ground import Ground
from tests.support.eventually import eventually
from tests.support.processes import RoleProcess
from tests.support.servers import blocking, execute, make_template, with_database

ENV = {"ORDINAUT_LEASE_SECONDS": "2", "ORDINAUT_POLL_SECONDS": "0.3", "ORDINAUT_DRAIN_SECONDS": "2"}
ROLES = ["relay", "projector", "clock", "intake", "worker"]


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[tuple[EmbeddedServers, RoleProcess]]:
    """Servers that this test may stop, and every role but the API in one process on them."""
    with EmbeddedServers(ephemeral=True) as servers:  # fsync on: the crash must find everything on disk
        blocking(make_template(servers.database_url, "template"))
        blocking(execute(servers.database_url, 'CREATE DATABASE "chaos" TEMPLATE "template"'))
        urls = {
            "ORDINAUT_DATABASE_URL": with_database(servers.database_url, "chaos"),
            "ORDINAUT_REDIS_URL": servers.redis_url,
        }
        process = RoleProcess(ROLES, {**ENV, **urls}, tmp_path / "roles.log").start().wait_ready()
        yield servers, process
        process.kill()


def _settings(servers: EmbeddedServers) -> Settings:
    return Settings(database_url=with_database(servers.database_url, "chaos"), redis_url=servers.redis_url)


async def _succeeded(system: System, task: str) -> int:
    count: int = await system.pool.fetchval(
        "SELECT count(*) FROM runs WHERE task = $1 AND state = 'succeeded'", task
    )
    return count


async def test_with_redis_stopped_flushed_and_started_empty_the_promises_hold_and_it_heals_alone(
    own_servers: tuple[EmbeddedServers, RoleProcess], seed: int
) -> None:
    servers, process = own_servers
    assert servers.redis is not None
    async with open_system(_settings(servers)) as system, Redis.from_url(servers.redis_url) as redis:
        ground = Ground(system, redis, random.Random(seed))
        await ground.begin(per_second=20)
        await eventually(lambda: len(ground.wanted) >= 10, timeout=20)

        await asyncio.to_thread(servers.redis.stop, immediate=True)
        before = await _succeeded(system, "ticks")
        # Scheduled work goes on as if nothing had happened.
        await eventually(lambda: _more(system, "ticks", before + 3), timeout=30)
        await ground.check_projections()
        await asyncio.to_thread(servers.redis.start)

        # What Redis acknowledged and nobody had read is Redis's to keep; so nothing is on the way when
        # it is flushed.
        ground.paused = True
        await ground.settle()
        await redis.flushall()
        ground.paused = False
        sent = len(ground.sent)
        await eventually(lambda: len(ground.sent) >= sent + 10, timeout=20)

        ground.paused = True
        await ground.settle()
        await asyncio.to_thread(servers.redis.stop, immediate=True)
        await asyncio.to_thread(servers.redis.wipe)
        await asyncio.to_thread(servers.redis.start)
        ground.paused = False
        sent = len(ground.sent)
        await eventually(lambda: len(ground.sent) >= sent + 10, timeout=20)

        await ground.end_load()
        await ground.settle()
        await ground.check()
        await ground.check_redis_log()
        assert process.alive


async def test_a_postgresql_that_is_restarted_without_a_goodbye_loses_and_doubles_nothing(
    own_servers: tuple[EmbeddedServers, RoleProcess], seed: int
) -> None:
    servers, process = own_servers
    assert servers.postgres is not None
    async with open_system(_settings(servers)) as system, Redis.from_url(servers.redis_url) as redis:
        ground = Ground(system, redis, random.Random(seed))
        await ground.begin(per_second=40)
        for round_ in range(1, 4):
            wanted = len(ground.wanted)
            await eventually(lambda wanted=wanted: len(ground.wanted) >= wanted + 12, timeout=30)
            await asyncio.to_thread(servers.postgres.stop, immediate=True)
            print("restart", round_)
            await asyncio.to_thread(servers.postgres.start)
        await ground.end_load()
        await ground.settle()
        await ground.check()
        await ground.check_redis_log()
        assert process.alive


async def _more(system: System, task: str, than: int) -> bool:
    return await _succeeded(system, task) > than
