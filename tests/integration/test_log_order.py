"""I2: one order. However writers stall, roll back and die, every reader sees exactly 1, 2, 3 … in order."""

import asyncio
import multiprocessing
import random
from multiprocessing.process import BaseProcess

import asyncpg

from ordinaut.domain.errors import VersionConflict
from ordinaut.domain.events import NewEvent
from ordinaut.log.append import Append, append
from ordinaut.log.database import connect
from ordinaut.log.read import head, read_after
from tests.support.eventually import eventually

WRITERS = 6
READERS = 4
TRANSACTIONS = 60
SHARED = 3


def write(url: str, name: str, seed: int, transactions: int) -> None:
    """A writer process: other work, a pause, the append, a pause, then commit or rollback."""
    asyncio.run(_write(url, name, random.Random(seed), transactions))


async def _write(url: str, name: str, rng: random.Random, transactions: int) -> None:
    connection = await connect(url)
    versions: dict[str, int] = {}
    for number in range(transactions):
        streams = [f"own-{name}", f"shared-{rng.randrange(SHARED)}"]
        appends = [
            Append(s, versions.get(s, 0), _events(rng, name, number), "default", name, name) for s in streams
        ]
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("INSERT INTO other_work VALUES ($1, $2)", name, number)
        await _stall(rng)
        outcomes = await append(connection, appends)
        await _stall(rng)
        if rng.random() < 0.2:
            await transaction.rollback()
            continue
        await transaction.commit()
        for stream, outcome in zip(streams, outcomes, strict=True):
            versions[stream] = outcome.actual if isinstance(outcome, VersionConflict) else outcome.version
    await connection.close()


def _events(rng: random.Random, name: str, number: int) -> list[NewEvent]:
    return [NewEvent("StepSucceeded", {"by": name, "n": number})] * rng.randint(1, 3)


async def _stall(rng: random.Random) -> None:
    await asyncio.sleep(rng.choice((0, 0, 0, 0.001, 0.004)))


async def follow(url: str, rng: random.Random, done: asyncio.Event) -> list[int]:
    """A reader that polls behind what it has seen until the writers are done and it is at the head."""
    connection = await connect(url)
    seen: list[int] = []
    try:
        while True:
            over = done.is_set()
            events = await read_after(connection, len(seen), rng.randint(1, 200))
            seen += [event.position for event in events]
            if seen and seen[-1] != len(seen):
                return seen  # it skipped or reordered; the assertion says so
            if not events and over:
                return seen
            await asyncio.sleep(rng.choice((0, 0.001, 0.005)))
    finally:
        await connection.close()


async def kill_some(writers: list[BaseProcess], url: str, rng: random.Random, start: int) -> None:
    """kill -9 two of the writers, each once the log has grown a bit more, and replace them."""
    connection = await connect(url)
    for number in range(2):
        target = (number + 1) * start

        async def grown(target: int = target) -> bool:
            return await head(connection) >= target or not any(w.is_alive() for w in writers)

        await eventually(grown, timeout=60)
        rng.choice(writers).kill()
    await connection.close()


async def test_every_reader_sees_every_position_once_and_in_order(database_url: str, seed: int) -> None:
    rng = random.Random(seed)
    connection: asyncpg.Connection = await connect(database_url)
    await connection.execute("CREATE TABLE other_work (name text, number int)")
    spawn = multiprocessing.get_context("spawn")
    writers: list[BaseProcess] = [
        spawn.Process(target=write, args=(database_url, f"w{n}", rng.randrange(2**32), TRANSACTIONS))
        for n in range(WRITERS)
    ]
    done = asyncio.Event()
    readers = [
        asyncio.create_task(follow(database_url, random.Random(rng.randrange(2**32)), done))
        for _ in range(READERS)
    ]
    for writer in writers:
        writer.start()
    try:
        await kill_some(writers, database_url, rng, start=100)
        await eventually(lambda: not any(w.is_alive() for w in writers), timeout=90, every=0.05)
    finally:
        for writer in writers:
            writer.kill()
    done.set()
    seen = await asyncio.gather(*readers)
    total = await head(connection)
    assert total > WRITERS * 20
    assert [w.exitcode for w in writers if w.exitcode not in (0, -9)] == []
    for positions in seen:
        assert positions == list(range(1, total + 1))
    # What was rolled back or killed before its commit left nothing, and took its other work with it.
    wrong = await connection.fetchrow(
        """SELECT (SELECT count(*) FROM events) - $1 AS events_beyond_the_head,
                  (SELECT count(*) FROM (SELECT DISTINCT actor, (data->>'n')::int FROM events
                                         EXCEPT SELECT name, number FROM other_work) w) AS without_their_work,
                  (SELECT count(*) FROM (SELECT count(*) AS n, max(version) AS last FROM events
                                          GROUP BY stream) s WHERE n <> last) AS streams_with_gaps,
                  (SELECT count(*) FROM (SELECT at < lag(at) OVER (ORDER BY position) AS back FROM events) t
                    WHERE back) AS times_backwards""",
        total,
    )
    assert wrong is not None
    assert set(wrong.values()) == {0}, wrong
    await connection.close()
