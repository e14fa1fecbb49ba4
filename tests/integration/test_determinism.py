"""Folding the log is deterministic (I5): on another day, in another place, it gives the same tables."""

import asyncio
import random
import re
from pathlib import Path

import asyncpg
import pytest

from ordinaut.log.append import Appended, append
from ordinaut.log.database import connect
from ordinaut.log.read import COLUMNS
from ordinaut.runtime.migrate import migrate
from projections.registry import all_projections, ensure_tables
from tests.support.clock import open_world, whole_second
from tests.support.history import OPERATIONS, World
from tests.support.processes import OrdinautProcess
from tests.support.wall_clock import AHEAD, SettableProcess

PROJECTIONS = tuple(all_projections())

ELSEWHERE = [
    {AHEAD: str(400 * 86_400), "TZ": "Pacific/Apia", "PYTHONHASHSEED": "1", "LC_ALL": "C"},
    {AHEAD: str(-9 * 365 * 86_400), "TZ": "America/St_Johns", "PYTHONHASHSEED": "4294967295"},
]


class Command(OrdinautProcess):
    """A command whose machine has another time."""

    main = SettableProcess.main


async def contents(connection: asyncpg.Connection) -> dict[str, list[str]]:
    """Every row of every read table, as text that does not depend on the session."""
    await connection.execute("SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'")
    return {
        name: sorted(row[0] for row in await connection.fetch(f"SELECT to_jsonb(t)::text FROM {name} AS t"))
        for name in PROJECTIONS
    }


@pytest.mark.parametrize("there", ELSEWHERE, ids=["later", "earlier"])
async def test_the_log_replayed_on_another_day_and_elsewhere_gives_the_same_tables(
    database_url: str, bare_database_url: str, tmp_path: Path, seed: int, there: dict[str, str]
) -> None:
    await write_history(database_url, random.Random(seed))
    here, copy = await connect(database_url), await connect(bare_database_url)
    try:
        await migrate(copy)
        await ensure_tables(copy)
        await copy_log(here, copy)
        name = await copy.fetchval("SELECT current_database()")
        await copy.execute(
            f"""ALTER DATABASE "{name}" SET timezone = 'Asia/Kathmandu';
                ALTER DATABASE "{name}" SET datestyle = 'SQL, DMY';
                ALTER DATABASE "{name}" SET intervalstyle = 'sql_standard'"""
        )
        env = {"ORDINAUT_DATABASE_URL": bare_database_url, **there}
        rebuild = Command(["projections", "rebuild"], env, tmp_path / "rebuild.log")
        rebuild.start()
        assert await asyncio.to_thread(rebuild.wait, 60) == 0, rebuild.tail()
        before, after = await contents(here), await contents(copy)
        assert all(before[name] for name in PROJECTIONS)
        assert before == after
    finally:
        await here.close()
        await copy.close()


async def write_history(database_url: str, chance: random.Random) -> None:
    """Tasks with real clocks' verdicts, and a random history of everything else; all folded."""
    async with open_world(database_url) as world:
        start = whole_second(world.system.time.now())
        for catch_up in ("none", "latest", "all"):
            spec = [{"cron": "*/5 * * * *", "timezone": "Europe/Chisinau"}, {"rrule": "FREQ=HOURLY"}]
            await world.create(f"task-{catch_up}", spec, at=start, catch_up=catch_up)
        await world.project()
        await world.fire_all()
        for space in ("one", "two"):
            history = World(space)
            for _ in range(300):
                item = history.do(chance.choice(OPERATIONS), chance.randrange(4), chance.randrange(12))
                if item is None:
                    continue
                async with world.system.pool.acquire() as connection, connection.transaction():
                    for query, arguments in item.effects.items():
                        await connection.execute(query, *([each] for each in arguments))
                    (outcome,) = await append(connection, [item])
                    assert isinstance(outcome, Appended)
        await world.project()


async def copy_log(source: asyncpg.Connection, target: asyncpg.Connection) -> None:
    """The same events under the same positions."""
    rows = await source.fetch(f"SELECT {COLUMNS} FROM events ORDER BY position")
    places = ", ".join(f"${n}" for n in range(1, len(rows[0]) + 1))
    await target.executemany(
        f"INSERT INTO events ({COLUMNS}) VALUES ({places})", [tuple(row) for row in rows]
    )
    await target.execute("UPDATE log_head SET position = $1, at = $2", rows[-1]["position"], rows[-1]["at"])


VOLATILE = re.compile(
    r"\b(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|random|gen_random_uuid|uuidv7"
    r"|current_date|current_time|current_timestamp|localtime|localtimestamp|nextval)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_no_fold_asks_for_the_time_or_for_chance(name: str) -> None:
    for fold in all_projections()[name].folds:
        assert VOLATILE.search(re.sub(r"--.*|'[^']*'", "", fold.sql)) is None
