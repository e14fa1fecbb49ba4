"""What `ordinaut doctor` finds out about the streams that tasks listen to, and the queue behind them."""

from collections.abc import AsyncIterator

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ordinaut.cli import redis_findings
from ordinaut.cli.finding import Finding
from ordinaut.intake.pressure import GOES_ON_AT
from ordinaut.intake.source import MUST_BE
from ordinaut.runtime.settings import Settings
from ordinaut.runtime.stream_health import gone_unread, look
from ordinaut.runtime.streams import GROUP
from projections import due_work
from projections.dead_letters import count_dead

MUCH_LAG = 10_000
"""Entries that a group may be behind before it is worth a word."""

MANY = 1000
"""Dead letters are counted so far."""


async def queue(connection: asyncpg.Connection, settings: Settings) -> Finding:
    """Whether there is room in the queue for what comes on streams and from the log."""
    high = settings.queue_high_water
    waiting = await due_work.waiting(connection, high)
    if waiting < high:
        return Finding("queue", "ok", f"{waiting} runs wait for workers; streams are read up to {high}")
    until = int(high * GOES_ON_AT)
    found = (
        f"{waiting} runs or more wait for workers: nothing is read from streams, and no task reacts to events"
        f" of the log, until they are {until}"
    )
    return Finding("queue", "warn", found, "start more `worker`, or raise ORDINAUT_QUEUE_HIGH_WATER")


async def letters(connection: asyncpg.Connection) -> Finding:
    """Whether dead letters wait for somebody, in any space."""
    count = await count_dead(connection, MANY)
    if not count:
        return Finding("dead letters", "ok", "none")
    shown = f"{MANY} or more" if count >= MANY else str(count)
    return Finding("dead letters", "warn", f"{shown} wait", "look at them: `ordinaut stream dead ls`")


async def groups(sources: frozenset[str], redis: Redis) -> AsyncIterator[Finding]:
    """How far the intake is in each stream that a task listens to."""
    for stream in sorted(await redis_findings.streams(redis, sources)):
        check = f"stream {stream}"
        try:
            seen = await look(redis, stream)
        except RedisError as error:
            yield Finding(check, "fail", str(error), MUST_BE)
            continue
        if seen is None:
            yield Finding(check, "warn", "nobody reads it", "is the role `intake` running?")
            continue
        # Redis cannot always tell the lag (None) after entries in the middle were deleted.
        waiting = "?" if seen.lag is None else seen.lag
        shown = f"group {GROUP}: {seen.pending} taken up, {waiting} waiting"
        late = (seen.lag or 0) + seen.pending > MUCH_LAG
        yield Finding(check, "warn" if late else "ok", shown, "start more `intake`" if late else "")
        if gone := gone_unread(seen):
            shown = f"{gone} entries were trimmed or deleted before anybody had read them"
            yield Finding(check, "warn", shown, "raise MAXLEN where they are added, or start more `intake`")
