"""`ordinaut stream replay`."""

from typing import Annotated

import typer

from ordinaut.cli.commands_backfill import Order

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Stream = Annotated[
    str | None,
    typer.Argument(metavar="STREAM", help="The stream's name; what the task listens to by default."),
]
Log = Annotated[
    bool, typer.Option("--log", help="The events that the log holds, instead of the stream in Redis.")
]
First = Annotated[str | None, typer.Option("--from", help="The first entry's id; the oldest by default.")]
Last = Annotated[str | None, typer.Option("--to", help="The last entry's id; the newest by default.")]


def stream_replay(
    task: Annotated[str, typer.Option(metavar="TASK", help="The task's name or id.")],
    name: Stream = None,
    first: First = None,
    last: Last = None,
    log: Log = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show every entry, run nothing.")] = False,
    max_parallel: Annotated[int, typer.Option(min=1, max=100, help="So many runs at once, at the most.")] = 1,
    order: Annotated[Order, typer.Option(help="Which entries come first.")] = Order.OLDEST,
    rerun: Annotated[bool, typer.Option("--rerun", help="Also what has a run already.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; people will read it.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Run a task for the entries of a stream that match its trigger and have no run.

    Shows them, asks, and follows the runs to their end. A task that listens to events of the log, such as
    RunFailed, is run for those: their ids are positions in the log.
    """
    from ordinaut.cli import backfill

    reach = {"from": first, "to": last, "log": log or None}
    more = {"max_parallel": max_parallel, "order": order.value, "rerun": rerun, "reason": reason}
    code = backfill.replay(name, task, reach, more, dry_run=dry_run, yes=yes, as_json=as_json)
    raise typer.Exit(code)
