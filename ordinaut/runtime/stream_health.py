"""How far the group is in a stream, and whether entries went before it had read them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ordinaut.runtime.streams import GROUP, EntryId, parse_id


@dataclass(frozen=True, slots=True)
class Look:
    """What Redis says of a stream and of the group on it.

    `first` is the oldest entry that is there (None: none is), `last` the newest id ever given, `delivered`
    the last one the group has read. `added` and `read` count entries since the stream began; None: Redis does
    not know (before 7.0, or after entries in the middle were deleted). `waiting` is its own count of those
    that the group has not read, None where it has none. `pending` were read and not acknowledged.
    """

    first: EntryId | None
    last: EntryId
    delivered: EntryId
    length: int
    added: int | None
    read: int | None
    waiting: int | None
    pending: int

    @property
    def lag(self) -> int | None:
        """How many entries are there that the group has not read; None: unknown. Redis's own count goes on
        with those that were trimmed before they were read, so behind such a gap it is too much at first."""
        if self.first is None or self.delivered >= self.last:
            return 0
        if self.first > self.delivered:
            return self.length
        return None if self.waiting is None else min(self.waiting, self.length)


async def look(redis: Redis, stream: str) -> Look | None:
    """Ask Redis; None when there is no such stream or no group on it. Raises what redis raises."""
    try:
        groups: list[Any] = await redis.xinfo_groups(stream)
        group = next((one for one in groups if _text(one["name"]) == GROUP), None)
        if group is None:
            return None
        info: Mapping[str, Any] = await redis.xinfo_stream(stream)
    except ResponseError as error:
        if "no such key" in str(error):
            return None
        raise
    oldest = info.get("first-entry")
    return Look(
        first=parse_id(oldest[0]) if oldest else None,
        last=parse_id(info["last-generated-id"]),
        delivered=parse_id(group["last-delivered-id"]),
        length=int(info["length"]),
        added=_number(info.get("entries-added")),
        read=_number(group.get("entries-read")),
        waiting=_number(group.get("lag")),
        pending=int(group["pending"]),
    )


def gone_unread(now: Look, before: Look | None = None) -> int:
    """How many entries, at least, were trimmed or deleted that the group had not read.

    They can be told only while all that is left is behind what the group has read last. Where Redis counts
    (from 7.0 on, once the group has read something), what was added and neither read nor left is gone. Else
    it takes a look from `before`: the newest entry of that time was not read since, and is older than all
    that is left.
    """
    if now.delivered >= now.last or (now.first is not None and now.first <= now.delivered):
        return 0
    if now.added is not None and now.read is not None:
        return max(0, now.added - now.read - now.length)
    if before is None or not now.delivered < before.last <= now.last:
        return 0
    return 1 if now.first is None or now.first > before.last else 0


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
