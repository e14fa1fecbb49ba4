"""What commands print: results on stdout, everything about them (progress, errors) on stderr."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ordinaut.domain.errors import OrdinautError

STATES = {
    "active": "green", "succeeded": "green", "ok": "green",
    "running": "cyan", "queued": "cyan", "waiting": "yellow",
    "paused": "yellow", "skipped": "dim", "warn": "yellow", "snoozed": "yellow",
    "finished": "green", "stopped": "dim", "dead": "red", "requeued": "green", "dropped": "dim",
    "failed": "red", "parked": "red", "fail": "red", "canceled": "dim", "retired": "dim",
}  # fmt: skip
"""The colour of each state a thing may be in."""


CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
"""Characters that a terminal may obey, and how they are shown."""

_CONTROL_IN_JSON = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


class PlainConsole(Console):
    """A console that shows control characters and does not send them: what is shown comes from anybody."""

    def render_str(self, text: str, **how: Any) -> Text:
        """A text of what was given to print."""
        return super().render_str(text.translate(CONTROL), **how)


def out() -> Console:
    """The console on stdout; where it is not a terminal lines are as long as they are."""
    width = None if sys.stdout.isatty() else 4000
    return PlainConsole(highlight=False, soft_wrap=not sys.stdout.isatty(), width=width)


def err() -> Console:
    """The console on stderr."""
    return PlainConsole(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A plain line on stdout; square brackets mean nothing in it."""
    out().print(text, markup=False)


def note(text: str) -> None:
    """A plain line on stderr."""
    err().print(text, markup=False)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """A JSON document on stdout, at once; without `indent` on one line."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    print(text.translate(_CONTROL_IN_JSON), flush=True)


def print_error(error: OrdinautError) -> None:
    """One clear block: what is wrong, and under it each fault with its place."""
    console = err()
    if not error.faults or str(error.faults[0]) == error.message:
        console.print(f"[bold red]error:[/] {escape(error.message)}")
        return
    lines = [str(fault) for fault in error.faults]
    if error.message == "; ".join(lines):
        console.print(f"[bold red]error:[/] {escape(error.title)}")
    else:
        console.print(f"[bold red]error:[/] {escape(error.message)}")
    for line in lines:
        console.print(f"  {line}", markup=False)


def state(word: str) -> str:
    """A state as markup, in its colour."""
    colour = STATES.get(word)
    return f"[{colour}]{escape(word)}[/]" if colour else escape(word)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str = "Nothing there.") -> None:
    """A table on stdout; cells are markup. `empty` is said on stderr when there is no row."""
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        grid.add_column(column.upper(), overflow="fold")
    for row in rows:
        grid.add_row(*row)
    if grid.row_count:
        out().print(grid)
    else:
        note(empty)


def instant(text: str | None) -> str:
    """An instant of the API (RFC 3339) in this machine's time, to the second; "" for none."""
    if not text:
        return ""
    at = datetime.fromisoformat(text).astimezone()
    return at.strftime("%Y-%m-%d %H:%M:%S")


def seconds_between(start: str | None, end: str | None) -> str:
    """How long something took, such as `12 ms` or `3.4 s`; "" unless it began and ended."""
    if not start or not end:
        return ""
    return duration((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min"


def ago(text: str | None, now: datetime | None = None) -> str:
    """How far an instant is from now: `in 5 s`, `3 min ago`; "" for none."""
    if not text:
        return ""
    seconds = (datetime.fromisoformat(text) - (now or datetime.now(UTC))).total_seconds()
    size = abs(seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if size >= length or unit == "s":
            amount = f"{size / length:.0f} {unit}"
            return f"in {amount}" if seconds >= 0 else f"{amount} ago"
    return ""


def cause(value: Mapping[str, Any]) -> str:
    """Why a run was requested, in a few words (markup)."""
    match value.get("kind"):
        case "schedule":
            late = value.get("lateness") or 0
            return "schedule" + (f", {duration(late)} late" if late > 1 else "")
        case "backfill":
            return "backfill" + (f" of what was {escape(reason)}" if (reason := value.get("reason")) else "")
        case "replay":
            return escape(f"replay of {value.get('stream') or value.get('event')} {value.get('id')}")
        case "stream" | "event" as kind:
            return escape(f"{kind} {value.get('stream')} {value.get('id')}")
        case "window":
            key = f" of {escape(value['key'])}" if value.get("key") else ""
            number = value.get("count")
            return f"{value.get('pattern')}{key}, {number} event{'' if number == 1 else 's'}"
        case "system":
            return escape(f"{value.get('event')} at {value.get('position')}")
        case "retry":
            return f"retry of {value.get('run')}"
        case kind:
            return escape(str(kind))


def brief(value: Any, length: int = 100) -> str:
    """A JSON value on one line, cut at `length` characters (markup)."""
    if value is None:
        return ""
    if isinstance(value, dict) and isinstance(value.get("message"), str):
        text = value["message"]
    elif isinstance(value, str):
        text = value
    else:
        text = json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return escape(text if len(text) <= length else text[: length - 1] + "…")
