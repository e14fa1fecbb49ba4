"""Brings a database's schema up to date: plain SQL files, in order, each exactly once.

Each `migrations/NNNN_name.sql` runs in a transaction of its own together with the record that it ran,
under an advisory lock. A file that was applied must never change: its SHA-256 is compared every time.
"""

import hashlib
import re
from pathlib import Path

import asyncpg

from ordinaut.domain.errors import OrdinautError

DIRECTORY = Path(__file__).parents[2] / "migrations"
"""Beside this package, in a checkout and installed; not looked up by name, because a directory named so
in the working directory or on PYTHONPATH is somebody else's."""

_LOCK = 0x6F7264696E617574  # "ordinaut" in ASCII: one lock per database, shared with nobody
_RECORD = "INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)"


class MigrationRefused(OrdinautError):
    """The migration files and the database tell different stories; nothing was changed."""

    slug = "migration-refused"
    title = "Migration refused"


def migration_files() -> dict[str, str]:
    """Every migration's SQL by file name, in the order of the numbers 0001, 0002 …"""
    found = {entry.name: entry for entry in DIRECTORY.glob("*.sql")}
    for number, name in enumerate(sorted(found), start=1):
        if not re.fullmatch(rf"{number:04d}_[a-z0-9_]+\.sql", name):
            raise MigrationRefused(f"migrations/{name} is out of order: expected {number:04d}_<name>.sql")
    return {name: found[name].read_text(encoding="utf-8") for name in sorted(found)}


async def migrate(
    database: "str | asyncpg.Connection[asyncpg.Record]", scripts: dict[str, str] | None = None
) -> list[str]:
    """Apply what is missing, over a URL or an open connection; the names applied ([] when up to date).

    `scripts` are the migrations by name, unless given the packaged files. Raises `MigrationRefused`.
    """
    if isinstance(database, str):
        connection = await asyncpg.connect(database)
        try:
            return await migrate(connection, scripts)
        finally:
            await connection.close()
    scripts = migration_files() if scripts is None else scripts
    await database.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await database.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY,"
            " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        rows = await database.fetch('SELECT name, checksum FROM schema_migrations ORDER BY name COLLATE "C"')
        pending = _pending({row["name"]: row["checksum"] for row in rows}, scripts)
        for name in pending:
            async with database.transaction():
                await database.execute(scripts[name])
                await database.execute(_RECORD, name, _sum(scripts[name]))
        return pending
    finally:
        if not database.is_closed():  # the lock ends with its connection anyway
            await database.execute("SELECT pg_advisory_unlock($1)", _LOCK)


def _sum(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()


def _pending(applied: dict[str, str], scripts: dict[str, str]) -> list[str]:
    """The scripts still to run. Refuses a history that is not a prefix of `scripts`."""
    for (name, checksum), expected in zip(applied.items(), [*scripts, *[None] * len(applied)], strict=False):
        if name not in scripts:
            raise MigrationRefused(f"the database has migration {name}, which this version does not know")
        if name != expected:
            raise MigrationRefused(f"migration {expected} was never applied, though the later {name} was")
        if checksum != _sum(scripts[name]):
            raise MigrationRefused(f"migrations/{name} was changed after it was applied; put its text back")
    return list(scripts)[len(applied) :]
