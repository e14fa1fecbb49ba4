"""`ordinaut window list`, `verify` and `rebuild`."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape

from ordinaut.cli.client import Client
from ordinaut.cli.database import database, operator_settings
from ordinaut.cli.output import ago, note, print_json, say, table
from ordinaut.runtime.windows import differences, rebuild


def list_command(task: str | None, limit: int, *, as_json: bool) -> int:
    """Show the windows that are open."""
    with Client() as client:
        rows = list(client.items("/v1/windows", limit, task=task))
    if as_json:
        print_json(rows)
        return 0
    if not rows:
        note("No task is waiting for more events.")
        return 0
    now = datetime.now(UTC)
    table(
        ("task", "key", "pattern", "events", "first", "ends"),
        [
            (
                escape(row["task"]), escape(row["key"]), row["pattern"], _held(row),
                ago(row["from"], now), ago(row["due_at"], now),
            )
            for row in rows
        ],
    )  # fmt: skip
    return 0


def _held(row: Mapping[str, Any]) -> str:
    """How many events, and where the pattern has parts, of each."""
    parts = (row["parts"] or {}).items()
    return ", ".join(f"{escape(name)} {number}" for name, number in parts) or str(row["count"])


def verify_command() -> int:
    """Hold the table of windows against the log: 1 when it says something else."""
    return asyncio.run(_verify())


async def _verify() -> int:
    async with (
        database(operator_settings()) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        number, differ = await differences(connection)
    say(f"{_windows(number)} open by the log; of {len(differ)} the table says something else")
    for task_id, key in differ:
        say(f"  {task_id} {escape(key)}")
    if differ:
        note("`ordinaut window rebuild` makes the table anew.")
    return 1 if differ else 0


def _windows(number: int) -> str:
    return "1 window is" if number == 1 else f"{number} windows are"


def rebuild_command() -> int:
    """Make the table of windows anew from the log."""
    return asyncio.run(_rebuild())


async def _rebuild() -> int:
    async with database(operator_settings()) as connection, connection.transaction():
        number = await rebuild(connection)
    say(f"{_windows(number)} open, as the log has it")
    return 0
