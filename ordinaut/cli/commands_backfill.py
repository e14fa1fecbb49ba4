"""`ordinaut backfill …` and `ordinaut task backfill`."""

from enum import StrEnum
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Id = Annotated[str, typer.Argument(metavar="BACKFILL", help="The backfill's id.")]

app = typer.Typer(help="Backfills: how far they are, and stopping them. `task backfill` begins one.")


class Order(StrEnum):
    """Which of a backfill's instants come first."""

    OLDEST = "oldest"
    NEWEST = "newest"


class State(StrEnum):
    """What a backfill may be."""

    RUNNING = "running"
    STOPPED = "stopped"
    FINISHED = "finished"


def task_backfill(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's name or id.")],
    since: Annotated[
        str,
        typer.Option("--from", help="ISO instant or date: instants from here on. Local, without an offset."),
    ],
    until: Annotated[
        str | None, typer.Option("--to", help="Instants before this one; now by default.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show every instant, run nothing.")] = False,
    max_parallel: Annotated[int, typer.Option(min=1, max=100, help="So many runs at once, at the most.")] = 1,
    order: Annotated[Order, typer.Option(help="Which instants come first.")] = Order.OLDEST,
    rerun: Annotated[bool, typer.Option("--rerun", help="Also what has a run already.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; people will read it.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Run past instants of a task's schedules that have no run: show them, ask, follow them to the end."""
    from ordinaut.cli import backfill

    body = {"max_parallel": max_parallel, "order": order.value, "rerun": rerun, "reason": reason}
    code = backfill.backfill(task, since, until, body, dry_run=dry_run, yes=yes, as_json=as_json)
    raise typer.Exit(code)


@app.command("list")
def backfill_list(
    task: Annotated[str | None, typer.Option(help="Only this task's (name or id).")] = None,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List backfills, newest first."""
    from ordinaut.cli import backfill

    raise typer.Exit(backfill.list_backfills(task, state and state.value, limit, as_json=as_json))


@app.command("show")
def backfill_show(
    backfill_id: Id,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for its end.")] = False,
    as_json: Json = False,
) -> None:
    """Show one backfill: what it was asked for, and what came of its runs."""
    from ordinaut.cli import backfill

    raise typer.Exit(backfill.show(backfill_id, follow=follow, as_json=as_json))


@app.command("stop")
def backfill_stop(
    backfill_id: Id, reason: Annotated[str | None, typer.Option(help="Why; people will read it.")] = None
) -> None:
    """Ask for no more of its runs; those under way go on."""
    from ordinaut.cli import backfill

    raise typer.Exit(backfill.stop(backfill_id, reason))
