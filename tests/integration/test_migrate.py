"""The migration runner: each file once, in order, never changed afterwards."""

import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from ordinaut.runtime.migrate import MigrationRefused, migrate, migration_files

ONE = {"0001_one.sql": "CREATE TABLE one (n int); INSERT INTO one VALUES (1);"}
TWO = {**ONE, "0002_two.sql": "INSERT INTO one VALUES (2);"}

APPLIED = {
    "0001_log.sql": "f292becfb4d57787",
    "0002_bookkeeping.sql": "5dbeee952c3a4a56",
    "0003_leases.sql": "022700ab80b812e8",
    "0004_catch_up_pace.sql": "36a38db7c2f877f8",
    "0005_log_readers.sql": "6ce21b56961d21fa",
    "0006_windows.sql": "5cd37056e734f1fa",
    "0007_window_parts.sql": "8533b12d4ac490d8",
    "0008_shorter_ways.sql": "a4817612958d34a9",
    "0009_window_sizes.sql": "638183d3f33c2cf3",
    "0010_lease_answers.sql": "0a9dbd4bcead04c2",
    "0011_lease_with_request.sql": "573fba4243c008d1",
    "0012_small_samples.sql": "ee603e50d38951fb",
    "0013_said_once.sql": "40dd0adb082d9a66",
}
"""The beginning of each file's SHA-256, as there are databases with it. Add the new ones; change none."""


async def numbers(url: str) -> list[int]:
    connection = await asyncpg.connect(url)
    try:
        return [row["n"] for row in await connection.fetch("SELECT n FROM one ORDER BY n")]
    finally:
        await connection.close()


async def test_files_are_applied_once_and_in_order(bare_database_url: str) -> None:
    assert await migrate(bare_database_url, ONE) == ["0001_one.sql"]
    assert await migrate(bare_database_url, TWO) == ["0002_two.sql"]
    assert await migrate(bare_database_url, TWO) == []
    assert await numbers(bare_database_url) == [1, 2]


async def test_our_own_migrations_apply_and_are_then_up_to_date(bare_database_url: str) -> None:
    assert await migrate(bare_database_url) == list(migration_files())
    assert await migrate(bare_database_url) == []


def test_what_there_are_databases_with_stays_as_it_is() -> None:
    sums = {name: hashlib.sha256(sql.encode()).hexdigest()[:16] for name, sql in migration_files().items()}
    assert sums == APPLIED


def test_another_project_s_directory_of_that_name_is_not_ours(tmp_path: Path) -> None:
    theirs = tmp_path / "migrations"
    theirs.mkdir()
    (theirs / "0001_theirs.sql").write_text("DROP TABLE users")
    ask = "from ordinaut.runtime.migrate import migration_files; print(*migration_files())"
    told = subprocess.run(
        [sys.executable, "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert told.split() == list(migration_files())


async def test_migrating_from_many_processes_at_once_applies_each_file_once(bare_database_url: str) -> None:
    answers = await asyncio.gather(*(migrate(bare_database_url, TWO) for _ in range(5)))
    assert sorted(answers) == [[], [], [], [], list(TWO)]
    assert await numbers(bare_database_url) == [1, 2]


async def test_a_file_changed_after_it_was_applied_is_refused(bare_database_url: str) -> None:
    await migrate(bare_database_url, ONE)
    changed = {**TWO, "0001_one.sql": "CREATE TABLE one (n bigint);"}
    with pytest.raises(MigrationRefused, match=r"0001_one\.sql was changed after it was applied"):
        await migrate(bare_database_url, changed)
    assert await numbers(bare_database_url) == [1]


async def test_a_database_newer_than_the_program_is_refused(bare_database_url: str) -> None:
    await migrate(bare_database_url, TWO)
    with pytest.raises(MigrationRefused, match=r"0002_two\.sql, which this version does not know"):
        await migrate(bare_database_url, ONE)


async def test_a_file_slipped_in_before_an_applied_one_is_refused(bare_database_url: str) -> None:
    await migrate(bare_database_url, {"0002_two.sql": "SELECT 1"})
    slipped = {"0001_one.sql": "SELECT 1", "0002_two.sql": "SELECT 1"}
    with pytest.raises(MigrationRefused, match=r"0001_one\.sql was never applied, though the later 0002_two"):
        await migrate(bare_database_url, slipped)


async def test_a_failing_file_leaves_nothing_behind_and_the_earlier_ones_stand(
    bare_database_url: str,
) -> None:
    broken = {**ONE, "0002_two.sql": "INSERT INTO one VALUES (2); SELECT nonsense;"}
    with pytest.raises(asyncpg.UndefinedColumnError):
        await migrate(bare_database_url, broken)
    assert await numbers(bare_database_url) == [1]
    assert await migrate(bare_database_url, TWO) == ["0002_two.sql"]
