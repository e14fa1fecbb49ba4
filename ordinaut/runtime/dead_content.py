"""What a dead letter held: the entry whole, wherever it still is."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ordinaut.domain.deadletter import DeadLetter
from ordinaut.domain.errors import NotPossible, Unavailable
from ordinaut.runtime.entries import Entry, digest, original_fields
from ordinaut.runtime.streams import DEAD, milliseconds

LOOKED_THROUGH, PAGE = 20_000, 500
"""How many copies in `ordinaut:dead`, from the time of the rejection on, are looked through for one."""

BEFORE_MS = 60_000
"""How much earlier than the rejection its copy may be, by Redis's clock."""


async def find_entry(redis: Redis, letter: DeadLetter) -> tuple[Entry, str]:
    """The entry whole, and where it was found: in its `stream`, in `ordinaut:dead` ("dead"), or in the `log`.
    Raises NotPossible when it is nowhere, and Unavailable when Redis does not say."""
    away: Exception | None = None
    try:
        there: Any = await redis.xrange(letter.stream, letter.entry_id, letter.entry_id)
        for _, fields in there:
            if _is_it(letter, fields):
                return Entry(letter.stream, letter.entry_id, fields), "stream"
        async for _, fields in copies(redis, letter):
            if b"shortened" not in fields and _is_it(letter, original := original_fields(fields)):
                return Entry(letter.stream, letter.entry_id, original), "dead"
    except (RedisError, OSError, TimeoutError) as error:
        # The key may have become something else; then the log may still do.
        away = None if str(error).startswith("WRONGTYPE") else error
    if (fields := logged_fields(letter)) is not None:
        return Entry(letter.stream, letter.entry_id, fields), "log"
    if away is not None:
        raise Unavailable("Redis does not answer, and the log does not hold the entry whole") from away
    raise NotPossible(
        "the entry is no longer in its stream nor in ordinaut:dead, and the log does not hold it whole (what"
        " is large, or no text, is shortened there); drop the letter, or add the entry to its stream again"
    )


def logged_fields(letter: DeadLetter) -> dict[bytes, bytes] | None:
    """The fields as the log has them; None when it does not have them whole."""
    if letter.fields is None or letter.digest is None:
        return None
    fields = {name.encode(): value.encode() for name, value in letter.fields.items()}
    return fields if digest(fields) == letter.digest else None


def _is_it(letter: DeadLetter, fields: Mapping[bytes, bytes] | None) -> bool:
    """Whether these are the fields that were rejected, and not those of another entry with the id."""
    return bool(fields) and (letter.digest is None or digest(fields or {}) == letter.digest)


async def copies(redis: Redis, letter: DeadLetter) -> AsyncIterator[tuple[Any, Mapping[bytes, bytes]]]:
    """The copies of a dead letter in `ordinaut:dead`, each with its id there. Raises what redis raises."""
    assert letter.rejected_at is not None
    start = str(max(0, milliseconds(letter.rejected_at) - BEFORE_MS))
    about = {b"stream": letter.stream, b"id": letter.entry_id, b"space": letter.space, b"task": letter.task}
    wanted = {name: value.encode() for name, value in about.items() if value is not None}
    seen = 0
    while seen < LOOKED_THROUGH:
        page: Any = await redis.xrange(DEAD, start, "+", count=PAGE)
        for entry_id, fields in page:
            told = {name: fields[name] for name in about if name in fields}
            if told == wanted:
                yield entry_id, fields
        if len(page) < PAGE:
            return
        seen += len(page)
        last = page[-1][0]
        start = f"({last.decode() if isinstance(last, bytes) else last}"


async def forget_copies(redis: Redis, letter: DeadLetter) -> None:
    """Take what has been dealt with out of `ordinaut:dead`, as far as Redis is there to do it."""
    if letter.kind != "stream":
        return
    try:
        found = [entry_id async for entry_id, _ in copies(redis, letter)]
        for entry_id in found:
            await redis.xdel(DEAD, entry_id)
    except (RedisError, OSError, TimeoutError):
        return
