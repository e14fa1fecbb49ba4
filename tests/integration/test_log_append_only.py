"""I3: the log is append-only, enforced by the database for everybody."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from ordinaut.domain.events import NewEvent
from ordinaut.log.append import Append, append
from ordinaut.log.database import connect

COLUMNS = "position, space, stream, version, type, at, actor, correlation, data"
ATTEMPTS = [
    "UPDATE events SET data = '{}'",
    "UPDATE events SET data = '{}' WHERE false",
    "UPDATE ONLY events SET actor = 'nobody' WHERE position = 1",
    "DELETE FROM events",
    "DELETE FROM events WHERE position = 2",
    "TRUNCATE events",
    "TRUNCATE events RESTART IDENTITY CASCADE",
    f"INSERT INTO events ({COLUMNS}) SELECT {COLUMNS} FROM events"
    " ON CONFLICT (position) DO UPDATE SET data = '{}'",
    "MERGE INTO events e USING (VALUES (1)) v (n) ON e.position = v.n WHEN MATCHED THEN DELETE",
    "WITH gone AS (DELETE FROM events RETURNING *) SELECT count(*) FROM gone",
]


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(database_url)
    async with connection.transaction():
        item = Append("task-x", 0, [NewEvent("TaskCreated", {"n": n}) for n in range(3)], "default", "a", "c")
        await append(connection, [item])
    yield connection
    await connection.close()


@pytest.mark.parametrize("role", ["owner", "plain role"])
async def test_no_one_changes_what_is_in_the_log(owner: asyncpg.Connection, role: str) -> None:
    before = await owner.fetch("SELECT * FROM events ORDER BY position")
    for statement in ATTEMPTS:
        transaction = owner.transaction()
        await transaction.start()
        if role == "plain role":
            # Made in the transaction, so that it is gone with it: roles belong to the whole server.
            await owner.execute("CREATE ROLE ordinaut_test_plain; GRANT ALL ON events TO ordinaut_test_plain")
            await owner.execute("SET LOCAL ROLE ordinaut_test_plain")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="the log is append-only"):
            await owner.execute(statement)
        await transaction.rollback()
        assert await owner.fetch("SELECT * FROM events ORDER BY position") == before, statement


async def test_the_refusal_says_what_to_do_instead(owner: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refusal:
        await owner.execute("DELETE FROM events")
    assert refusal.value.hint == "Append a new event that says what changed."


async def test_a_position_or_a_version_cannot_be_taken_twice(owner: asyncpg.Connection) -> None:
    for position, version in ((1, 9), (9, 1)):
        with pytest.raises(asyncpg.UniqueViolationError):
            await owner.execute(
                f"INSERT INTO events ({COLUMNS}) SELECT $1, space, stream, $2, type, at, actor, correlation,"
                " data FROM events WHERE position = 1",
                position,
                version,
            )
