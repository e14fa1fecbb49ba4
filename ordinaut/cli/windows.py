"""`ordinaut window list` and `rebuild`."""

import asyncio
from datetime import UTC, datetime

from rich.markup import escape

from ordinaut.cli.client import Client
from ordinaut.cli.database import database, operator_settings
from ordinaut.cli.output import ago, note, print_json, say, table
from ordinaut.runtime.windows import rebuild


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
                escape(row["task"]), escape(row["key"]), row["pattern"], str(row["count"]),
                ago(row["from"], now), row["due_at"],
            )
            for row in rows
        ],
    )  # fmt: skip
    return 0


def rebuild_command() -> int:
    """Make the table of windows anew from the log."""
    return asyncio.run(_rebuild())


async def _rebuild() -> int:
    async with database(operator_settings()) as connection, connection.transaction():
        number = await rebuild(connection)
    say(f"{number} windows are open, as the log has it")
    return 0
