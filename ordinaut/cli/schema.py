"""Bringing the database's schema up to date (`ordinaut migrate`), and telling whether it is."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import asyncpg
import structlog

from ordinaut.domain.errors import OrdinautError
from ordinaut.log.append import Connection
from ordinaut.log.database import OUTAGE
from ordinaut.runtime.migrate import migrate, migration_files
from projections.rebuild import rebuild
from projections.registry import all_projections, ensure_tables

WAIT_SECONDS = 30.0
"""How long a role waits for somebody to migrate: beside it, `ordinaut migrate` may be just starting."""

logger = structlog.get_logger(__name__)

RebuildProgress = Callable[[str, int, int], None]
"""Called with (projection, events folded, events there are)."""


class SchemaMissing(OrdinautError):
    """The database is not as this version of the program needs it."""

    slug = "schema-missing"
    title = "The database is not prepared"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepare` did: names of the migrations applied and of the projections rebuilt."""

    migrations: list[str]
    rebuilt: list[str]


async def prepare(connection: asyncpg.Connection, progress: RebuildProgress) -> Prepared:
    """Apply missing migrations, make the tables of new projections, rebuild those of an older version.

    Idempotent, and safe while others run. Raises `MigrationRefused`.
    """
    migrations = await migrate(connection)
    outdated = await ensure_tables(connection)
    for name in outdated:
        await rebuild(connection, all_projections()[name], progress=partial(progress, name))
    return Prepared(migrations, outdated)


async def missing(connection: Connection) -> list[str]:
    """What `ordinaut migrate` would have to make: migrations and projections by name; [] is well."""
    wanted = list(migration_files())
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return wanted
    applied = {row[0] for row in await connection.fetch("SELECT name FROM schema_migrations")}
    lacking = [name for name in wanted if name not in applied]
    if lacking:
        return lacking
    rows = await connection.fetch("SELECT name, version FROM projection_checkpoints")
    there = {row["name"]: row["version"] for row in rows}
    return [
        f"projection {each.name}"
        for each in all_projections().values()
        if there.get(each.name) != each.version
    ]


async def wait_for_schema(pool: asyncpg.Pool, stop: asyncio.Event, seconds: float = WAIT_SECONDS) -> None:
    """Return once nothing is missing, or `stop` is set; `SchemaMissing` when that takes too long."""
    deadline = asyncio.get_running_loop().time() + seconds
    told = False
    while not stop.is_set():
        try:
            async with pool.acquire() as connection:
                lacking = await missing(connection)
        except OUTAGE as error:
            lacking = [f"a server that answers ({error or type(error).__name__})"]
        if not lacking:
            return
        if not told:
            logger.warning("schema.waits", lacking=lacking, hint="run `ordinaut migrate`", seconds=seconds)
            told = True
        if asyncio.get_running_loop().time() > deadline:
            raise SchemaMissing(
                f"the database lacks {', '.join(lacking)}: run `ordinaut migrate`"
                f" (waited {seconds:.0f} s for it)"
            )
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.25)
