"""The windows that `ordinaut trigger test` shows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape

from ordinaut.cli.output import ago, brief, instant, table

MOST_RUNS = 5
"""How many of a window's runs are shown."""


def print_windows(windows: Sequence[Mapping[str, Any]], *, several: bool) -> None:
    """A row for each window: what it held, why it ended, and the runs that come of it. `several`: entries are
    of more than one stream."""
    keyed = any(one["key"] for one in windows)
    columns = (*(("key",) if keyed else ()), "from", "to", "held", "ended", "run of", "input", "left out")
    table(
        columns,
        [
            [
                *([escape(one["key"])] if keyed else []),
                instant(one["from"]), _later(one), str(one["count"]), _ended(one),
                _lines(one, [_of(run, several=several) for run in one["runs"]]),
                _lines(one, [brief(run["input"], 60) for run in one["runs"]]),
                _left_out(one),
            ]
            for one in windows
        ],
        empty="No window held anything.",
    )  # fmt: skip


def _later(window: Mapping[str, Any]) -> str:
    """The instant of the last entry, without the day it has in common with the first."""
    first, last = instant(window["from"]), instant(window["to"])
    day, _, time = last.partition(" ")
    return time if first.startswith(day) else last


def _ended(window: Mapping[str, Any]) -> str:
    if window["reason"] is None:
        return f"[yellow]open[/], due {ago(window['due_at'])}"
    return f"{escape(window['reason'])} [dim]{instant(window['ended_at']).partition(' ')[2]}[/]"


def _lines(window: Mapping[str, Any], lines: Sequence[str]) -> str:
    more = len(lines) - MOST_RUNS
    return "\n".join([*lines[:MOST_RUNS], *([f"[dim]… and {more} more[/]"] if more > 0 else [])])


def _of(run: Mapping[str, Any], *, several: bool) -> str:
    """The entries a run is about (markup)."""
    if parts := run.get("parts"):
        return "\n".join(f"{escape(name)} [dim]{_entry(one, several)}[/]" for name, one in parts.items())
    first, last = run["entries"][0], run["entries"][-1]
    if run["count"] == 1:
        return _entry(first, several)
    until = _entry(last, several) if run["count"] == len(run["entries"]) else ""
    return f"{run['count']}: {_entry(first, several)} … {until}".rstrip()


def _entry(about: Mapping[str, str], several: bool) -> str:
    return escape(f"{about['source']} {about['id']}" if several else about["id"])


def _left_out(window: Mapping[str, Any]) -> str:
    reasons = Counter(one["reason"] for one in window["dropped"])
    told = ", ".join(f"{number} {escape(reason)}" for reason, number in reasons.items())
    more = window["dropped_count"] - reasons.total()
    return f"{told}, {more} more" if more else told
