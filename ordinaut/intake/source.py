"""One Redis stream as intake reads it: its group made (again)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import asyncpg
import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ordinaut.runtime.entries import Entry, digest
from ordinaut.runtime.listening import Listener
from ordinaut.runtime.streams import (
    GROUP,
    EntryId,
    clock_ahead,
    ensure_group,
    last_id,
    milliseconds,
    parse_id,
    unheard_from,
)

MUST_BE = "the key must be a stream, and the Redis user must be allowed to read it"

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Source:
    """A stream that tasks listen to, or once did.

    `ready`: the group is there, so it can be read. `known`: it was there before, so that a missing one
    was lost. `wrong`: why the stream cannot be read. `forsaken`: nobody listens and there is no group
    either. `seen` is the last id read here, `seen_digest` that of its fields.

    `old_until`: entries up to this id were in the stream before its group was made. A task takes those
    of them that are younger than itself; `clock_ahead` is how many milliseconds Redis's clock, which
    makes the ids, is ahead of PostgreSQL's, which says when a task was created.
    """

    stream: str
    ready: bool = False
    known: bool = False
    forsaken: bool = False
    wrong: str | None = None
    seen: EntryId = (0, 0)
    seen_digest: str = ""
    old_until: EntryId = (0, 0)
    clock_ahead: int = 0

    @property
    def has_old(self) -> bool:
        """Whether there were entries in the stream before its group was made."""
        return self.old_until != (0, 0)

    def of_age(self, entry: Entry, listeners: Sequence[Listener]) -> Sequence[Listener]:
        """Those listeners that take this entry: all, but for entries older than the group."""
        if not self.has_old:
            return listeners
        at = parse_id(entry.id)
        if at > self.old_until:
            return listeners
        return tuple(each for each in listeners if at[0] >= self.since(each))

    def saw(self, entry: Entry) -> None:
        """Remember the entry that was read last."""
        self.seen, self.seen_digest = parse_id(entry.id), digest(entry.fields)

    def since(self, listener: Listener) -> int:
        """When the task was created, in milliseconds of Redis's clock."""
        created = listener.task.created_at
        return milliseconds(created) + self.clock_ahead if created else 0


def unreadable(sources: Iterable[Source]) -> str | None:
    """A sentence on those that cannot be read; None when all can."""
    wrong = [source for source in sources if source.wrong]
    if not wrong:
        return None
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"the stream {wrong[0].stream!r} cannot be read{more}: {wrong[0].wrong}; {MUST_BE}"


def text(raw: bytes | str) -> str:
    """What a client gives, whether or not it decodes responses, as text."""
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw


def entries_of(stream: str, raw: Any) -> list[Entry]:
    """The entries of a reply; those that were deleted from the stream meanwhile are left out."""
    return [Entry(stream, text(one[0]), one[1]) for one in raw if one[0] and one[1] is not None]


async def prepare(redis: Redis, source: Source, listeners: Sequence[Listener], pool: asyncpg.Pool) -> None:
    """Make the stream's group unless it is there; afterwards `source.ready` says whether it can be read.

    A group missing at first sight reads from the creation of the oldest task that listens; one that
    was lost (FLUSHALL, XGROUP DESTROY, the stream deleted) reads everything again: entries that had
    their verdict keep it, because their runs' ids are the same (I7). With nobody listening, none is
    made. What is wrong with the one key (not a stream, not permitted) is reported once.
    """
    if not listeners and source.forsaken:
        return
    try:
        if not listeners:
            source.forsaken = not await _has_group(redis, source.stream)
            source.ready = not source.forsaken
        else:
            await _ensure(redis, source, listeners, pool)
            source.ready = source.known = True
            source.forsaken = False
        source.wrong = None
    except ResponseError as error:
        if source.wrong != str(error):
            logger.error("intake.cannot_read_stream", stream=source.stream, reason=str(error), hint=MUST_BE)
        source.wrong, source.ready = str(error), False


async def _ensure(redis: Redis, source: Source, listeners: Sequence[Listener], pool: asyncpg.Pool) -> None:
    source.clock_ahead = await clock_ahead(redis, pool, source.stream)
    created = [each.task.created_at for each in listeners if each.task.created_at]
    start = "0" if source.known else await unheard_from(redis, source.stream, created, source.clock_ahead)
    if not await ensure_group(redis, source.stream, start):
        return
    last = await last_id(redis, source.stream)
    # In a stream that started over all is new, whatever its ids are.
    source.old_until = (0, 0) if await _started_over(redis, source, last) else last
    source.seen = (0, 0)
    if source.known:
        logger.warning("intake.group_lost", stream=source.stream, group=GROUP)


async def _started_over(redis: Redis, source: Source, last: EntryId) -> bool:
    """Whether the stream is another one than was read here before: its ids are below those that were read, or
    the entry that was read last is another one now."""
    if last < source.seen:
        return True
    if source.seen == (0, 0):
        return False
    entry_id = f"{source.seen[0]}-{source.seen[1]}"
    found = entries_of(source.stream, await redis.xrange(source.stream, entry_id, entry_id))
    return bool(found) and digest(found[0].fields) != source.seen_digest


async def _has_group(redis: Redis, stream: str) -> bool:
    if not await redis.exists(stream):
        return False
    return any(text(group["name"]) == GROUP for group in await redis.xinfo_groups(stream))


async def tidy(redis: Redis, source: Source, *, idle_seconds: float) -> None:
    """Remove consumers from the group that were killed long ago: nothing is pending with them, and nothing
    was heard of them for so long. One that lives after all is there again when it reads."""
    script = (files("ordinaut.intake") / "tidy.lua").read_text(encoding="utf-8")
    answer: Any = redis.eval(script, 1, source.stream, GROUP, str(int(idle_seconds * 1000)))
    if gone := await answer:
        logger.info("intake.consumers_removed", stream=source.stream, consumers=gone)


async def leave(redis: Redis, source: Source, consumer: str) -> None:
    """Remove this consumer from the group, unless entries are pending with it: removing it would lose
    them, and as it is another consumer will claim them."""
    for one in await redis.xinfo_consumers(source.stream, GROUP):
        if text(one["name"]) == consumer and one["pending"] == 0:
            await redis.xgroup_delconsumer(source.stream, GROUP, consumer)
