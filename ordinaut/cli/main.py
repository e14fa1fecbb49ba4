"""`ordinaut`: the commands. Each imports its work when it is called, so that --help is quick.

Exit codes: 0 well, 1 found wrong, 2 misused.
"""

from pathlib import Path
from typing import Annotated

import typer

from ordinaut.cli import (
    commands_backfill,
    commands_data,
    commands_hook,
    commands_log,
    commands_run,
    commands_space,
    commands_stream,
    commands_task,
    commands_tool,
    commands_trigger,
    commands_window,
)
from ordinaut.domain.errors import OrdinautError

ROLES_HELP = "api, relay, projector, clock, intake, worker; all of them when none is named."

app = typer.Typer(
    name="ordinaut",
    help="Do things reliably later, again, or when something happens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(commands_task.app, name="task")
app.add_typer(commands_run.app, name="run")
app.add_typer(commands_backfill.app, name="backfill")
app.add_typer(commands_stream.stream, name="stream")
app.add_typer(commands_trigger.app, name="trigger")
app.add_typer(commands_tool.app, name="tool")
app.add_typer(commands_space.app, name="space")
app.add_typer(commands_window.app, name="window")
app.add_typer(commands_log.log, name="log")
app.add_typer(commands_log.event, name="event")
app.add_typer(commands_hook.app, name="hook")
app.add_typer(commands_data.projections, name="projections")
app.add_typer(commands_data.schedule, name="schedule")
app.add_typer(commands_data.key, name="key")
app.command("apply")(commands_task.apply)
app.command("migrate")(commands_data.migrate)
app.command("doctor")(commands_data.doctor)


@app.command()
def serve(
    roles: Annotated[list[str] | None, typer.Argument(metavar="[ROLE]...", help=ROLES_HELP)] = None,
) -> None:
    """Run roles of the system in this process until SIGTERM or Ctrl-C."""
    from ordinaut.cli import serve as module

    unknown = [role for role in roles or [] if role not in module.ROLES]
    if unknown:
        known = ", ".join(module.ROLES)
        raise typer.BadParameter(f"there is no role {unknown[0]!r}; there are: {known}", param_hint="ROLE")
    raise typer.Exit(module.serve(roles or []))


@app.command()
def dev(
    port: Annotated[int | None, typer.Option(help="TCP port of the API (default 8080).", max=65535)] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the servers keep their data (default .ordinaut).")
    ] = None,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Keep nothing: throw-away data.")] = False,
    no_examples: Annotated[
        bool, typer.Option("--no-examples", help="Do not apply the example tasks.")
    ] = False,
) -> None:
    """Run everything on this machine, PostgreSQL and Valkey included, and show what happens."""
    from ordinaut.cli import dev as module

    raise typer.Exit(module.dev(port, data_dir, ephemeral=ephemeral, examples=not no_examples))


def main() -> None:
    """The entry point: run the command line, end the process with its exit code."""
    try:
        app(prog_name="ordinaut")
    except OrdinautError as error:
        from ordinaut.cli.output import print_error

        print_error(error)
        raise SystemExit(1) from None
