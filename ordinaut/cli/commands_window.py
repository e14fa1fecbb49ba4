"""`ordinaut window …`."""

from typing import Annotated

import typer

app = typer.Typer(help="Windows: events that tasks have collected (debounce, batch, sequence, …).")


@app.command("list")
def window_list(
    task: Annotated[str | None, typer.Option(help="Only this task's (name or id).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the open windows: what they hold, and when they end if nothing comes."""
    from ordinaut.cli import windows

    raise typer.Exit(windows.list_command(task, limit, as_json=as_json))


@app.command("verify")
def window_verify() -> None:
    """Check that the table of windows is what the log says."""
    from ordinaut.cli import windows

    raise typer.Exit(windows.verify_command())


@app.command("rebuild")
def window_rebuild() -> None:
    """Make the table of windows anew from the log."""
    from ordinaut.cli import windows

    raise typer.Exit(windows.rebuild_command())
