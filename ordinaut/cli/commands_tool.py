"""`ordinaut tool …`."""

from typing import Annotated

import typer

app = typer.Typer(help="Tools: what steps may use.")


@app.callback()
def tool() -> None:
    """Tools: what steps may use."""


@app.command("list")
def tool_list(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with the schemas, instead of a table.")
    ] = False,
) -> None:
    """List the tools with what they take and give; a question mark: it may be left out."""
    from ordinaut.cli import tools

    raise typer.Exit(tools.list_tools(as_json=as_json))
