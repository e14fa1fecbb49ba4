"""`ordinaut apply`: shows the plan with its differences, asks, and carries it out."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from ordinaut.cli.apply import Change, carry_out, check_on_server, find_files, plan, read_items
from ordinaut.cli.client import Client
from ordinaut.cli.output import note, out, say

SIGNS = {"create": "[green]+[/]", "change": "[yellow]~[/]", "nothing": "[dim]=[/]"}
WORDS = {"create": "new", "change": "changes", "nothing": "as it is"}


def apply(paths: Sequence[Path], *, dry_run: bool, yes: bool) -> int:
    """Apply every definition in `paths`; the exit code.

    Where somebody sits at the terminal, changes are asked about first, unless `yes`.
    """
    items = read_items(find_files(paths))
    with Client() as client:
        check_on_server(client, items)
        changes = plan(client, items)
        for change in changes:
            _show(change)
        wanted = [change for change in changes if change.action != "nothing"]
        if not wanted:
            say("Nothing to do.")
            return 0
        if dry_run:
            say(f"{_count(wanted)} would be applied.")
            return 0
        if not yes and sys.stdin.isatty() and not typer.confirm(f"Apply {_count(wanted)}?", default=True):
            note("Nothing was applied.")
            return 1
        carry_out(client, changes)
    say(f"{_count(wanted)} applied.")
    return 0


def _count(changes: Sequence[Change]) -> str:
    return f"{len(changes)} task{'' if len(changes) == 1 else 's'}"


def _show(change: Change) -> None:
    console = out()
    place = escape(change.item.document.locate("/name"))
    console.print(
        f"{SIGNS[change.action]} {escape(change.item.name)}  [dim]{WORDS[change.action]} ({place})[/]"
    )
    for pointer, old, new in change.differences:
        console.print(f"    [dim]{escape(pointer)}[/]")
        if old is not None:
            console.print(f"      [red]- {escape(_json(old))}[/]")
        if new is not None:
            console.print(f"      [green]+ {escape(_json(new))}[/]")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
