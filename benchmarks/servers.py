"""The servers everything here runs on: one PostgreSQL 18 and one Valkey, as `ordinaut dev` brings them.

They are the same for every system: PostgreSQL with `fsync` and `synchronous_commit` on, Valkey with an
append-only file. Their data is below `.bench/`, so on the disk of the checkout and never on a RAM disk
that happens to be `/tmp`.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import redis

from ordinaut.runtime.embedded import EmbeddedServers

_SETTINGS = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_compression",
    "shared_buffers",
    "max_wal_size",
)

_numbers = itertools.count(1)


@dataclass
class Servers:
    """Where the two servers are, and in `settings` what decides about their speed and durability."""

    database_url: str
    redis_url: str
    settings: dict[str, str] = field(default_factory=dict)

    async def begin(self) -> None:
        """Removes what an interrupted benchmark left, and reads `settings` from the servers."""
        connection = await asyncpg.connect(self.database_url)
        try:
            for row in await connection.fetch(
                "SELECT datname FROM pg_database WHERE datname LIKE 'bench\\_%'"
            ):
                await connection.execute(f'DROP DATABASE "{row[0]}" WITH (FORCE)')
            for name in _SETTINGS:
                self.settings[name] = await connection.fetchval("SELECT current_setting($1)", name)
        finally:
            await connection.close()
        with redis.Redis.from_url(self.redis_url) as client:
            about = client.info("server")
            self.settings["valkey"] = str(about.get("valkey_version", about.get("redis_version")))
            for name in ("appendonly", "appendfsync"):
                self.settings[name] = str(client.config_get(name)[name])

    async def fresh(self) -> tuple[str, str]:
        """An empty database and an emptied Redis, with nothing left to write back: their URLs."""
        name = f"bench_{next(_numbers)}"
        connection = await asyncpg.connect(self.database_url)
        try:
            await connection.execute(f"CREATE DATABASE {name}")
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()
        return urlsplit(self.database_url)._replace(path=f"/{name}").geturl(), self.redis_url

    async def drop(self, database_url: str) -> None:
        """Removes a database that `fresh` made, whoever is still connected."""
        connection = await asyncpg.connect(self.database_url)
        try:
            name = urlsplit(database_url).path.lstrip("/")
            await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        finally:
            await connection.close()


@contextmanager
def running(directory: Path) -> Iterator[Servers]:
    """Both servers while the context lasts, their data in `directory`."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with EmbeddedServers(directory) as embedded:
        yield Servers(embedded.database_url, embedded.redis_url)
