"""`ordinaut apply` and `ordinaut task …`."""

from pathlib import Path
from typing import Annotated

import typer

from ordinaut.cli.commands_backfill import task_backfill

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Task = Annotated[str, typer.Argument(metavar="TASK", help="The task's name or id.")]
OneTask = Annotated[str | None, typer.Argument(metavar="[TASK]", help="The task's name or id.")]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="All tasks with this label; repeat to ask for more."),
]
Reason = Annotated[str | None, typer.Option(help="Why; people will read it.")]

app = typer.Typer(help="Tasks: see them, run them now, pause and retire them.")
app.command("backfill")(task_backfill)


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
    task: OneTask = None,
    label: Labels = None,
    reason: Reason = None,
    until: Annotated[
        str | None,
        typer.Option(help="An ISO instant, or a duration such as 2h; by default until it is resumed."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Stop a task, or all with a label, from firing until an instant or until resumed."""
    from ordinaut.cli import taskcontrol

    raise typer.Exit(taskcontrol.pause(task, label or [], reason, until, as_json=as_json))


@app.command("resume")
def task_resume(
    task: OneTask = None, label: Labels = None, reason: Reason = None, as_json: Json = False
) -> None:
    """Let a paused or snoozed task, or all with a label, fire again."""
    from ordinaut.cli import taskcontrol

    raise typer.Exit(taskcontrol.resume(task, label or [], reason, as_json=as_json))


@app.command("snooze")
def task_snooze(
    task: Task,
    until: Annotated[
        str | None,
        typer.Argument(help="An ISO instant, or a duration such as 2h; by default the next occurrence."),
    ] = None,
    reason: Reason = None,
) -> None:
    """Stop a task from firing for a while."""
    from ordinaut.cli import taskcontrol

    raise typer.Exit(taskcontrol.snooze(task, until, reason))


@app.command("retire")
def task_retire(
    task: Task, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """End a task for good; its history stays."""
    from ordinaut.cli import tasks

    raise typer.Exit(tasks.retire(task, yes=yes))
