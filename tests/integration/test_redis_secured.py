"""Redis behind TLS, and with a user who may do what the page about deployment says and nothing else."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, NoPermissionError

from ordinaut.cli.redis_findings import CLUSTER_RIGHTS, RIGHTS
from ordinaut.log.relay import STREAM, Relay
from ordinaut.runtime.redis_client import create_redis
from ordinaut.runtime.settings import Settings
from ordinaut.runtime.streams import DEAD, GROUP, open_source
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex
from projections.projector import step
from projections.registry import all_projections
from tests.support.commands import ordinaut
from tests.support.eventually import eventually
from tests.support.listening import a_system, an_intake, events, listen
from tests.support.redis_servers import RedisServer, debian_redis, needs, set_user, started, tls_options
from tests.support.running import running

DEPLOYMENT = Path(__file__).parents[2] / "docs" / "deployment.md"

REDIS = pytest.param("redis", marks=pytest.mark.skipif(debian_redis() is None, reason="no redis-server here"))


def documented() -> str:
    """The rules on the page, without the user's name."""
    (rules,) = re.findall(r"^ACL SETUSER ordinaut (.*)$", DEPLOYMENT.read_text(), re.MULTILINE)
    return str(rules).replace("PASSWORD", "secret")


def server(kind: str, directory: Path) -> RedisServer:
    return RedisServer(directory, binary=debian_redis() if kind == "redis" else None)


@asynccontextmanager
async def a_relay(system: System) -> AsyncIterator[Relay]:
    relay = Relay(system.pool, system.redis, system.notifications, maxlen=1000, poll_seconds=0.1)
    async with running(relay):
        yield relay


async def _inputs(system: System) -> list[object]:
    return sorted([event.data["input"] for event in await events(system, "RunRequested")], key=repr)


async def _published(relay: Relay, system: System) -> bool:
    return bool(relay.published == await system.pool.fetchval("SELECT position FROM log_head"))


@pytest.mark.skipif(
    debian_redis() is None, reason="the embedded Valkey is built without TLS; no redis-server here"
)
async def test_entries_and_the_log_travel_by_tls_and_only_to_a_server_with_a_known_certificate(
    database_url: str, tmp_path: Path
) -> None:
    with_tls = server("redis", tmp_path / "redis")
    with_tls.options |= tls_options(tmp_path / "tls", with_tls.port)
    url = f"rediss://127.0.0.1:{with_tls.port}/0"
    async with started(with_tls):
        trusting = f"{url}?ssl_ca_certs={tmp_path}/tls/ca.pem"
        async with a_system(database_url, trusting) as system, an_intake(system), a_relay(system) as relay:
            await listen(system, "ship")
            await system.redis.xadd("orders", {"data": "1"})
            await eventually(lambda: _is(system, [1]))
            await eventually(lambda: _published(relay, system))
        async with create_redis(Settings(redis_url=url)) as stranger:
            with pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
                await stranger.ping()


async def _is(system: System, expected: list[object]) -> bool:
    found = await _inputs(system)
    assert found == expected, found
    return True


@pytest.mark.parametrize("kind", ["valkey", REDIS])
async def test_the_rights_on_the_page_are_all_that_is_needed(
    database_url: str, tmp_path: Path, kind: str
) -> None:
    own = server(kind, tmp_path / kind)
    async with started(own), own.client() as admin:
        await set_user(admin, "ordinaut", documented())
        url = own.url.replace("redis://", "redis://ordinaut:secret@")
        async with a_system(database_url, url) as system:
            await listen(system, "one", "orders")
            await listen(system, "all", "orders.*")
            await listen(system, "not-mine", "letters")
            await open_source(system.redis, system.pool, TriggerIndex(system.pool), "orders")
            # Somebody read this entry and died.
            await admin.xadd("orders", {"data": "1"})
            await admin.xreadgroup(GROUP, "gone", {"orders": ">"})
            await admin.xadd("orders.eu", {"data": "2"})
            await admin.xadd("orders", {"data": "no json"})
            async with an_intake(system), a_relay(system) as relay:
                await eventually(lambda: _is(system, [1, 2]))
                await eventually(lambda: admin.xlen(DEAD))
                await eventually(lambda: _published(relay, system))
                assert await admin.xlen(STREAM) == relay.published
            assert [one["name"] for one in await admin.xinfo_consumers("orders", GROUP)] == ["gone"]
            with pytest.raises(NoPermissionError):
                await system.redis.keys()
        refused = {one["object"] for one in await admin.acl_log() if one["username"] == "ordinaut"}
        # What redis-py says about itself, the stream that is not on the page, and the test's own question.
        assert refused <= {"client|setinfo", "client", "letters", "keys"}


async def test_doctor_says_which_rights_are_missing(database_url: str, tmp_path: Path) -> None:
    own = server("valkey", tmp_path / "valkey")
    async with started(own), own.client() as admin:
        await needs(admin, 7, "rights to a part of a command")
        url = own.url.replace("redis://", "redis://ordinaut:secret@")
        env = {"ORDINAUT_DATABASE_URL": database_url, "ORDINAUT_REDIS_URL": url}

        async def rights() -> dict[str, str]:
            done = await asyncio.to_thread(ordinaut, "doctor", "--json", env=env)
            (found,) = [each for each in json.loads(done.stdout) if each["check"] == "redis rights"]
            return dict(found)

        await set_user(admin, "ordinaut", documented())
        before = await _everything(admin)
        assert (await rights())["level"] == "ok"
        await set_user(admin, "ordinaut", f"{documented()} -xclaim -xgroup|create resetkeys ~ordinaut:*")
        found = await rights()
        assert found["level"] == "fail"
        assert found["advice"] == "ACL SETUSER ordinaut +xclaim +xgroup|create ~{ordinaut:log}:owner"
        # As it says, so it helps.
        await admin.execute_command(*found["advice"].split())
        assert (await rights())["level"] == "ok"
        assert await _everything(admin) == before


async def test_a_stream_that_may_not_be_read_hides_no_other_from_doctor(
    database_url: str, tmp_path: Path
) -> None:
    own = server("valkey", tmp_path / "valkey")
    async with started(own), own.client() as admin:
        await set_user(admin, "ordinaut", documented())
        url = own.url.replace("redis://", "redis://ordinaut:secret@")
        async with a_system(database_url, url) as system, an_intake(system) as intake:
            await listen(system, "ship")
            await listen(system, "post", "letters")
            await system.redis.xadd("orders", {"data": "1"})
            await admin.xadd("letters", {"data": "1"})
            await eventually(lambda: intake.matched == 1 and intake.unreadable)
            assert "'letters' cannot be read" in str(intake.unreadable)
            async with system.pool.acquire() as connection:
                await step(connection, all_projections()["tasks"])
        env = {"ORDINAUT_DATABASE_URL": database_url, "ORDINAUT_REDIS_URL": url}
        done = await asyncio.to_thread(ordinaut, "doctor", "--json", env=env)
        found = {each["check"]: each for each in json.loads(done.stdout)}
        assert found["redis rights"]["advice"] == "ACL SETUSER ordinaut ~letters"
        assert (found["stream orders"]["level"], found["stream letters"]["level"]) == ("ok", "fail")
        assert found["stream orders"]["found"] == "group ordinaut: 0 taken up, 0 waiting"


async def _everything(redis: Redis) -> list[str]:
    return sorted(await redis.keys())


def test_doctor_asks_for_the_rights_on_the_page() -> None:
    rules = {rule for rule in documented().split() if rule.startswith("+")}
    assert rules == {*RIGHTS, "+select"}
    assert " ".join(CLUSTER_RIGHTS) in DEPLOYMENT.read_text()
