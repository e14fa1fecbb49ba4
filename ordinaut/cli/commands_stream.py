"""`ordinaut stream …`."""

from enum import StrEnum
from typing import Annotated

import typer

from ordinaut.cli.commands_replay import stream_replay

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Id = Annotated[str, typer.Argument(metavar="LETTER", help="The dead letter's id.")]
Reason = Annotated[str, typer.Option(help="Why; people will read it.")]

stream = typer.Typer(help="Streams of entries: what was set aside, and what is in them already.")
dead = typer.Typer(help="Dead letters: entries and events that were rejected.")
stream.add_typer(dead, name="dead")
stream.command("replay")(stream_replay)


class State(StrEnum):
    """What a dead letter may be, and all of them."""

    DEAD = "dead"
    REQUEUED = "requeued"
    DROPPED = "dropped"
    ALL = "all"


@dead.command("ls")
def dead_list(
    state: Annotated[State, typer.Option(help="Only those in this state.")] = State.DEAD,
    stream: Annotated[str | None, typer.Option(help="Only what came on this stream.")] = None,
    task: Annotated[str | None, typer.Option(help="Only what this task rejected (name or id).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: Json = False,
) -> None:
    """List dead letters, newest first, each with the reason."""
    from ordinaut.cli import dead

    raise typer.Exit(dead.list_letters(state.value, stream, task, limit, as_json=as_json))


@dead.command("show")
def dead_show(letter: Id, as_json: Json = False) -> None:
    """Show one: why it was rejected, how often, and what the entry holds."""
    from ordinaut.cli import dead

    raise typer.Exit(dead.show(letter, as_json=as_json))


@dead.command("requeue")
def dead_requeue(letter: Id, reason: Reason, as_json: Json = False) -> None:
    """Decide it anew by the triggers as they are now; exit code 1 when it is rejected again."""
    from ordinaut.cli import dead

    raise typer.Exit(dead.requeue(letter, reason, as_json=as_json))


@dead.command("drop")
def dead_drop(letter: Id, reason: Reason) -> None:
    """Out of the way with it. It stays in the log."""
    from ordinaut.cli import dead

    raise typer.Exit(dead.drop(letter, reason))
