"""`ordinaut run …`."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]

app = typer.Typer(help="Runs: what happened, and why.")


@app.command("list")
def run_list(
    task: Annotated[str | None, typer.Option(help="Only this task's (name or id).")] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="Only those queued, running, failed …; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    from ordinaut.cli import runs

    raise typer.Exit(runs.list_runs(task, state or [], limit, as_json=as_json))


@app.command("show")
def run_show(
    run: Run,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for its end.")] = False,
    as_json: Json = False,
) -> None:
    """Show one run with its steps."""
    from ordinaut.cli import runs

    raise typer.Exit(runs.show(run, follow=follow, as_json=as_json))


@app.command("why")
def run_why(run: Run, as_json: Json = False) -> None:
    """Show the chain of causes that led to a run, back to what began it."""
    from ordinaut.cli import why

    raise typer.Exit(why.why(run, as_json=as_json))


@app.command("cancel")
def run_cancel(
    run: Run, reason: Annotated[str | None, typer.Option(help="Why; people will read it.")] = None
) -> None:
    """Cancel a run that has not ended."""
    from ordinaut.cli import runs

    raise typer.Exit(runs.command(run, "cancel", {"reason": reason}))


@app.command("retry")
def run_retry(run: Run) -> None:
    """Let a failed, canceled or parked run go on behind its last finished step."""
    from ordinaut.cli import runs

    raise typer.Exit(runs.command(run, "retry", {}))
