"""`ordinaut log …` and `ordinaut event publish` over HTTP."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from ordinaut.cli.client import Client
from ordinaut.cli.output import brief, instant, note, out, print_json, say
from ordinaut.cli.tasks import json_argument


def wanted(
    stream: str | None, types: Sequence[str] | None, correlation: str | None, actor: str | None
) -> dict[str, Any]:
    """The filters as the API's query parameters."""
    return {
        "stream": stream,
        "type": ",".join(types or []) or None,
        "correlation": correlation,
        "actor": actor,
    }


def between(since: str | None, until: str | None) -> dict[str, str | None]:
    """The filters by time; a time without an offset is this machine's. What is no instant is a misuse."""
    return {"since": _instant(since, "--since"), "until": _instant(until, "--until")}


def _instant(text: str | None, option: str) -> str | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text[:60]!r} is not an ISO instant, such as 2026-05-04T08:30 or 2026-05-04T08:30:00Z",
            param_hint=option,
        ) from None


def list_events(filters: Mapping[str, Any], limit: int, *, as_json: bool) -> int:
    """`ordinaut log list`."""
    with Client() as client:
        found = list(client.items("/v1/log", limit, **filters))
    if as_json:
        print_json(found)
        return 0
    console = out()
    for event in found:
        _print(console, event)
    if not found:
        note("No events.")
    return 0


def follow(filters: Mapping[str, Any], *, as_json: bool) -> int:
    """`ordinaut log follow`: until Ctrl-C, or until the server ends."""
    console = out()
    with suppress(KeyboardInterrupt), Client() as client:
        for event in client.live("/v1/log/live", **filters):
            if as_json:
                print_json(event, indent=None)
            else:
                _print(console, event)
    return 0


def _print(console: Console, event: Mapping[str, Any]) -> None:
    console.print(
        f"[dim]{event['position']:>8}  {instant(event['at'])}[/]  [bold]{escape(event['type'])}[/]"
        f"  {escape(event['stream'])}  [dim]{escape(event['actor'])}  {brief(event['data'], 160)}[/]",
        soft_wrap=True,
    )


def publish(stream: str, data: str, *, as_json: bool) -> int:
    """`ordinaut event publish`."""
    body = {"stream": stream, "data": json_argument(data, "DATA")}
    with Client() as client:
        answer = client.post("/v1/events", body)
    if as_json:
        print_json(answer)
        return 0
    say(answer["id"])
    for run in answer["runs"]:
        note(f"run {run}")
    return 0
