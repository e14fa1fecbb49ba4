"""`ordinaut hook …`."""

from enum import StrEnum
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reason = Annotated[str | None, typer.Option(help="Why; people will read it.")]
Name = Annotated[str, typer.Argument(help="The hook's name, such as github.")]

app = typer.Typer(help="Webhooks: who may deliver events by a signature.")


class HookKind(StrEnum):
    """Who signs, and how."""

    STANDARD = "standard"
    GITHUB = "github"
    STRIPE = "stripe"


@app.command("list")
def hook_list(as_json: Json = False) -> None:
    """List the webhooks, and the URLs they deliver to."""
    from ordinaut.cli import hooks

    raise typer.Exit(hooks.list_hooks(as_json=as_json))


@app.command("set")
def hook_set(
    name: Name,
    kind: Annotated[HookKind, typer.Option(help="How deliveries are signed.")],
    stream: Annotated[str, typer.Option(help="The stream they are events on.")],
    secret: Annotated[
        list[str],
        typer.Option(help="The name of a secret of the API (not its value); two while one is replaced."),
    ],
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Let whoever signs with a secret deliver events; takes an admin's key."""
    from ordinaut.cli import hooks

    raise typer.Exit(hooks.change(name, kind.value, stream, secret, reason, as_json=as_json))


@app.command("remove")
def hook_remove(name: Name, reason: Reason = None, as_json: Json = False) -> None:
    """Take a webhook away; takes an admin's key."""
    from ordinaut.cli import hooks

    raise typer.Exit(hooks.remove(name, reason, as_json=as_json))
