"""`ordinaut log …` and `ordinaut event publish`."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")]
Stream = Annotated[str | None, typer.Option(help="Only this stream, such as run-<id>.")]
Types = Annotated[list[str] | None, typer.Option("--type", help="Only events of this type; may be repeated.")]
Correlation = Annotated[str | None, typer.Option(help="Only what belongs together under this id.")]
Actor = Annotated[str | None, typer.Option(help="Only what this actor did, such as key:admin.")]

log = typer.Typer(help="The log: everything that ever happened, in order.")
event = typer.Typer(help="Events from outside.")


@log.command("list")
def log_list(
    stream: Stream = None,
    types: Types = None,
    correlation: Correlation = None,
    actor: Actor = None,
    since: Annotated[
        str | None, typer.Option(help="Not before this ISO instant (without an offset: local time).")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Before this ISO instant.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    newest: Annotated[
        bool, typer.Option("--newest", help="The newest first; by default the oldest.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List events, oldest first unless --newest says otherwise."""
    from ordinaut.cli import logs

    wanted = logs.wanted(stream, types, correlation, actor)
    wanted |= logs.between(since, until)
    wanted["order"] = "desc" if newest else None
    raise typer.Exit(logs.list_events(wanted, limit, as_json=as_json))


@log.command("follow")
def log_follow(
    stream: Stream = None,
    types: Types = None,
    correlation: Correlation = None,
    actor: Actor = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show events as they happen, until Ctrl-C."""
    from ordinaut.cli import logs

    raise typer.Exit(logs.follow(logs.wanted(stream, types, correlation, actor), as_json=as_json))


@event.command("publish")
def event_publish(
    stream: Annotated[str, typer.Argument(help="The stream, such as orders.")],
    data: Annotated[str, typer.Argument(help="The event's data, as JSON.")],
    as_json: Json = False,
) -> None:
    """Publish an event; the tasks that listen to the stream run."""
    from ordinaut.cli import logs

    raise typer.Exit(logs.publish(stream, data, as_json=as_json))
