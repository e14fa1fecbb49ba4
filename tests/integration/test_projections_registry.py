"""Which projections there are, the making of their tables, and those that others bring."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ordinaut.domain.events import NewEvent
from ordinaut.domain.ids import new_id
from ordinaut.log.append import Append
from ordinaut.log.appender import Appender
from ordinaut.log.database import connect, create_pool
from ordinaut.log.wake import Notifications
from ordinaut.runtime.migrate import migrate
from projections.base import Fold
from projections.projector import Projector, step
from projections.rebuild import rebuild, status, verify
from projections.registry import all_projections, ensure_tables
from tests.support.eventually import eventually

BUILT_IN = {"tasks", "schedules", "due_work", "runs", "occurrences", "backfills", "dead_letters"}

PLUG_IN = '''
from projections.base import Fold, Projection, batch

STEPS = frozenset({"StepSucceeded"})
FOLD = f"""
INSERT INTO step_counts SELECT stream, count(*) FROM ({batch(STEPS)}) AS e GROUP BY stream
ON CONFLICT (stream) DO UPDATE SET steps = step_counts.steps + excluded.steps
"""
GOOD = Projection(
    "step_counts", 1, "CREATE TABLE step_counts (stream text PRIMARY KEY, steps bigint NOT NULL)",
    [Fold(STEPS, FOLD)],
)
TAKEN = Projection("tasks", 1, "CREATE TABLE tasks (n int)", [])
NOT_ONE = {"name": "nothing"}
FAILING = Projection("failing", 1, "CREATE TABLE failing (n int)",
                     [Fold(STEPS, "INSERT INTO failing SELECT 1 / ($1::bigint - $1::bigint) + $2::bigint")])
'''

ENTRY_POINTS = """[ordinaut.projections]
good = acme_projections:GOOD
taken = acme_projections:TAKEN
not_one = acme_projections:NOT_ONE
missing = acme_projections:MISSING
broken = acme_broken:ANYTHING
failing = acme_projections:FAILING
"""


@pytest.fixture
def plugged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution beside the installed ones that offers projections, good and bad."""
    (tmp_path / "acme_projections.py").write_text(PLUG_IN)
    (tmp_path / "acme_broken.py").write_text("import a_module_that_nobody_has\n")
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    all_projections.cache_clear()
    yield
    all_projections.cache_clear()


def test_without_plug_ins_there_are_the_built_in_ones() -> None:
    assert set(all_projections()) >= BUILT_IN


@pytest.mark.usefixtures("plugged_in")
def test_a_good_plug_in_is_taken_and_bad_ones_are_reported_and_left_out() -> None:
    with capture_logs() as logs:
        found = all_projections()
    assert set(found) == {*BUILT_IN, "step_counts", "failing"}
    assert found["tasks"].ddl != "CREATE TABLE tasks (n int)"
    reported = {log["entry_point"]: log["event"] for log in logs if log["log_level"] == "error"}
    assert reported == {
        "taken": "projection.refused",
        "not_one": "projection.refused",
        "missing": "projection.not_loaded",
        "broken": "projection.not_loaded",
    }


@pytest.mark.usefixtures("plugged_in")
async def test_a_projection_from_outside_is_folded_verified_and_rebuilt_and_a_failing_one_harms_no_other(
    database_url: str,
) -> None:
    connection = await connect(database_url)
    assert await ensure_tables(connection) == []
    async with await create_pool(database_url, size=2) as pool:
        appender = Appender(pool)
        for n in range(3):
            event = NewEvent("StepSucceeded", {"step": "s"})
            await appender.append(Append(f"run-{n}", 0, [event] * (n + 1), "default", "test", "c"))
    stop, notifications = asyncio.Event(), Notifications(database_url)
    projector = Projector(database_url, notifications, list(all_projections().values()), poll_seconds=0.05)
    running = asyncio.create_task(projector.run(stop))
    await eventually(
        lambda: {n for n, p in projector.positions.items() if p == 6} == {*BUILT_IN, "step_counts"}
    )
    assert not running.done()
    stop.set()
    await asyncio.wait_for(running, 10)
    rows = await connection.fetch("SELECT stream, steps FROM step_counts ORDER BY stream")
    assert [tuple(row) for row in rows] == [("run-0", 1), ("run-1", 2), ("run-2", 3)]
    projection = all_projections()["step_counts"]
    assert await rebuild(connection, projection) == 6
    assert (await verify(connection, projection)).agrees
    lags = {row["name"]: row["lag"] for row in await status(connection)}
    assert lags == dict.fromkeys([*BUILT_IN, "step_counts"], 0) | {"failing": 6}
    await connection.close()


async def test_tables_are_made_once_however_many_make_them(bare_database_url: str) -> None:
    connections = [await connect(bare_database_url) for _ in range(4)]
    await migrate(connections[0])
    assert await asyncio.gather(*map(ensure_tables, connections)) == [[]] * 4
    assert await ensure_tables(connections[0]) == []
    assert {row["name"] for row in await status(connections[0])} >= BUILT_IN
    for connection in connections:
        await connection.close()


async def test_a_newer_definition_is_named_and_a_rebuild_brings_it_in(database_url: str) -> None:
    connection = await connect(database_url)
    await connection.execute("UPDATE projection_checkpoints SET version = 0 WHERE name = 'runs'")
    assert await ensure_tables(connection) == ["runs"]
    await rebuild(connection, all_projections()["runs"])
    assert await ensure_tables(connection) == []
    await connection.close()


async def test_until_a_newer_definition_is_rebuilt_the_log_goes_on_with_the_old_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Appends fold due_work themselves: a fold that does not fit the table would stop them all."""
    old = all_projections()["due_work"]
    table = old.ddl.replace("leased_by ", "colour text NOT NULL DEFAULT 'red', leased_by ")
    paint = Fold(frozenset({"RunRequested"}), "UPDATE due_work SET colour = 'blue'")
    newer = replace(old, version=old.version + 1, ddl=table, folds=[*old.folds, paint])
    monkeypatch.setattr("projections.registry.all_projections", lambda: {"due_work": newer})
    connection, pool = await connect(database_url), await create_pool(database_url, size=2)
    task = "01900000-0000-8000-8000-000000000000"
    request = NewEvent("RunRequested", {"task": task, "priority": 5, "cause": {"kind": "manual"}})

    async def ask() -> None:
        stream = f"run-{new_id()}"
        await Appender(pool).append(Append(stream, 0, [request], "default", "test", stream))

    await ask()
    assert await ensure_tables(connection) == ["due_work"]
    await ask()
    assert await connection.fetchval("SELECT count(*) FROM due_work") == 2
    await rebuild(connection, newer)
    await ask()
    assert [row[0] for row in await connection.fetch("SELECT colour FROM due_work")] == ["blue"] * 3
    assert await ensure_tables(connection) == []
    assert (await verify(connection, newer)).agrees
    await pool.close()
    await connection.close()


async def test_a_projection_without_a_table_says_what_to_do(database_url: str) -> None:
    connection = await connect(database_url)
    await connection.execute("DELETE FROM projection_checkpoints WHERE name = 'runs'")
    with pytest.raises(LookupError, match="ordinaut migrate"):
        await step(connection, all_projections()["runs"])
    await connection.close()
