"""Rebuilding a projection beside the live one, verifying that the two agree, and telling how far
each has got."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import asyncpg

from ordinaut.log.append import Connection
from projections.base import Projection, fold_function
from projections.projector import fold_range

BATCH = 20_000

Progress = Callable[[int, int], None]
"""Called with (events folded, events there are)."""


def _quiet(_done: int, _total: int) -> None:
    """No one watches."""


async def status(connection: Connection) -> list[dict[str, Any]]:
    """Name, position, lag (in events) and version of every projection, and when it last moved."""
    rows = await connection.fetch(
        """SELECT name, version, c.position, greatest(h.position - c.position, 0) AS lag, h.position AS head,
                  updated_at FROM projection_checkpoints c, log_head h ORDER BY name"""
    )
    return [dict(row) | {"updated_at": row["updated_at"].isoformat()} for row in rows]


async def rebuild(
    connection: asyncpg.Connection, projection: Projection, *, progress: Progress = _quiet, batch: int = BATCH
) -> int:
    """Fold the whole log into a new table while the old one serves, then swap them in one transaction.

    Answers with the number of events folded. Stopped half-way it leaves a schema named
    `ordinaut_rebuild_…`, which the next rebuild of the projection drops; the live table is untouched.
    """
    schema = f"ordinaut_rebuild_{projection.name}"
    # One rebuild of a projection at a time; the lock goes with the connection.
    if not await connection.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", schema):
        raise RuntimeError(f"another rebuild of {projection.name} is running")
    try:
        live = await connection.fetchval("SELECT current_schema()")
        await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE; CREATE SCHEMA "{schema}"')
        position = 0
        async with connection.transaction():
            await connection.execute(f'SET LOCAL search_path = "{schema}", "{live}"')
            await connection.execute(projection.ddl)
            await connection.execute(fold_function(projection))
        while True:
            head: int = await connection.fetchval("SELECT position FROM log_head")
            progress(position, head)
            if head - position <= batch:
                break
            async with connection.transaction():
                await connection.execute(f'SET LOCAL search_path = "{schema}", "{live}"')
                await connection.execute("SET LOCAL synchronous_commit = off")
                await fold_range(connection, projection, position, position + batch)
            position += batch
        await connection.execute(f'ANALYZE "{schema}"."{projection.name}"')
        # To a snapshot that is older than the new table's rows the new table is empty: the swap waits
        # until no verification is under way.
        await connection.execute("SELECT pg_advisory_lock(hashtext($1))", _verifying(projection))
        try:
            head = await _swap(connection, projection, schema, live, position)
        finally:
            await connection.execute("SELECT pg_advisory_unlock(hashtext($1))", _verifying(projection))
        progress(head, head)
        return head
    finally:
        await connection.execute("SELECT pg_advisory_unlock(hashtext($1))", schema)


def _verifying(projection: Projection) -> str:
    """The name of the lock that verifications share and the swap of a rebuild has alone."""
    return f"ordinaut_verify_{projection.name}"


async def _swap(connection: Connection, projection: Projection, schema: str, live: str, position: int) -> int:
    """The last stretch and the exchange, in one transaction that others wait for."""
    name = projection.name
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '30s'")
        # Checkpoint first, then the table: the order in which a projector takes them.
        await connection.execute("SELECT 1 FROM projection_checkpoints WHERE name = $1 FOR UPDATE", name)
        # Whoever changes the table together with an append (workers, clocks) has committed both or
        # waits here and changes the new table; so the head read next covers all of the old one.
        await connection.execute(f'LOCK TABLE "{live}"."{name}" IN ACCESS EXCLUSIVE MODE')
        head: int = await connection.fetchval("SELECT position FROM log_head")
        await connection.execute(f'SET LOCAL search_path = "{schema}", "{live}"')
        await fold_range(connection, projection, position, head)
        if projection.carry_over:
            await connection.execute(
                projection.carry_over.format(live=f'"{live}"."{name}"', rebuilt=f'"{schema}"."{name}"')
            )
        await connection.execute(f'DROP TABLE "{live}"."{name}"')
        await connection.execute(f'ALTER TABLE "{schema}"."{name}" SET SCHEMA "{live}"')
        await connection.execute(f'DROP SCHEMA "{schema}" CASCADE; SET LOCAL search_path = "{live}"')
        await connection.execute(fold_function(projection))
        await connection.execute(
            "UPDATE projection_checkpoints SET position = $2, version = $3, synchronous = $4,"
            " updated_at = clock_timestamp() WHERE name = $1",
            name,
            head,
            projection.version,
            projection.synchronous,
        )
    return head


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verification found: `rows` compared, how many are `missing` from the live table, `extra` in
    it, with up to three `examples` of either (as JSON text)."""

    projection: str
    position: int
    rows: int
    missing: int
    extra: int
    examples: list[str]

    @property
    def agrees(self) -> bool:
        """Whether the live table is exactly the fold of the log (I5)."""
        return self.missing == 0 and self.extra == 0


async def verify(
    connection: asyncpg.Connection, projection: Projection, *, progress: Progress = _quiet, batch: int = BATCH
) -> Verdict:
    """Fold the log anew and compare with the live table, at any moment and without stopping anybody.

    Everything happens in one snapshot, which holds the log up to some event and the live table at its
    checkpoint or (where workers change it together with an append) beyond. A copy of the live table is
    brought to that same event by the fold itself; then the two must have the same rows. The copies
    are gone when the transaction ends.
    """
    lock = _verifying(projection)
    await connection.execute("SELECT pg_advisory_lock_shared(hashtext($1))", lock)
    try:
        return await _verify(connection, projection, progress, batch)
    finally:
        await connection.execute("SELECT pg_advisory_unlock_shared(hashtext($1))", lock)


async def _verify(
    connection: asyncpg.Connection, projection: Projection, progress: Progress, batch: int
) -> Verdict:
    name = projection.name
    fresh, copy = (f"ordinaut_verify_{secrets.token_hex(6)}" for _ in range(2))
    transaction = connection.transaction(isolation="repeatable_read")
    await transaction.start()
    try:
        live = await connection.fetchval("SELECT current_schema()")
        head: int = await connection.fetchval("SELECT position FROM log_head")
        checkpoint: int = await connection.fetchval(
            "SELECT position FROM projection_checkpoints WHERE name = $1", name
        )
        for schema in (fresh, copy):
            await connection.execute(
                f'CREATE SCHEMA "{schema}"; SET LOCAL search_path = "{schema}", "{live}"'
            )
            await connection.execute(projection.ddl)
        await connection.execute(f'INSERT INTO "{copy}"."{name}" SELECT * FROM "{live}"."{name}"')
        await fold_range(connection, projection, checkpoint, head)
        await connection.execute(f'SET LOCAL search_path = "{fresh}", "{live}"')
        for position in range(0, head, batch):
            progress(position, head)
            await fold_range(connection, projection, position, min(head, position + batch))
        progress(head, head)
        return await _compare(connection, projection, fresh, copy, head)
    finally:
        await transaction.rollback()


async def _compare(
    connection: Connection, projection: Projection, fresh: str, copy: str, head: int
) -> Verdict:
    name = projection.name
    columns = ", ".join(
        f'"{row[0]}"'
        for row in await connection.fetch(
            "SELECT attname FROM pg_attribute"
            " WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attname <> ALL ($2)"
            " ORDER BY attnum",
            f'"{fresh}"."{name}"',
            list(projection.own),
        )
    )
    right, there = f'SELECT {columns} FROM "{fresh}"."{name}"', f'SELECT {columns} FROM "{copy}"."{name}"'
    counts = await connection.fetchrow(
        f"""SELECT (SELECT count(*) FROM ({right}) r) AS rows,
                   (SELECT count(*) FROM ({right} EXCEPT ALL {there}) m) AS missing,
                   (SELECT count(*) FROM ({there} EXCEPT ALL {right}) x) AS extra"""
    )
    assert counts is not None
    examples: list[str] = []
    for kind, query in (("missing", f"{right} EXCEPT ALL {there}"), ("extra", f"{there} EXCEPT ALL {right}")):
        if counts[kind]:
            rows = await connection.fetch(f"SELECT row_to_json(d)::text FROM ({query}) d LIMIT 3")
            examples += [f"{kind}: {row[0]}" for row in rows]
    return Verdict(name, head, counts["rows"], counts["missing"], counts["extra"], examples)
