"""Telling an entry that comes again from another one with the same id.

Redis never changes an entry, so what has the same stream, id and fields is the same entry, delivered again or
read from a Redis that was restored. The same id with other fields is another entry: the stream was deleted
and created again, and its ids started over. What was recorded of an entry holds the digest of its fields.
"""

from collections.abc import Iterable
from dataclasses import replace

import asyncpg

from ordinaut.log.read import read_first
from ordinaut.runtime.entries import Entry, digest


async def with_what_others_took(
    pool: asyncpg.Pool, clashes: Iterable[tuple[Entry, str]]
) -> dict[tuple[str, str], Entry]:
    """Those entries that met a verdict on another entry with their id, by stream and id, each with the names
    of the log's streams that are taken. `clashes` are entries and log streams that were there already."""
    pairs = [(entry, stream) for entry, stream in clashes if stream not in entry.taken]
    if not pairs:
        return {}
    async with pool.acquire() as connection:
        first = await read_first(connection, [stream for _, stream in pairs])
    found: dict[tuple[str, str], Entry] = {}
    for entry, stream in pairs:
        event = first.get(stream)
        recorded = event.data.get("digest") if event is not None else None
        if recorded is None or not entry.fields or recorded == digest(entry.fields):
            continue
        known = found.get((entry.stream, entry.id), entry)
        found[entry.stream, entry.id] = replace(known, taken=known.taken | {stream})
    return found
