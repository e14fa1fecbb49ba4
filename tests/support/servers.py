"""The servers of a whole test run: one PostgreSQL, one server of the Redis protocol."""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest

from ordinaut.runtime.embedded import EmbeddedServers
from ordinaut.runtime.migrate import migrate
from projections.registry import ensure_tables
from tests.support.redis_servers import RedisServer

DATABASES = 64
"""Logical databases of a Redis, from which each test gets one."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Servers:
    """Where the servers are: URLs that may create databases and flush whole Redis databases."""

    database_url: str
    redis_url: str


@contextmanager
def run_servers(testcontainers: bool) -> Iterator[Servers]:
    """Embedded servers, except those that ORDINAUT_TEST_DATABASE_URL / _REDIS_URL name or containers give, or
    that ORDINAUT_TEST_REDIS_BINARY is the program of."""
    database_url = os.environ.get("ORDINAUT_TEST_DATABASE_URL", "")
    redis_url = os.environ.get("ORDINAUT_TEST_REDIS_URL", "")
    with ExitStack() as stack:
        if testcontainers:
            database_url = database_url or stack.enter_context(_postgres_container())
            redis_url = redis_url or stack.enter_context(_redis_container())
        if not redis_url and "ORDINAUT_TEST_REDIS_BINARY" in os.environ:
            redis_url = stack.enter_context(_redis_process())
        if not (database_url and redis_url):
            # fsync guards against a power cut, which no test makes; kill -9 it survives without.
            servers = EmbeddedServers(
                ephemeral=True,
                fsync=False,
                databases=DATABASES,
                database_url=database_url,
                redis_url=redis_url,
            )
            stack.enter_context(servers)
            database_url, redis_url = servers.database_url, servers.redis_url
        yield Servers(database_url, redis_url)


@contextmanager
def _redis_process() -> Iterator[str]:
    with TemporaryDirectory(prefix="ordinaut-test-redis-") as directory:
        server = RedisServer(Path(directory), {"databases": DATABASES})
        blocking(server.start())
        try:
            yield server.url
        finally:
            server.kill()


@contextmanager
def _postgres_container() -> Iterator[str]:
    from testcontainers.postgres import PostgresContainer

    _need_docker()
    image = os.environ.get("ORDINAUT_TEST_POSTGRES_IMAGE", "postgres:18-alpine")
    with PostgresContainer(image, driver=None) as container:
        yield container.get_connection_url()


@contextmanager
def _redis_container() -> Iterator[str]:
    from testcontainers.redis import RedisContainer

    _need_docker()
    with RedisContainer(os.environ.get("ORDINAUT_TEST_REDIS_IMAGE", "valkey/valkey:9-alpine")) as container:
        yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"


def _need_docker() -> None:
    import docker

    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        raise pytest.UsageError(
            f"--testcontainers needs a Docker engine, and none answers: {error}"
        ) from None


def with_database(url: str, name: str) -> str:
    """The same server's URL for another database."""
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}/{name}{query}"


def blocking(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end from plain code, whatever event loop this thread has."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def execute(url: str, *statements: str) -> None:
    """Run statements that cannot be in a transaction, one after another."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def make_template(admin_url: str, name: str) -> None:
    """A database with the whole schema in it, from which each test gets its copy."""
    # template0 and UTF8: a cluster made on a machine without a locale has SQL_ASCII in its template1.
    create = f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
    await execute(admin_url, create)
    connection = await asyncpg.connect(with_database(admin_url, name))
    try:
        await migrate(connection)
        await ensure_tables(connection)
    finally:
        await connection.close()
