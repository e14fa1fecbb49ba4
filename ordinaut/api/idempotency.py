"""`Idempotency-Key`: the same request sent twice is carried out once.

What was answered is kept and given again. If there is no answer yet (the first attempt is under way, or
its process died) the request is carried out once more; the key and the time it was first seen make the
same ids, so that both attempts meet on the same run or event (I7). The clock forgets keys when they are old
(clock/clock.py).
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import asyncpg
import structlog
from fastapi import Response

from ordinaut.api.problems import KeyReused
from ordinaut.log.database import OUTAGE

logger = structlog.get_logger(__name__)

# Not flushed to disk by itself: what the command appends comes later in the write-ahead log, and its
# flush covers this row. A key that is lost in a crash had no command recorded.
_BEGIN = """
INSERT INTO idempotency_keys AS k (space, key, fingerprint, seed_ms)
SELECT $1, $2, $3, $4 FROM set_config('synchronous_commit', 'off', true)
ON CONFLICT (space, key) DO UPDATE SET key = k.key
RETURNING fingerprint, seed_ms, status, headers, body
"""

_KEEP = """
UPDATE idempotency_keys SET status = $3, headers = $4, body = $5
  FROM set_config('synchronous_commit', 'off', true) WHERE space = $1 AND key = $2 AND status IS NULL
"""


# In the order of their names, so that two who bring the same ones do not wait for each other.
_FIRST_SEEN = """
INSERT INTO idempotency_keys AS k (space, key, fingerprint, seed_ms)
SELECT $1, name, '', $3 FROM unnest($2::text[]) AS name, set_config('synchronous_commit', 'off', true)
 ORDER BY name COLLATE "C"
ON CONFLICT (space, key) DO UPDATE SET key = k.key
RETURNING key, seed_ms
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a key: when it was first seen, and what was answered (no `status`: nothing yet)."""

    seed_ms: int
    status: int | None
    headers: Mapping[str, str]
    body: bytes

    def response(self) -> Response:
        """The answer, once more."""
        assert self.status is not None
        return Response(self.body, self.status, {**self.headers, "Idempotency-Replayed": "true"})


def fingerprint(method: str, path: str, query: str, body: bytes) -> bytes:
    """What makes a request the same request."""
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), query.encode(), body))).digest()


def event_name(stream: str, *own: str) -> str:
    """What an event is remembered as by its sender's name for it: no two read alike, however long, and it is
    no Idempotency-Key, as it has a space."""
    parts = [text.encode() for text in (stream, *own)]
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return f"event {hashlib.sha256(framed).hexdigest()}"


class Idempotency:
    """The table `idempotency_keys`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def begin(self, space: str, key: str, print_: bytes, seed_ms: int) -> Kept:
        """Remember the key, or what is known of it. Raises `KeyReused` when it came with another request."""
        row = await self._pool.fetchrow(_BEGIN, space, key, print_, seed_ms)
        assert row is not None
        if row["fingerprint"] != print_:
            raise KeyReused("this Idempotency-Key came with another request before; use a new one")
        return Kept(row["seed_ms"], row["status"], row["headers"] or {}, row["body"] or b"")

    async def first_seen(self, space: str, names: Collection[str], now_ms: int) -> dict[str, int]:
        """When each of these names of events was first brought (milliseconds since the epoch): now, or what
        is remembered. The names are those that `event_name` gives."""
        rows = await self._pool.fetch(_FIRST_SEEN, space, list(set(names)), now_ms) if names else []
        return {row["key"]: row["seed_ms"] for row in rows}

    async def keep(self, space: str, key: str, answer: Response) -> None:
        """Keep an answer that would be the same again: success, and what is wrong with the request itself.
        When it cannot be kept, nothing is lost (see above)."""
        if answer.status_code >= 300 and answer.status_code not in (400, 422):
            return
        headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
        try:
            await self._pool.execute(_KEEP, space, key, answer.status_code, headers, bytes(answer.body))
        except OUTAGE as error:
            logger.warning("idempotency.not_kept", error=str(error) or type(error).__name__)
