"""The relay on a real server of the Redis protocol: I6, Redis is a convenience."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ordinaut.domain.events import NewEvent
from ordinaut.log.append import Append, append
from ordinaut.log.database import create_pool
from ordinaut.log.read import public, read_after
from ordinaut.log.relay import OWNER, STREAM, Relay, WrongRedis
from ordinaut.log.wake import Notifications
from ordinaut.runtime.embedded_redis import EmbeddedValkey
from tests.support.eventually import eventually
from tests.support.running import running


class Bench:
    """A log, a Redis, and relays between them."""

    def __init__(self, url: str, pool: asyncpg.Pool, redis: Redis, notifications: Notifications) -> None:
        self.url = url
        self.pool = pool
        self.redis = redis
        self.notifications = notifications
        self.streams = 0

    def relay(self, *, maxlen: int = 100_000, redis: Redis | None = None) -> Relay:
        return Relay(self.pool, redis or self.redis, self.notifications, maxlen=maxlen, poll_seconds=0.05)

    async def grow(self, count: int, batch: int = 500) -> None:
        """Append `count` events."""
        async with self.pool.acquire() as connection:
            for begin in range(0, count, batch):
                self.streams += 1
                events = [NewEvent("StepSucceeded", {"n": n, "word": "naïve \"☃\""})
                          for n in range(begin, min(count, begin + batch))]  # fmt: skip
                async with connection.transaction():
                    await append(
                        connection, [Append(f"run-{self.streams}", 0, events, "default", "test", "c")]
                    )

    async def ids(self) -> list[str]:
        return [entry[0].decode() for entry in await self.redis.xrange(STREAM)]

    async def published(self, first: int, last: int) -> bool:
        """Whether the stream holds exactly these positions (with a deadline; by `eventually`)."""
        expected = [f"{n}-0" for n in range(first, last + 1)]
        await eventually(lambda: self._holds(expected))
        return True

    async def _holds(self, expected: list[str]) -> bool:
        with suppress(RedisError):
            found = await self.ids()
            assert (len(found), found[:1], found[-1:]) == (len(expected), expected[:1], expected[-1:])
            return found == expected
        return False


@pytest.fixture
async def bench(database_url: str, redis_url: str) -> AsyncIterator[Bench]:
    notifications = Notifications(database_url)
    stop = asyncio.Event()
    hearing = asyncio.create_task(notifications.run(stop))
    async with await create_pool(database_url, size=6) as pool, Redis.from_url(redis_url) as redis:
        yield Bench(database_url, pool, redis, notifications)
        stop.set()
        await hearing


async def drain(relay: Relay) -> None:
    """Step until there is no more."""
    while await relay.step():
        pass


async def test_every_event_is_published_under_its_position(bench: Bench) -> None:
    await bench.grow(2300)
    relay = bench.relay()
    await drain(relay)
    entries = await bench.redis.xrange(STREAM)
    assert [entry[0].decode() for entry in entries] == [f"{n}-0" for n in range(1, 2301)]
    async with bench.pool.acquire() as connection:
        events = await read_after(connection, 0, 3000)
    envelopes = [orjson.loads(fields[b"event"]) for _, fields in entries]
    for envelope in envelopes:  # the server leaves out zeros at the end of a fraction
        envelope["at"] = datetime.fromisoformat(envelope["at"]).isoformat()
    assert envelopes == [public(event) for event in events]
    assert (relay.published, relay.lag, relay.trouble) == (2300, 0, None)


async def test_new_events_follow_and_nothing_is_published_twice(bench: Bench) -> None:
    async with running(bench.relay()):
        for n in range(1, 6):
            await bench.grow(30)
            assert await bench.published(1, 30 * n)


async def test_two_relays_and_a_growing_log_give_one_contiguous_stream(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    relays = [bench.relay() for _ in range(3)]
    troubles: list[str] = []
    for relay in relays:
        relay._report = lambda trouble, loud=False: troubles.append(trouble)  # type: ignore[method-assign]
    async with running(*relays):
        for _ in range(60):
            await bench.grow(rng.randint(1, 40))
        total = await bench.pool.fetchval("SELECT position FROM log_head")
        assert await bench.published(1, total)
        await eventually(lambda: all(relay.published == total for relay in relays))
    assert troubles == []


async def test_another_relay_getting_ahead_in_between_is_not_taken_for_another_log(bench: Bench) -> None:
    """The head is read, then more is appended and published by another relay, then Redis is asked."""
    await bench.grow(5)
    late, other = bench.relay(), bench.relay()
    publish = late._publish

    async def others_first(*arguments: Any) -> int:
        late._publish = publish  # type: ignore[method-assign]
        await bench.grow(5)
        await drain(other)
        return await publish(*arguments)

    late._publish = others_first  # type: ignore[method-assign]
    await drain(late)
    assert late.published == 10


async def test_a_flushed_redis_is_filled_again(bench: Bench) -> None:
    async with running(bench.relay(), bench.relay()):
        await bench.grow(1200)
        assert await bench.published(1, 1200)
        await bench.redis.flushdb()
        await bench.redis.script_flush()
        assert await bench.published(1, 1200)
        await bench.grow(3)
        assert await bench.published(1, 1203)


async def test_a_flush_between_looking_and_publishing_leaves_nothing_out(bench: Bench) -> None:
    await bench.grow(10)
    relay = bench.relay()
    await drain(relay)
    await bench.grow(10)
    publish = relay._publish

    async def flushed_after(connection: Any, log: Any, first: int, count: int, chunks: list[str]) -> int:
        if count:
            await bench.redis.flushdb()
            relay._publish = publish  # type: ignore[method-assign]
        return await publish(connection, log, first, count, chunks)

    relay._publish = flushed_after  # type: ignore[method-assign]
    await relay.step()
    await drain(relay)
    assert await bench.published(1, 20)


async def test_the_stream_is_kept_short_and_goes_on_behind_its_last_entry(bench: Bench) -> None:
    relay = bench.relay(maxlen=200)
    await bench.grow(1500)
    await drain(relay)
    ids = await bench.ids()
    assert len(ids) < 500
    assert ids == [f"{n}-0" for n in range(1501 - len(ids), 1501)]
    await bench.redis.xtrim(STREAM, maxlen=0, approximate=False)
    await bench.grow(2)
    await drain(relay)
    assert await bench.ids() == ["1501-0", "1502-0"]


async def test_an_empty_redis_gets_the_end_of_a_long_log(bench: Bench) -> None:
    await bench.grow(1000)
    await drain(bench.relay(maxlen=300))
    ids = await bench.ids()
    assert ids[-1] == "1000-0"
    assert len(ids) >= 300
    assert ids == [f"{n}-0" for n in range(1001 - len(ids), 1001)]


async def _ahead(bench: Bench) -> None:
    await bench.redis.xadd(STREAM, {"event": "{}"}, id="1000-0")


async def _another_log(bench: Bench) -> None:
    await bench.redis.set(OWNER, "00000000-0000-4000-8000-000000000000")


async def _no_stream(bench: Bench) -> None:
    await bench.redis.set(STREAM, "hello")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(_ahead, ["at position 1000", "the log only at 7", f"delete {STREAM}"], id="ahead"),
        pytest.param(_another_log, ["another log", "of its own", f"delete the keys {STREAM}"], id="other"),
        pytest.param(_no_stream, [STREAM, "not a stream"], id="wrong type"),
    ],
)
async def test_a_redis_that_is_not_this_logs_is_left_alone_until_mended(
    bench: Bench, spoil: Callable[[Bench], Any], says: list[str]
) -> None:
    await spoil(bench)
    await bench.grow(7)
    before = await _dump(bench.redis)
    relay = bench.relay()
    with pytest.raises(WrongRedis):
        await relay.step()
    async with running(relay):
        await eventually(lambda: relay.trouble)
        assert relay.trouble is not None
        assert [words for words in says if words not in relay.trouble] == [], relay.trouble
        await bench.grow(1)
        assert {key: value for key, value in (await _dump(bench.redis)).items() if key in before} == before
        await bench.redis.delete(STREAM, OWNER)
        assert await bench.published(1, 8)
        await eventually(lambda: relay.trouble is None and relay.lag == 0)


async def test_a_database_restored_to_an_older_state_is_noticed_by_a_relay_that_runs(bench: Bench) -> None:
    relay = bench.relay()
    await bench.grow(9)
    await drain(relay)
    await bench.pool.execute("UPDATE log_head SET position = 4")
    with pytest.raises(WrongRedis, match="at position 9, the log only at 4"):
        await relay.step()


async def _dump(redis: Redis) -> dict[bytes, Any]:
    return {key: await redis.dump(key) for key in await redis.keys()}


async def test_redis_stopped_restarted_and_started_from_an_older_state_heals_alone(
    bench: Bench, tmp_path: Path
) -> None:
    server = EmbeddedValkey(tmp_path / "valkey")
    server.start()
    async with AsyncExitStack() as stack:
        stack.callback(lambda: server.stop())
        bench.redis = await stack.enter_async_context(Redis.from_url(server.url(), socket_connect_timeout=1))
        relay = bench.relay()
        await stack.enter_async_context(running(relay))
        await bench.grow(600)
        assert await bench.published(1, 600)

        server.stop(immediate=True)
        await bench.grow(50)
        await eventually(lambda: relay.trouble)
        server.start()
        assert await bench.published(1, 650)
        await eventually(lambda: relay.trouble is None and relay.published == 650)

        # Behind: a stream that ends at an older position, as after a failover that lost writes.
        await bench.redis.delete(STREAM)
        await _restore(bench, 400)
        assert await bench.published(1, 650)

        server.stop(immediate=True)
        server.wipe()
        server.start()
        await bench.grow(5)
        assert await bench.published(1, 655)


async def _restore(bench: Bench, upto: int) -> None:
    async with bench.redis.pipeline(transaction=True) as pipe:
        for n in range(1, upto + 1):
            pipe.xadd(STREAM, {"event": "{}"}, id=f"{n}-0")
        with suppress(RedisError):  # the relay may have been faster
            await pipe.execute()


async def test_postgresql_going_away_is_waited_out(bench: Bench) -> None:
    relay = bench.relay()
    async with running(relay):
        await bench.grow(10)
        assert await bench.published(1, 10)
        for _ in range(3):
            async with bench.pool.acquire() as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            await bench.grow(10)
        assert await bench.published(1, 40)
        await eventually(lambda: relay.trouble is None)
