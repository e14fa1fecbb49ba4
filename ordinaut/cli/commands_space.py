"""`ordinaut space …`."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Space = Annotated[
    str | None, typer.Argument(metavar="[SPACE]", help="The key's space; ORDINAUT_SPACE by default.")
]

app = typer.Typer(help="What is set for a whole space.")


@app.command("show")
def space_show(space: Space = None, as_json: Json = False) -> None:
    """Show what is set for a space, and who set it."""
    from ordinaut.cli import spaces

    raise typer.Exit(spaces.show(space, as_json=as_json))


@app.command("set")
def space_set(
    minimum_interval: Annotated[
        str, typer.Option(help="The least time between two instants of a schedule, such as 10s; or none.")
    ],
    space: Space = None,
    reason: Annotated[str | None, typer.Option(help="Why; people will read it.")] = None,
    as_json: Json = False,
) -> None:
    """Set something for a whole space; takes an admin's key. Schedules that tasks have already stay."""
    from ordinaut.cli import spaces

    raise typer.Exit(spaces.change(space, minimum_interval, reason, as_json=as_json))
