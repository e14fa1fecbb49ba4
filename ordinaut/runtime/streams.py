"""The Redis streams that people's systems write to, and the consumer group that reads them."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from ordinaut.runtime.listening import is_pattern
from ordinaut.runtime.redis_client import each_master, time_of
from ordinaut.runtime.triggers import TriggerIndex

GROUP = "ordinaut"
"""The consumer group that Ordinaut has on every stream some task listens to."""

DEAD = "ordinaut:dead"
"""The stream that gets a copy of every entry that was rejected, with the reason (I12)."""

RESERVED = "ordinaut:"
"""Keys that begin so are the system's own; no task listens to them and nobody publishes to them."""

LAST_SEQUENCE = 2**64 - 1
"""The highest sequence number that an id may have within its millisecond."""

EntryId = tuple[int, int]
"""A stream entry's id as two numbers, milliseconds and sequence: they compare as Redis compares ids."""


def parse_id(entry_id: bytes | str) -> EntryId:
    """`<milliseconds>-<sequence>` as numbers."""
    text = entry_id.decode() if isinstance(entry_id, bytes) else entry_id
    first, _, second = text.partition("-")
    return int(first), int(second or 0)


def milliseconds(at: datetime) -> int:
    """Milliseconds since the epoch."""
    return int(at.timestamp() * 1000)


async def streams_of(redis: Redis, patterns: Iterable[str]) -> frozenset[str]:
    """The names of the streams there are that one of `patterns` stands for, without the system's own. Raises
    what redis raises; in a cluster those are left out whose master is away."""
    globs = [_glob(pattern) for pattern in patterns]
    if not globs:
        return frozenset()
    found: set[str] = set()
    masters = await each_master(redis)
    away: list[RedisError] = []
    for master in masters:
        try:
            for glob in globs:
                found |= await _scan(redis, glob, master)
        except RedisError as error:
            away.append(error)
            if len(away) == len(masters):
                raise
    return frozenset(found)


def _glob(pattern: str) -> str:
    """What else has a meaning for Redis's own patterns means itself in ours."""
    return re.sub(r"([\\\[\]?])", r"\\\1", pattern)


async def _scan(redis: Redis, glob: str, master: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    async for key in redis.scan_iter(match=glob, count=1000, _type="stream", **master):
        raw = key if isinstance(key, bytes) else key.encode()
        name = raw.decode(errors="ignore")
        # A key that is no text has no name that a task could listen to.
        if name.encode() == raw and not name.startswith(RESERVED):
            found.add(name)
    return found


async def open_source(redis: Redis, pool: asyncpg.Pool, index: TriggerIndex, source: str) -> None:
    """`open_stream` for the stream that a task begins to listen to, or for all there are of a pattern."""
    streams = await streams_of(redis, [source]) if is_pattern(source) else [source]
    for stream in streams:
        await open_stream(redis, pool, index, stream)


async def open_stream(redis: Redis, pool: asyncpg.Pool, index: TriggerIndex, stream: str) -> bool:
    """Make the consumer group on a stream that a task begins to listen to; says whether it was made.

    Whoever accepts such a task calls this, after it was appended and before answering, so that no entry
    added after the answer is missed. It may fail: when Redis is away at that moment (it raises what redis
    raises), intake makes the group later and goes back to the task's creation.
    """
    await index.refresh()
    created = [each.task.created_at for each in index.listening(stream) if each.task.created_at]
    return await ensure_group(
        redis, stream, await unheard_from(redis, stream, created, await clock_ahead(redis, pool, stream))
    )


async def ensure_group(redis: Redis, stream: str, start: str = "$") -> bool:
    """Make the consumer group on `stream` (and the stream) unless it is there; says whether it was made.

    `start` is the entry id behind which a new group begins to read: `$` for what is added from now on,
    `0` for everything. Raises `ResponseError` when the key holds something else than a stream, and what
    redis raises when it is away.
    """
    try:
        await redis.xgroup_create(stream, GROUP, id=start, mkstream=True)
    except ResponseError as error:
        if str(error).startswith("BUSYGROUP"):
            return False
        raise
    return True


async def clock_ahead(redis: Redis, pool: asyncpg.Pool, stream: str) -> int:
    """How many milliseconds Redis's clock, which makes the ids of this stream's entries, is ahead of
    PostgreSQL's, which says when a task was created.

    PostgreSQL is asked second, so this is never too high: reckoned back from it, a task was created a
    little too early rather than too late, and what was added just after its creation is not missed.
    """
    async with pool.acquire() as connection:
        seconds, microseconds = await time_of(redis, stream)
        at: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return seconds * 1000 + microseconds // 1000 - milliseconds(at)


async def unheard_from(redis: Redis, stream: str, created: Iterable[datetime], ahead: int) -> str:
    """Where a new group begins: just before the millisecond in which the oldest task that listens was
    created, because an entry may have been added within it. When nothing was added since then it begins at
    the stream's last id, because new ids may be smaller than the time is: whoever adds entries may choose
    them."""
    since = min((milliseconds(each) + ahead for each in created), default=0)
    # A group gives out what is behind its id, not what has it.
    before = (since - 1, LAST_SEQUENCE) if since > 0 else (0, 0)
    first, second = min(before, await last_id(redis, stream))
    return f"{first}-{second}"


async def last_id(redis: Redis, stream: str) -> EntryId:
    """The id that was last added to the stream; zeros when there is none. Raises `ResponseError` when the
    key holds something else."""
    if not await redis.exists(stream):
        return (0, 0)
    try:
        answer: dict[str, Any] = await redis.xinfo_stream(stream)
    except ResponseError as error:
        if "no such key" in str(error):
            return (0, 0)
        raise
    return parse_id(answer["last-generated-id"])
