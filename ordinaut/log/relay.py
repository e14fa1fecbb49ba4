"""The relay: every event of the log on the Redis stream `ordinaut:log`, in order, under its position.

The resume point is the stream's own last ID, so the relay keeps no state and any number may run.
Redis is a convenience (I6): stopped, flushed or behind, it is caught up from the log; ahead of the
log or holding another log's events, it is left alone, loudly.
"""

import asyncio
import hashlib
from importlib.resources import files
from typing import Any

import asyncpg
import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from ordinaut.log.append import Connection
from ordinaut.log.database import OUTAGE
from ordinaut.log.read import head as read_head
from ordinaut.log.wake import LOG, Notifications, Wake

STREAM = "ordinaut:log"
OWNER = "{ordinaut:log}:owner"
BATCH = 1000

CHUNK = 32
"""Events that go through here as one text, a line each."""

GIVE_WAY_SECONDS = 0.003
"""After a wake-up, before a batch: a worker that begins the run which woke the relay goes first."""

REST_SECONDS = 0.02
"""After a batch: a run appends three times within milliseconds, and a look costs as much as a few events."""

# The envelope is made by the server: events reach Redis without being decoded on the way, and many at
# once, because each text that is received and sent costs as much as the events in it. JSON without
# line breaks: `jsonb` has none, `row_to_json` adds none.
READ = f"""
SELECT given.* FROM generate_series(0, ($2::int - 1) / {CHUNK}) AS n, LATERAL (
    SELECT string_agg(row_to_json(e)::text, E'\\n' ORDER BY position), count(*)
      FROM (SELECT position, space, stream, version, type, schema, at, actor, correlation, causation, data
              FROM events
             WHERE position > $1 + n * {CHUNK} AND position <= $1 + least($2::int, (n + 1) * {CHUNK})
             ORDER BY position) AS e
) AS given (lines, count) WHERE count > 0
 ORDER BY n
"""

logger = structlog.get_logger(__name__)


class WrongRedis(Exception):
    """The stream in Redis is not this log's, or is ahead of it; a person has to look."""


class Relay:
    """Publishes the log on Redis until told to stop. `published` is the last position in Redis;
    `trouble` is a sentence while it cannot publish, else None."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        redis: Redis,
        notifications: Notifications,
        *,
        maxlen: int,
        poll_seconds: float,
    ) -> None:
        self._pool = pool
        self._redis = redis
        self._maxlen = maxlen
        self._poll_seconds = poll_seconds
        self._wake = Wake()
        self._unhear = notifications.hear(LOG, lambda _: self._wake.set())
        self._script = (files("ordinaut.log") / "publish.lua").read_text()
        self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        self.published = 0
        self.lag = 0
        self.trouble: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Publish what is new, then wait; outages of either server are waited out."""
        try:
            while not stop.is_set():
                try:
                    more = await self.step()
                except WrongRedis as error:
                    self._report(str(error), loud=True)
                    more = False
                except (RedisError, *OUTAGE) as error:
                    self._report(f"{type(error).__name__}: {error}")
                    more = False
                else:
                    if self.trouble is not None:
                        logger.info("relay.recovered", position=self.published)
                    self.trouble = None
                if not more:
                    await asyncio.sleep(REST_SECONDS)
                    await self._wake.wait(self._poll_seconds)
                    await asyncio.sleep(GIVE_WAY_SECONDS)
        finally:
            self._unhear()

    def _report(self, trouble: str, *, loud: bool = False) -> None:
        if trouble != self.trouble:
            (logger.error if loud else logger.warning)("relay.cannot_publish", reason=trouble)
        self.trouble = trouble

    async def step(self) -> bool:
        """Publish one batch; says whether there may be more. Raises `WrongRedis`."""
        async with self._pool.acquire() as connection:
            log = await connection.fetchrow("SELECT log_id::text, position FROM log_head")
            assert log is not None
            # An empty stream gets what it can hold; who wants older events reads PostgreSQL.
            oldest = max(0, log["position"] - self._maxlen)
            # Nearly always the stream is where it was left here, so it is not asked first.
            after = self.published or oldest
            last, count = await self._publish_after(connection, log, after)
            if last != after + count:
                # The first look at a stream that others began, or it was flushed, or others publish too.
                last, count = await self._publish_after(connection, log, last or oldest)
        self.published = last
        self.lag = max(0, log["position"] - last)
        return count == BATCH

    async def _publish_after(self, connection: Connection, log: Any, after: int) -> tuple[int, int]:
        """Publish the events that follow; the last position in the stream then, and how many were given."""
        behind = min(BATCH, log["position"] - after)
        rows = await connection.fetch(READ, after, behind) if behind > 0 else []
        count = sum(row["count"] for row in rows)
        last = await self._publish(connection, log, after + 1, count, [row[0] for row in rows])
        return last, count

    async def _publish(
        self, connection: Connection, log: Any, first: int, count: int, chunks: list[str]
    ) -> int:
        # Events may have been appended since the head was read: what is given here is in the log.
        head = max(log["position"], first + count - 1) if count else log["position"]
        arguments = [log["log_id"], self._maxlen, head, first, *chunks]
        try:
            try:
                last = await self._redis.evalsha(self._sha, 2, STREAM, OWNER, *arguments)
            except NoScriptError:
                last = await self._redis.eval(self._script, 2, STREAM, OWNER, *arguments)
        except ResponseError as error:
            word, _, rest = str(error).partition(" ")
            if word == "AHEAD":
                # Another relay may have published what was appended since the head was read.
                head = await read_head(connection)
                if int(rest) <= head:
                    return int(rest)
            refusal = self._refusal(word, rest, head)
            if refusal is None:
                raise
            raise refusal from error
        return int(last)

    def _refusal(self, word: str, rest: str, head: int) -> WrongRedis | None:
        if word == "OTHERLOG":
            return WrongRedis(
                f"the Redis stream {STREAM} holds the events of another log ({rest}); give this system a"
                f" Redis (or database number) of its own, or delete the keys {STREAM} and {OWNER}"
            )
        if word == "AHEAD":
            return WrongRedis(
                f"the Redis stream {STREAM} is at position {rest}, the log only at {head}: the database was"
                f" restored to an older state, or this is not its Redis; when sure, delete {STREAM}"
            )
        if word == "NOTASTREAM":
            return WrongRedis(f"the Redis key {STREAM} is in use for something that is not a stream: {rest}")
        return None
