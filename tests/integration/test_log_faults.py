"""Appending when something is wrong: bad data, somebody who was first, a database that goes away."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from ordinaut.domain.errors import Unavailable, VersionConflict
from ordinaut.domain.events import NewEvent
from ordinaut.log.append import Append, Appended, append
from ordinaut.log.appender import Appender
from ordinaut.log.database import connect, create_pool
from ordinaut.log.read import head, read_stream, read_streams
from tests.support.eventually import eventually


def one(stream: str, expected: int = 0, data: dict[str, Any] | None = None, **options: Any) -> Append:
    event = NewEvent("StepSucceeded", {"n": 1} if data is None else data)
    return Append(stream, expected, [event], "default", "test", "c", **options)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database_url, size=4, name="under-test")
    yield pool
    await asyncio.wait_for(pool.close(), 10)


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that is not the pool's."""
    connection = await connect(database_url)
    yield connection
    await connection.close()


BAD = {
    "a character jsonb refuses": one("bad", data={"text": "a\u0000b"}),
    "a number that cannot be written": one("bad", data={"number": 2**70}),
    "half a character": one("bad", data={"text": "\ud800"}),
    "a stream's name PostgreSQL refuses": one("bad\u0000"),
    "an actor that is no text": Append("bad", 0, one("bad").events, "default", 7, "c"),  # type: ignore[arg-type]
    "an effect that fails": one("bad", effects={"SELECT 1/(u-1) FROM unnest($1::int[]) u": (1,)}),
}


async def test_one_bad_append_of_a_batch_fails_alone(pool: asyncpg.Pool, other: asyncpg.Connection) -> None:
    appender = Appender(pool)
    for round_, (what, bad) in enumerate(BAD.items()):
        items = [one(f"good-{n}", round_) for n in range(4)]
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(
                *map(appender.append, [*items[:2], bad, *items[2:]]), return_exceptions=True
            )
            refused = outcomes.pop(2)
            assert isinstance(refused, Exception), what
            assert not isinstance(refused, Unavailable | VersionConflict), "trying again would not help"
            assert all(isinstance(outcome, Appended) for outcome in outcomes), what
            after = await appender.append(one("after", round_))
        assert after == await _last(other), "the appender goes on"
        assert await head(other) == 5 * (round_ + 1)
    assert await read_stream(other, "bad") == []


async def _last(connection: asyncpg.Connection) -> Appended:
    row = await connection.fetchrow("SELECT position, version, at FROM events ORDER BY position DESC LIMIT 1")
    assert row is not None
    return Appended(*row)


async def test_a_bad_append_by_itself_fails_and_the_next_goes_on(pool: asyncpg.Pool) -> None:
    appender = Appender(pool)
    async with asyncio.timeout(10):
        with pytest.raises(TypeError):
            await appender.append(one("bad", data={"number": 2**70}))
        assert (await appender.append(one("good"))).position == 1


async def test_who_no_longer_waits_does_not_keep_the_others_waiting(
    pool: asyncpg.Pool, other: asyncpg.Connection
) -> None:
    appender = Appender(pool)
    async with asyncio.timeout(10):
        items = (one("a"), one("b", data={"t": "\u0000"}), one("c"))
        futures = [asyncio.create_task(appender.append(item)) for item in items]
        async with other.transaction():
            await other.execute("SELECT 1 FROM log_head FOR UPDATE")
            await _waiting_for_the_head(other)
            futures[0].cancel()
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert isinstance(outcomes[1], asyncpg.UntranslatableCharacterError)
    assert isinstance(outcomes[2], Appended)


async def test_a_second_append_to_a_stream_waits_for_the_first(pool: asyncpg.Pool) -> None:
    appender = Appender(pool)
    outcomes = await appender.append_all([one("s", n) for n in range(20)])
    assert [getattr(outcome, "version", None) for outcome in outcomes] == list(range(1, 21))


async def test_a_decision_does_not_get_behind_what_it_did_not_know(pool: asyncpg.Pool) -> None:
    """A task is paused and, in the same batch, an occurrence is decided by the task as it was before."""
    appender = Appender(pool)
    await appender.append(one("task-t"))
    paused, decided = await appender.append_all([one("task-t", 1), one("run-r", requires={"task-t": 1})])
    assert isinstance(paused, Appended)
    assert isinstance(decided, VersionConflict)
    assert (decided.stream, decided.expected, decided.actual) == ("task-t", 1, 2)


async def test_a_decision_submitted_before_the_change_stands_before_it(pool: asyncpg.Pool) -> None:
    appender = Appender(pool)
    await appender.append(one("task-t"))
    decided, paused = await appender.append_all([one("run-r", requires={"task-t": 1}), one("task-t", 1)])
    assert isinstance(decided, Appended)
    assert isinstance(paused, Appended)
    assert decided.position < paused.position


async def test_an_event_and_what_comes_of_it_go_in_together(pool: asyncpg.Pool) -> None:
    appender = Appender(pool)
    batch = [one("event-e"), one("run-1", requires={"event-e": 0}), one("run-2", requires={"event-e": 0})]
    assert all(isinstance(outcome, Appended) for outcome in await appender.append_all(batch))
    assert all(isinstance(outcome, VersionConflict) for outcome in await appender.append_all(batch))


async def test_a_conflict_takes_its_effect_back_and_leaves_the_others_theirs(
    pool: asyncpg.Pool, other: asyncpg.Connection
) -> None:
    await other.execute("CREATE TABLE marks (mark text)")
    effect = "INSERT INTO marks SELECT * FROM unnest($1::text[])"
    await Appender(pool).append_all([one("taken")])
    outcomes = await Appender(pool).append_all(
        [one("a", effects={effect: ("a",)}), one("taken", effects={effect: ("taken",)}), one("b"),
         one("c", requires={"a": 3}, effects={effect: ("c",)})]
    )  # fmt: skip
    assert [isinstance(outcome, Appended) for outcome in outcomes] == [True, False, True, False]
    assert [row[0] for row in await other.fetch("SELECT mark FROM marks")] == ["a"]


async def test_a_stream_twice_in_one_batch_by_hand_is_refused_whole(other: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        async with other.transaction():
            await append(other, [one("s"), one("s")])
    assert await head(other) == 0


async def _waiting_for_the_head(connection: asyncpg.Connection) -> int:
    """The process id of the backend of the pool that waits for the lock on log_head."""

    async def pid() -> int | None:
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        found: int | None = await connection.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'under-test'"
            " AND datname = current_database() AND wait_event_type = 'Lock'"
        )
        return found

    return await eventually(pid)


@pytest.mark.parametrize("with_effect", [False, True])
async def test_a_backend_killed_in_an_append_says_unavailable_and_trying_again_is_safe(
    pool: asyncpg.Pool, other: asyncpg.Connection, with_effect: bool
) -> None:
    await other.execute("CREATE TABLE marks (mark text)")
    effects = {"INSERT INTO marks SELECT * FROM unnest($1::text[])": ("m",)} if with_effect else {}
    appender, item = Appender(pool), one("s", effects=effects)
    async with other.transaction():
        await other.execute("SELECT 1 FROM log_head FOR UPDATE")
        futures = [asyncio.create_task(appender.append(each)) for each in (item, one("t"))]
        pid = await _waiting_for_the_head(other)
        await other.execute("SELECT pg_terminate_backend($1)", pid)
        for outcome in await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 10):
            assert isinstance(outcome, Unavailable), outcome
    assert (await appender.append(item)).version == 1
    with pytest.raises(VersionConflict):
        await appender.append(item)
    assert len(await read_stream(other, "s")) == 1
    assert await other.fetchval("SELECT count(*) FROM marks") == int(with_effect)


async def test_whatever_is_killed_each_append_is_in_the_log_exactly_once(
    pool: asyncpg.Pool, other: asyncpg.Connection, seed: int
) -> None:
    """Every caller tries again until told; a conflict after an outage means the first try stands."""
    rng = random.Random(seed)
    appender, kills, busy = Appender(pool), 0, True

    async def persist(stream: str) -> None:
        for version in range(6):
            doubt = False
            while True:
                try:
                    await appender.append(one(stream, version))
                except Unavailable:
                    doubt = True
                    continue
                except VersionConflict as conflict:
                    assert doubt, "nobody else appends to this stream"
                    assert conflict.actual == version + 1
                break

    async def kill() -> None:
        nonlocal kills
        while busy or not kills:
            kills += await other.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'under-test' AND datname = current_database()"
            )
            await asyncio.sleep(rng.uniform(0.002, 0.03))

    killer = asyncio.create_task(kill())
    async with asyncio.timeout(60):
        await asyncio.gather(*[persist(f"s{n}") for n in range(30)])
        busy = False
        await killer
    streams = await read_streams(other, [f"s{n}" for n in range(30)])
    assert [[e.version for e in events] for events in streams.values()] == [[1, 2, 3, 4, 5, 6]] * 30
