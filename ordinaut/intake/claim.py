"""Taking over entries that somebody read and did not acknowledge, so that one which kills whoever reads it is
found out and nobody else is blamed for it.

Redis counts how often it has handed an entry out. What was handed out once is taken over in batches. What
has been handed out more often is taken alone, entry by entry: when the process dies again, only the count
of the one it died over has grown. So innocent entries that were in one batch with a killer stop at a count
of two, and the killer goes on alone to the limit.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from redis.asyncio import Redis

from ordinaut.intake.source import Source, entries_of, text
from ordinaut.runtime.entries import Entry, History
from ordinaut.runtime.streams import GROUP

TOGETHER = 1
"""Entries handed out so often, or less, are taken over together."""

Held = dict[str, list[Any]]
"""Ids of entries, as text, by stream."""

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Claimed:
    """Entries that were taken over; `before` is how often they had been handed out until then.

    `histories`: those that have had all the deliveries they get, by entry id. They are to be rejected,
    not decided.
    """

    entries: Sequence[Entry]
    before: int
    histories: dict[str, History] = field(default_factory=dict)


async def claim(
    redis: Redis, source: Source, consumer: str, *, idle_seconds: float, most: int, count: int
) -> AsyncIterator[Claimed]:
    """Take over what has been idle for so long, at most `count` entries at once; whoever iterates deals with
    each before the next is taken. `most` is how many deliveries an entry gets. Raises what redis raises."""
    idle, start = int(idle_seconds * 1000), "-"
    while True:
        pending: list[Any] = await redis.xpending_range(source.stream, GROUP, start, "+", count, idle=idle)
        left = [(text(one["message_id"]), _history(one)) for one in pending]
        together = [entry_id for entry_id, history in left if history.deliveries <= TOGETHER]
        if together and (entries := await _take(redis, source.stream, consumer, idle, together)):
            yield Claimed(entries, TOGETHER)
        for entry_id, history in left:
            if history.deliveries <= TOGETHER:
                continue
            # Over the limit reading it may be what kills.
            unseen = history.deliveries > most
            taken = await _take(redis, source.stream, consumer, idle, [entry_id], unseen=unseen)
            if taken:
                over = history.deliveries >= most
                yield Claimed(taken, history.deliveries, {entry_id: history} if over else {})
        if len(left) < count:
            return
        start = f"({left[-1][0]}"


def _history(one: Mapping[str, Any]) -> History:
    return History(one["times_delivered"], text(one["consumer"]), one["time_since_delivered"] / 1000)


async def _take(
    redis: Redis, stream: str, consumer: str, idle: int, ids: list[Any], *, unseen: bool = False
) -> list[Entry]:
    """Those of `ids` that nobody else has taken over meanwhile; `unseen`: without their fields."""
    if unseen:
        found: list[Any] = await redis.xclaim(stream, GROUP, consumer, idle, ids, justid=True)
        return [Entry(stream, text(entry_id), {}) for entry_id in found]
    entries = entries_of(stream, await redis.xclaim(stream, GROUP, consumer, idle, ids))
    if missing := set(ids) - {entry.id for entry in entries}:
        await _forget_deleted(redis, stream, sorted(missing))
    return entries


async def _forget_deleted(redis: Redis, stream: str, ids: Sequence[str]) -> None:
    """Entries that their stream no longer has cannot be taken over; before 7.0 Redis keeps them pending."""
    async with redis.pipeline(transaction=False) as pipeline:
        for entry_id in ids:
            pipeline.xrange(stream, entry_id, entry_id)
        found = await pipeline.execute(raise_on_error=False)
    gone = [entry_id for entry_id, entries in zip(ids, found, strict=True) if entries == []]
    if gone:
        await redis.xack(stream, GROUP, *gone)
        logger.warning("intake.pending_entries_deleted", stream=stream, entries=len(gone), first=gone[0])


async def keep(redis: Redis, consumer: str, held: Held) -> None:
    """Say that these entries, by stream, are still in hand, so that nobody else takes them over. That is no
    delivery."""
    for stream, ids in held.items():
        await redis.xclaim(stream, GROUP, consumer, 0, ids, justid=True)


async def give_back(redis: Redis, consumer: str, held: Held, *, before: int, idle_seconds: float) -> None:
    """Let others have these entries at once, and take back that they were delivered: nothing is wrong with
    them."""
    for stream, ids in held.items():
        await redis.xclaim(
            stream, GROUP, consumer, 0, ids, idle=int(idle_seconds * 1000), retrycount=before, justid=True
        )
