"""`ordinaut trigger …`."""

from pathlib import Path
from typing import Annotated

import typer

from ordinaut.cli.commands_replay import First, Json, Last, Log

app = typer.Typer(help="Triggers: try one before it is applied.")


@app.callback()
def _group() -> None:
    """Triggers: try one before it is applied."""


@app.command("test")
def trigger_test(
    file: Annotated[
        Path, typer.Option("--file", "-f", exists=True, dir_okay=False, help="A file with one definition.")
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="STREAM",
            help="The stream whose entries are looked at; what the trigger listens to by default.",
        ),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option(
            "--last", min=1, max=10_000, help="Look at the newest so many entries; 1000 by default."
        ),
    ] = None,
    first: First = None,
    last: Last = None,
    log: Log = False,
    show_all: Annotated[
        bool, typer.Option("--all", help="List entries that it does not match, too.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="List at most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """Show what a new or changed trigger would have done with entries that are there, and do nothing.

    A task of the same name is compared with: what would match newly, and what no longer. A trigger on events
    of the log, such as RunFailed, is held against those: their ids are positions in the log.
    """
    from ordinaut.cli import rehearse

    given = {"stream": against, "last": number, "from": first, "to": last, "limit": limit}
    flags = {"log": log or None, "all": show_all or None}
    raise typer.Exit(rehearse.test(file, given | flags, as_json=as_json))
