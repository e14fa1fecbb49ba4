"""I5 on a system that lives: writers with their inline effects, projectors, verification and rebuilds
all at once."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest

from ordinaut.domain.errors import VersionConflict
from ordinaut.log.appender import Appender
from ordinaut.log.database import connect, create_pool
from ordinaut.log.wake import Notifications
from projections.base import Fold, Projection, fold_function
from projections.projector import Projector, step
from projections.rebuild import rebuild, verify
from projections.registry import all_projections
from tests.support.eventually import eventually
from tests.support.history import OPERATIONS, World

LEASE = """
UPDATE due_work SET leased_by = $1, lease_until = now() + interval '1 hour'
 WHERE run_id IN (SELECT run_id FROM due_work WHERE leased_by IS NULL LIMIT 2 FOR UPDATE SKIP LOCKED)
"""
COUNTED = Projection(
    "counted",
    1,
    "CREATE TABLE counted (position bigint NOT NULL, space text NOT NULL)",
    [
        Fold(
            frozenset({"RunRequested"}),
            "INSERT INTO counted SELECT position, space FROM events"
            " WHERE position > $1 AND position <= $2 AND type = 'RunRequested'",
        )
    ],
    notifies=True,
)


class Life:
    """Writers and projectors on one database, until told to stop."""

    def __init__(self, url: str, pool: asyncpg.Pool, seed: int) -> None:
        self.url = url
        self.pool = pool
        self.rng = random.Random(seed)
        self.stop = asyncio.Event()
        self.written = 0

    async def write(self, space: str) -> None:
        """One space's clock, API and workers: every append with the effects it has in the real ones."""
        rng, appender, world = random.Random(self.rng.random()), Appender(self.pool), World(space)
        while not self.stop.is_set():
            item = world.do(rng.choice(OPERATIONS), rng.randrange(50), rng.randrange(12))
            if item is not None:
                outcome = await appender.append(item)
                self.written = max(self.written, outcome.position)
            await asyncio.sleep(rng.choice((0, 0, 0.001, 0.003)))

    async def lease(self) -> None:
        """A worker's leases, which are no part of the log."""
        while not self.stop.is_set():
            await self.pool.execute(LEASE, "worker-1")
            await asyncio.sleep(self.rng.uniform(0.001, 0.02))

    async def project(self, projections: list[Projection]) -> None:
        """A projector that folds few events at a time, so that it is cut and behind at odd places."""
        rng = random.Random(self.rng.random())
        while not self.stop.is_set():
            projection = rng.choice(projections)
            async with self.pool.acquire() as connection:
                await step(connection, projection, limit=rng.choice((1, 3, 10, 1000)))
            await asyncio.sleep(rng.choice((0, 0, 0.002)))


@asynccontextmanager
async def living(url: str, seed: int, *, projectors: int = 2) -> AsyncIterator[Life]:
    projections = list(all_projections().values())
    async with await create_pool(url, size=8) as pool:
        life = Life(url, pool, seed)
        tasks = [
            *[asyncio.create_task(life.write(f"space-{n}")) for n in range(3)],
            *[asyncio.create_task(life.project(projections)) for _ in range(projectors)],
            asyncio.create_task(life.lease()),
        ]
        try:
            yield life
        finally:
            life.stop.set()
            await asyncio.wait_for(asyncio.gather(*tasks), 30)


async def _grown(life: Life, by: int) -> None:
    target = life.written + by
    await eventually(lambda: life.written >= target, timeout=30)


async def _catch_up(connection: asyncpg.Connection) -> None:
    for projection in all_projections().values():
        while True:
            done = await step(connection, projection)
            if done.position == done.head:
                break


async def test_verification_finds_nothing_at_any_moment(database_url: str, seed: int) -> None:
    checker = await connect(database_url)
    rng = random.Random(seed)
    async with living(database_url, seed) as life:
        for _ in range(4):
            await _grown(life, rng.randrange(5, 60))
            for projection in all_projections().values():
                verdict = await verify(checker, projection, batch=rng.choice((7, 100, 20_000)))
                assert verdict.agrees, verdict
    await _catch_up(checker)
    for projection in all_projections().values():
        verdict = await verify(checker, projection)
        assert verdict.agrees, verdict
        assert verdict.rows > 0
    await checker.close()


async def test_a_rebuild_has_no_downtime_and_changes_nothing(database_url: str, seed: int) -> None:
    """Readers look throughout: no table is ever missing, or empty after it had rows."""
    builder, checker = await connect(database_url), await connect(database_url)
    looks = 0
    leases: list[object] = []

    async def look(life: Life) -> None:
        nonlocal looks
        reader = await connect(database_url)
        full: set[str] = set()
        while not life.stop.is_set():
            for name in ("tasks", "runs", "due_work", "schedules", "occurrences", "backfills"):
                rows = await reader.fetchval(f"SELECT count(*) FROM {name}")
                assert rows or name not in full, f"{name} was empty"
                if rows and name in ("tasks", "runs", "occurrences", "backfills"):  # rows of these never go
                    full.add(name)
                looks += 1
            await asyncio.sleep(0)
        await reader.close()

    async with living(database_url, seed) as life:
        readers = [asyncio.create_task(look(life)) for _ in range(2)]
        for _ in range(2):
            await _grown(life, 60)
            for projection in all_projections().values():
                assert not any(reader.done() for reader in readers)
                leases += await checker.fetch("SELECT run_id FROM due_work WHERE leased_by IS NOT NULL")
                folded = await rebuild(builder, projection, batch=50)
                assert folded > 0
                verdict = await verify(checker, projection)
                assert verdict.agrees, verdict
    await asyncio.gather(*readers)
    assert leases
    assert looks > 50
    assert await checker.fetch("SELECT 1 FROM pg_namespace WHERE nspname LIKE 'ordinaut_%'") == []
    await _catch_up(checker)
    for projection in all_projections().values():
        assert (await verify(checker, projection)).agrees
    await builder.close()
    await checker.close()


async def test_verification_beside_rebuilds_does_not_see_an_empty_table(database_url: str, seed: int) -> None:
    builder, checker = await connect(database_url), await connect(database_url)
    tasks = all_projections()["tasks"]
    async with living(database_url, seed) as life:
        await _grown(life, 50)
        done = asyncio.Event()

        async def rebuild_again_and_again() -> None:
            while not done.is_set():
                await rebuild(builder, tasks)

        rebuilding = asyncio.create_task(rebuild_again_and_again())
        for _ in range(15):
            verdict = await verify(checker, tasks)
            assert verdict.agrees, verdict
            assert verdict.rows > 0
        done.set()
        await rebuilding
    await builder.close()
    await checker.close()


async def test_two_projectors_fold_no_batch_twice(database_url: str, seed: int) -> None:
    """Two of the real ones, with a table that counts what it is given."""
    stop = asyncio.Event()
    connection = await connect(database_url)
    await connection.execute(COUNTED.ddl + ";" + fold_function(COUNTED))
    await connection.execute("INSERT INTO projection_checkpoints (name, version) VALUES ('counted', 1)")
    notifications = Notifications(database_url)
    everything = [COUNTED, *all_projections().values()]
    projectors = [Projector(database_url, notifications, everything, poll_seconds=0.05) for _ in range(2)]
    running = [asyncio.create_task(projector.run(stop)) for projector in projectors]
    running.append(asyncio.create_task(notifications.run(stop)))
    async with living(database_url, seed, projectors=0) as life:
        await _grown(life, 300)

    def caught_up() -> bool:
        positions = [projector.positions.get(one.name, 0) for projector in projectors for one in everything]
        assert min(positions) >= life.written, positions
        return True

    await eventually(caught_up, timeout=30)
    stop.set()
    await asyncio.wait_for(asyncio.gather(*running), 10)
    counted = await connection.fetch("SELECT position FROM counted ORDER BY position")
    told = await connection.fetch("SELECT position FROM events WHERE type = 'RunRequested' ORDER BY position")
    assert counted == told
    assert len(told) > 20
    await connection.close()


@pytest.fixture
async def settled(database_url: str, seed: int) -> AsyncIterator[asyncpg.Connection]:
    """A history that is folded to its end, nobody writing any more."""
    connection = await connect(database_url)
    rng, world = random.Random(seed), World("default")
    async with await create_pool(database_url, size=2) as pool:
        appender, items = Appender(pool), []
        for operation in ("create", "create", "create"):
            items.append(world.do(operation, len(items), 2))
        items += [world.do("request", 0, 1), world.do("request", 1, 1), world.do("fire", 0, 1)]
        items += [world.do(rng.choice(OPERATIONS), rng.randrange(9), rng.randrange(12)) for _ in range(200)]
        # Whatever became of the task, it is there now, with schedules and work: no table is empty.
        items += [world.do("retire", 0, 1), world.do("create", 0, 2), world.do("request", 0, 1)]
        items += [world.do("fire", 0, 1), world.do("backfill", 0, 3)]
        outcomes = await appender.append_all([replace(item, effects={}) for item in items if item])
        assert not [outcome for outcome in outcomes if isinstance(outcome, VersionConflict)]
    await _catch_up(connection)
    yield connection
    await connection.close()


TAMPER = {
    "missing": "DELETE FROM {t} WHERE ctid = (SELECT min(ctid) FROM {t})",
    "extra": "INSERT INTO {t} SELECT * FROM jsonb_populate_record((SELECT t FROM {t} t LIMIT 1), $${key}$$)",
    "changed": "UPDATE {t} SET space = 'elsewhere' WHERE ctid = (SELECT min(ctid) FROM {t})",
}
KEYS = {
    "tasks": '{"id": "00000000-0000-8000-8000-000000000000", "name": "never"}',
    "runs": '{"id": "00000000-0000-8000-8000-000000000000"}',
    "due_work": '{"run_id": "00000000-0000-8000-8000-000000000000"}',
    "schedules": '{"task_id": "00000000-0000-8000-8000-000000000000"}',
    "occurrences": '{"at": "1999-01-01T00:00:00Z"}',
    "backfills": '{"id": "00000000-0000-8000-8000-000000000000"}',
    "dead_letters": '{"id": "00000000-0000-8000-8000-000000000000"}',
}


async def test_verification_finds_every_kind_of_tampering(settled: asyncpg.Connection) -> None:
    found = {"missing": (1, 0), "extra": (0, 1), "changed": (1, 1)}
    for name, projection in all_projections().items():
        assert (await verify(settled, projection)).agrees
        for kind, sql in TAMPER.items():
            await settled.execute(f"CREATE TEMP TABLE kept AS SELECT * FROM {name}")
            await settled.execute(sql.format(t=name, key=KEYS[name]))
            verdict = await verify(settled, projection)
            assert (verdict.missing, verdict.extra) == found[kind], (name, kind, verdict)
            assert not verdict.agrees
            assert len(verdict.examples) == sum(found[kind])
            await settled.execute(
                f"DELETE FROM {name}; INSERT INTO {name} SELECT * FROM kept; DROP TABLE kept"
            )
        assert (await verify(settled, projection)).agrees, "verification itself changes nothing"


async def test_a_lease_is_not_a_difference_and_a_rebuild_keeps_it(settled: asyncpg.Connection) -> None:
    due_work = all_projections()["due_work"]
    await settled.execute(LEASE, "worker-7")
    leases = await settled.fetch("SELECT run_id, leased_by, lease_until FROM due_work ORDER BY run_id")
    assert any(row["leased_by"] for row in leases)
    assert (await verify(settled, due_work)).agrees
    await rebuild(settled, due_work)
    assert (
        await settled.fetch("SELECT run_id, leased_by, lease_until FROM due_work ORDER BY run_id") == leases
    )


async def test_a_rebuild_mends_what_was_tampered_with(settled: asyncpg.Connection) -> None:
    for name, projection in all_projections().items():
        await settled.execute(TAMPER["changed"].format(t=name))
        await rebuild(settled, projection, batch=10)
        assert (await verify(settled, projection)).agrees


async def test_a_rebuild_killed_half_way_leaves_the_table_and_the_next_one_succeeds(
    settled: asyncpg.Connection, database_url: str
) -> None:
    runs = all_projections()["runs"]
    before = await settled.fetch("SELECT * FROM runs ORDER BY id")
    oid = await settled.fetchval("SELECT 'runs'::regclass::oid")
    head = await settled.fetchval("SELECT position FROM log_head")
    builder = await connect(database_url)

    def kill(done: int, total: int) -> None:
        if done > total / 2:
            builder.terminate()

    with pytest.raises((asyncpg.InterfaceError, asyncpg.PostgresError, OSError)):
        await rebuild(builder, runs, batch=10, progress=kill)
    assert await settled.fetchval("SELECT 'runs'::regclass::oid") == oid
    assert await settled.fetch("SELECT * FROM runs ORDER BY id") == before

    async def again() -> bool:
        try:
            return await rebuild(settled, runs, batch=10) == head
        except RuntimeError:  # the server has not noticed yet that the first one is gone
            return False

    await eventually(again)
    assert await settled.fetchval("SELECT 'runs'::regclass::oid") != oid
    assert await settled.fetch("SELECT * FROM runs ORDER BY id") == before
    assert await settled.fetch("SELECT 1 FROM pg_namespace WHERE nspname LIKE 'ordinaut_%'") == []


async def test_a_second_rebuild_of_the_same_table_is_refused(
    settled: asyncpg.Connection, database_url: str
) -> None:
    other = await connect(database_url)
    refusals: list[str] = []

    async def try_the_same() -> None:
        with pytest.raises(RuntimeError, match="another rebuild of tasks is running"):
            await rebuild(other, all_projections()["tasks"])
        refusals.append("tasks")

    attempts: list[asyncio.Task[None]] = []
    holding = await connect(database_url)
    await holding.execute("BEGIN; SELECT 1 FROM projection_checkpoints WHERE name = 'tasks' FOR UPDATE")
    first = asyncio.create_task(rebuild(settled, all_projections()["tasks"]))
    await eventually(lambda: holding.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"))
    attempts.append(asyncio.create_task(try_the_same()))
    await asyncio.wait_for(asyncio.gather(*attempts), 10)
    await holding.execute("COMMIT")
    assert await first > 0
    assert refusals == ["tasks"]
    await other.close()
    await holding.close()


async def test_a_lagging_projector_does_not_take_a_run_away_that_was_opened_again(database_url: str) -> None:
    """The end of the run is folded after the run was put off again, with its row changed at once."""
    connection, world, due_work = await connect(database_url), World("default"), all_projections()["due_work"]
    async with await create_pool(database_url, size=2) as pool:
        appender = Appender(pool)

        async def tell(operation: str, effects: bool = True) -> None:
            item = world.do(operation, 0, 1)
            assert item is not None
            await appender.append(item if effects else replace(item, effects={}))

        for operation in ("create", "request", "lease"):
            await tell(operation)
        await _catch_up(connection)
        await tell("cancel", effects=False)
        await tell("reopen")
        await connection.execute(LEASE, "worker-1")
        await step(connection, due_work, limit=1)
        assert await connection.fetchval("SELECT leased_by FROM due_work") == "worker-1"
        await _catch_up(connection)
        assert await connection.fetchval("SELECT leased_by FROM due_work") == "worker-1"
        assert (await verify(connection, due_work)).agrees
    await connection.close()
