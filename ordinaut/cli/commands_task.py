"""`ordinaut apply` and `ordinaut task …`."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Task = Annotated[str, typer.Argument(metavar="TASK", help="The task's name or id.")]

app = typer.Typer(help="Tasks: see them, run them now, pause and retire them.")


def apply(
    files: Annotated[
        list[Path],
        typer.Option(
            "--file", "-f", exists=True, help="A file, or a directory of .yaml, .yml and .json files."
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen, do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Make the tasks what the files say: check all, show what changes, then apply it."""
    from ordinaut.cli import apply_command

    raise typer.Exit(apply_command.apply(files, dry_run=dry_run, yes=yes))


@app.command("list")
def task_list(
    status: Annotated[str | None, typer.Option(help="active, paused or retired.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    as_json: Json = False,
) -> None:
    """List the tasks."""
    from ordinaut.cli import tasks

    raise typer.Exit(tasks.list_tasks(status, limit, as_json=as_json))


@app.command("show")
def task_show(task: Task, as_json: Json = False) -> None:
    """Show one task: its schedule, its steps, its policies."""
    from ordinaut.cli import tasks

    raise typer.Exit(tasks.show(task, as_json=as_json))


@app.command("run")
def task_run(
    task: Task,
    value: Annotated[str | None, typer.Option("--input", help="The run's input, as JSON.")] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Check and record every step, call nothing.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for its end and show it.")] = False,
    as_json: Json = False,
) -> None:
    """Run a task now."""
    from ordinaut.cli import tasks

    raise typer.Exit(tasks.run_now(task, value, simulate=simulate, follow=follow, as_json=as_json))


@app.command("pause")
def task_pause(
    task: Task, reason: Annotated[str | None, typer.Option(help="Why; people will read it.")] = None
) -> None:
    """Stop a task from firing until it is resumed."""
    from ordinaut.cli import tasks

    raise typer.Exit(tasks.command(task, "pause", {"reason": reason}))


@app.command("resume")
def task_resume(task: Task) -> None:
    """Let a paused or snoozed task fire again."""
    from ordinaut.cli import tasks

    raise typer.Exit(tasks.command(task, "resume", {}))


@app.command("snooze")
def task_snooze(
    task: Task,
    until: Annotated[
        str | None,
        typer.Argument(help="An ISO instant, or a duration such as 2h; by default the next occurrence."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; people will read it.")] = None,
) -> None:
    """Stop a task from firing for a while."""
    from ordinaut.cli import tasks

    raise typer.Exit(tasks.snooze(task, until, reason))


@app.command("retire")
def task_retire(
    task: Task, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """End a task for good; its history stays."""
    from ordinaut.cli import tasks

    raise typer.Exit(tasks.retire(task, yes=yes))
