"""Connections to PostgreSQL: one pool a process, JSON decoded by orjson, UTC everywhere."""

from typing import Any

import asyncpg
import orjson

OUTAGE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg makes of a server that ends an idle connection
)
"""What asking PostgreSQL raises while it is stopped, starting, failing over or overloaded. Roles log
it, wait and try again; it is never a reason to end the process."""

CONNECT_SECONDS = 10.0
"""How long opening one connection may take unless somebody says otherwise."""


def _encode_json(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


async def prepare_connection(connection: asyncpg.Connection) -> None:
    """Give a connection the codecs that every query here relies on."""
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=_encode_json, decoder=orjson.loads)


async def connect(url: str, *, timeout: float = CONNECT_SECONDS, **settings: str) -> asyncpg.Connection:
    """One connection of its own, prepared; `settings` are server settings such as `search_path`.

    Raises `TimeoutError` when it is not there within `timeout` seconds.
    """
    connection = await asyncpg.connect(
        url, server_settings={"application_name": "ordinaut", "timezone": "UTC"} | settings, timeout=timeout
    )
    await prepare_connection(connection)
    return connection


async def _keep_as_it_is(_connection: asyncpg.Connection) -> None:
    """Nobody leaves session state behind on a pool's connection (SET LOCAL and transaction locks only),
    so the round trip that would clear it at every release is spared."""


async def create_pool(
    url: str,
    *,
    size: int,
    name: str = "ordinaut",
    durable: bool = True,
    timeout: float = CONNECT_SECONDS,
) -> asyncpg.Pool:
    """A pool of at most `size` connections; it opens them as they are needed, each within `timeout`
    seconds. Without `durable`, what is committed may be lost in a crash of the server: for what may be."""
    return await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=size,
        init=prepare_connection,
        reset=_keep_as_it_is,
        timeout=timeout,
        command_timeout=60,
        server_settings={
            "application_name": name,
            "timezone": "UTC",
            # I1 is promised whatever the server's default is.
            "synchronous_commit": "on" if durable else "off",
            # A process that is frozen in the middle of an append holds the head of the log: after this
            # the server ends its transaction, and the others go on.
            "idle_in_transaction_session_timeout": "5s",
        },
    )
