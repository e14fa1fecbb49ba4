"""`ordinaut migrate` and `ordinaut projections …`: straight on the database, with its settings."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import asyncpg
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ordinaut.cli.client import data_dir
from ordinaut.cli.output import ago, err, note, print_json, say, state, table
from ordinaut.cli.program import program
from ordinaut.cli.schema import missing, prepare
from ordinaut.domain.errors import NotFound, Unavailable
from ordinaut.log.database import OUTAGE, connect
from ordinaut.runtime.embedded import read_dev_json
from ordinaut.runtime.logging import without_password
from ordinaut.runtime.settings import Settings, load_settings
from projections.base import Projection
from projections.rebuild import rebuild, status, verify
from projections.registry import all_projections


def operator_settings() -> Settings:
    """The settings, with the servers of this directory's running `ordinaut dev` where none are named."""
    settings = load_settings()
    running = read_dev_json(data_dir()) or {}
    found: dict[str, Any] = {
        field: running[field]
        for field in ("database_url", "redis_url")
        if field in running and not settings.given(field)
    }
    return settings.model_copy(update=found)


@asynccontextmanager
async def database(settings: Settings, *, prepared: bool = True) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the database; `prepared` wants its schema up to date. Raises `Unavailable`."""
    where = without_password(settings.database_url)
    try:
        connection = await connect(settings.database_url, timeout=settings.connect_seconds)
    except OUTAGE as error:
        reason = str(error) or type(error).__name__
        raise Unavailable(
            f"PostgreSQL does not answer at {where} ({reason}): set ORDINAUT_DATABASE_URL"
        ) from None
    try:
        if prepared and (lacking := await missing(connection)):
            raise Unavailable(f"the database at {where} lacks {', '.join(lacking)}: run `ordinaut migrate`")
        yield connection
    finally:
        await connection.close()


Report = Callable[[str, int, int], None]


@contextmanager
def progress_bar(verb: str) -> Iterator[Report]:
    """A function that is told (name, done, total): a bar where stderr is a terminal, else a plain line
    for each tenth."""
    if not sys.stderr.isatty():
        yield _plain(verb)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True) as progress:
        bars: dict[str, Any] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = progress.add_task(f"{verb} {name}", total=total)
            progress.update(bars[name], completed=done, total=total)

        yield report


def _plain(verb: str) -> Report:
    told: dict[str, int] = {}

    def report(name: str, done: int, total: int) -> None:
        tenth = 10 * done // total if total else 0
        if tenth > told.get(name, 0):
            told[name] = tenth
            note(f"{verb} {name}: {done} of {total} events")

    return report


def migrate_command() -> int:
    """`ordinaut migrate`."""
    return asyncio.run(_migrate())


async def _migrate() -> int:
    async with database(operator_settings(), prepared=False) as connection:
        with progress_bar("rebuilding") as report:
            done = await prepare(connection, report)
    for name in done.migrations:
        say(f"applied {name}")
    for name in done.rebuilt:
        say(f"rebuilt {name}")
    if not done.migrations and not done.rebuilt:
        say("up to date")
    return 0


def status_command(*, as_json: bool) -> int:
    """`ordinaut projections status`."""
    return asyncio.run(_status(as_json))


async def _status(as_json: bool) -> int:
    async with database(operator_settings()) as connection:
        rows = await status(connection)
    if as_json:
        print_json(rows)
        return 0
    now = datetime.now(UTC)
    table(
        ("projection", "position", "lag", "version", "moved"),
        [
            (
                row["name"], str(row["position"]), f"[yellow]{row['lag']}[/]" if row["lag"] else "0",
                str(row["version"]), ago(row["updated_at"], now),
            )
            for row in rows
        ],
    )  # fmt: skip
    return 0


def verify_command(names: Sequence[str], *, as_json: bool) -> int:
    """`ordinaut projections verify`: 1 when a projection is not what the log says."""
    return asyncio.run(_verify(_named(names), as_json))


async def _verify(projections: Sequence[Projection], as_json: bool) -> int:
    verdicts = []
    async with database(operator_settings()) as connection:
        with progress_bar("verifying") as report:
            for each in projections:
                try:
                    verdicts.append(await verify(connection, each, progress=partial(report, each.name)))
                except asyncpg.SyntaxOrAccessError as error:  # its SQL does not fit the table that is there
                    raise _misfit(each, error) from None
    if as_json:
        print_json([asdict(verdict) | {"agrees": verdict.agrees} for verdict in verdicts])
    else:
        table(
            ("projection", "verdict", "position", "rows", "missing", "extra"),
            [
                (
                    verdict.projection, state("ok") if verdict.agrees else "[red]differs[/]",
                    str(verdict.position), str(verdict.rows), str(verdict.missing), str(verdict.extra),
                )
                for verdict in verdicts
            ],
        )  # fmt: skip
        for verdict in verdicts:
            for example in verdict.examples:
                say(f"{verdict.projection}: {example}")
        if wrong := [verdict.projection for verdict in verdicts if not verdict.agrees]:
            note(f"Make it right: {program()} projections rebuild {' '.join(wrong)}")
    return 0 if all(verdict.agrees for verdict in verdicts) else 1


def _misfit(projection: Projection, error: asyncpg.PostgresError) -> Unavailable:
    again = f"{program()} projections rebuild {projection.name}"
    return Unavailable(
        f"the table {projection.name} was not made by this version of its definition ({error}):"
        f" run `{program()} migrate`, and where that finds nothing to do `{again}`"
    )


def rebuild_command(names: Sequence[str], *, as_json: bool) -> int:
    """`ordinaut projections rebuild`."""
    return asyncio.run(_rebuild(_named(names), as_json))


async def _rebuild(projections: Sequence[Projection], as_json: bool) -> int:
    done: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    async with database(operator_settings()) as connection:
        with progress_bar("rebuilding") as report:
            for each in projections:
                began = loop.time()
                try:
                    events = await rebuild(connection, each, progress=partial(report, each.name))
                except RuntimeError as busy:  # somebody else is rebuilding it
                    raise Unavailable(str(busy)) from None
                done.append({"name": each.name, "events": events, "seconds": round(loop.time() - began, 3)})
    if as_json:
        print_json(done)
        return 0
    for row in done:
        say(f"rebuilt {row['name']} from {row['events']} events in {row['seconds']:.1f} s")
    return 0


def _named(names: Sequence[str]) -> list[Projection]:
    known = all_projections()
    for name in names:
        if name not in known:
            raise NotFound(f"there is no projection {name!r}; there are: {', '.join(sorted(known))}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())
