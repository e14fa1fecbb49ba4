"""`ordinaut space …`: what is set for a whole space, over HTTP."""

from typing import Any

import typer
from rich.markup import escape

from ordinaut.cli.client import Client, segment
from ordinaut.cli.output import instant, note, out, print_json
from ordinaut.domain.durations import parse_duration
from ordinaut.runtime.settings import load_settings

NONE = "none"


def show(space: str | None, *, as_json: bool) -> int:
    """`ordinaut space show`."""
    with Client() as client:
        _print(client.get(_path(space)), as_json=as_json)
    return 0


def change(space: str | None, minimum_interval: str, reason: str | None, *, as_json: bool) -> int:
    """`ordinaut space set`: `minimum_interval` is a duration, or `none`."""
    minimum = None if minimum_interval.lower() == NONE else minimum_interval
    if minimum is not None:
        try:
            parse_duration(minimum)
        except ValueError as error:
            raise typer.BadParameter(f"{error}; or say {NONE}", param_hint="--minimum-interval") from None
    with Client() as client:
        before = client.get(_path(space))
        answer = client.put(_path(space), {"minimum_interval": minimum, "reason": reason})
    if answer["version"] == before["version"]:
        note("It was so already.")
    _print(answer, as_json=as_json)
    return 0


def _path(space: str | None) -> str:
    return f"/v1/spaces/{segment(space or load_settings().space)}"


def _print(space: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(space)
        return
    console = out()
    console.print(f"[bold]{escape(space['space'])}[/]")
    console.print(f"  minimum interval  {space['minimum_interval'] or NONE}")
    if space["changed_at"]:
        reason = f": {escape(space['reason'])}" if space["reason"] else ""
        console.print(
            f"  [dim]since {instant(space['changed_at'])}, by {escape(space['changed_by'])}{reason}[/]"
        )
