"""`ordinaut task backfill`, `ordinaut stream replay` and `ordinaut backfill …` over HTTP."""

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ordinaut.cli.client import Client, segment
from ordinaut.cli.output import ago, brief, err, instant, note, out, print_json, say, state, table
from ordinaut.cli.program import program

LOOK_SECONDS = 0.5
"""How often a backfill that is followed is looked at."""

SHOWN = 10
"""How many of those that will run are shown before it is asked whether to."""

ENDED = ("succeeded", "failed", "canceled", "parked")
_WHY_NOT = {
    "has_run": "have a run already (--rerun runs them again)",
    "expected": "are the clock's to decide, which has not come to them yet",
    "excluded": "are excluded by the schedule",
    "unmatched": "do not match the trigger",
    "rejected": "cannot be read, or the trigger fails on them",
}


def backfill(
    name: str,
    since: str,
    until: str | None,
    more: Mapping[str, Any],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """`ordinaut task backfill`: the exit code is 0 when every run succeeded, or goes on unwatched."""
    body = {"from": _instant(since, "--from")}
    if until is not None:
        body["to"] = _instant(until, "--to")
    return _begin(name, "backfill", body, more, dry_run=dry_run, yes=yes, as_json=as_json)


def replay(
    stream: str | None,
    name: str,
    reach: Mapping[str, Any],
    more: Mapping[str, Any],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """`ordinaut stream replay`: the exit code is that of `backfill`."""
    given = {"stream": stream, **reach}
    body = {field: value for field, value in given.items() if value is not None}
    return _begin(name, "replay", body, more, dry_run=dry_run, yes=yes, as_json=as_json)


def _begin(
    name: str,
    what: str,
    given: Mapping[str, Any],
    more: Mapping[str, Any],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Show what a backfill or a replay of the task would do, ask, begin it and follow it."""
    body = {**given, **{field: value for field, value in more.items() if value is not None}}
    path = f"/v1/tasks/{segment(name)}/{what}"
    with Client() as client:
        plan = client.post(path, body | {"dry_run": True}, changes=False)
        if dry_run:
            if as_json:
                print_json(plan)
            else:
                _print_plan(plan, plan["items"])
            return 0
        # What was shown is what is asked for, whatever time it is by then and whatever has come meanwhile.
        body |= {field: plan[field] for field in ("from", "to") if plan[field] is not None}
        chosen = [one for one in plan["items"] if one["will_run"]]
        if not as_json:
            _print_plan(plan, chosen[:SHOWN], more=len(chosen) - SHOWN)
        if not chosen:
            note("Nothing to run.")
            return 0
        if not yes and sys.stdin.isatty() and not typer.confirm(f"Run {_number(plan)} of {name}?"):
            note("Nothing was run.")
            return 1
        answer = client.post(path, body)
        return _follow(client, answer["backfill"], as_json=as_json)


def _number(plan: Mapping[str, Any], which: str = "run") -> str:
    """How many there are, such as `3 instants`."""
    number = plan["counts"][which]
    one, many = ("instant", "instants") if "instants" in plan["counts"] else ("entry", "entries")
    return f"{number} {one if number == 1 else many}"


def _print_plan(plan: Mapping[str, Any], items: Sequence[Mapping[str, Any]], more: int = 0) -> None:
    if "entries" in plan["counts"]:
        everything = _number(plan, "entries")
        columns: tuple[str, ...] = ("entry", "verdict", "reason", "run", "input", "")
        rows = [(escape(one["id"]), *_told(one), brief(one["input"], 60), _fate(one)) for one in items]
        empty = "There is no entry."
    else:
        everything = _number(plan, "instants")
        columns = ("instant", "version", "verdict", "reason", "run", "")
        rows = [(instant(one["at"]), str(one["task_version"]), *_told(one), _fate(one)) for one in items]
        empty = "The schedule named no instant then."
    table(columns, rows, empty=empty)
    if more > 0:
        note(f"… and {more} more; --dry-run shows all of them")
    counts = plan["counts"]
    note(f"{counts['run']} of {everything} will run, {plan['order']} first.")
    for what, why in _WHY_NOT.items():
        if counts.get(what):
            note(f"{counts[what]} {why}.")


def _told(one: Mapping[str, Any]) -> tuple[str, str, str]:
    return escape(one["verdict"]), escape(one["reason"] or ""), one["run"] or ""


def _fate(one: Mapping[str, Any]) -> str:
    return "[green]will run[/]" if one["will_run"] else "[dim]left as it is[/]"


def list_backfills(task: str | None, wanted: str | None, limit: int, *, as_json: bool) -> int:
    """`ordinaut backfill list`."""
    with Client() as client:
        found = list(client.items("/v1/backfills", limit, task=task, state=wanted))
    if as_json:
        print_json(found)
        return 0
    now = datetime.now(UTC)
    table(
        ("id", "task", "state", "of", "from", "to", "planned", "requested", *ENDED, "asked for"),
        [
            (
                one["id"], escape(one["task"]), state(one["state"]), _of(one), _bound(one, "from"),
                _bound(one, "to"),
                str(one["planned"]), str(one["requested"]), *(str(one[name]) for name in ENDED),
                ago(one["requested_at"], now),
            )
            for one in found
        ],
        empty="No backfills.",
    )  # fmt: skip
    return 0


def show(backfill_id: str, *, follow: bool, as_json: bool) -> int:
    """`ordinaut backfill show`."""
    with Client() as client:
        if follow:
            return _follow(client, backfill_id, as_json=as_json)
        found = client.get(_path(backfill_id))
    _print(found, as_json=as_json)
    return 0


def stop(backfill_id: str, reason: str | None) -> int:
    """`ordinaut backfill stop`."""
    with Client() as client:
        client.post(f"{_path(backfill_id)}/stop", {} if reason is None else {"reason": reason})
        found = client.get(_path(backfill_id))
    say(f"stopped {found['id']}")
    if found["unfinished"]:
        note(f"{found['unfinished']} of its runs are under way and go on.")
    return 0


def _path(backfill_id: str) -> str:
    return f"/v1/backfills/{segment(backfill_id)}"


def _follow(client: Client, backfill_id: str, *, as_json: bool) -> int:
    """Watch a backfill to its end behind a bar on stderr; 1 when it was stopped or a run did not succeed."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"), TimeElapsedColumn(),
    )  # fmt: skip
    try:
        with Progress(*columns, console=err()) as progress:
            bar = progress.add_task("backfill", total=None, told="")
            while True:
                found = client.get(_path(backfill_id))
                done = sum(found[name] for name in ENDED)
                told = ", ".join(f"{found[name]} {name}" for name in ENDED if found[name])
                progress.update(bar, completed=done, total=found["planned"], told=told)
                if found["state"] != "running" and not found["unfinished"]:
                    break
                time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        note(f"It goes on. Look at it: {program()} backfill show {backfill_id} --follow")
        note(f"Stop it: {program()} backfill stop {backfill_id}")
        return 0
    _print(found, as_json=as_json)
    return 0 if found["state"] == "finished" and found["succeeded"] == found["requested"] else 1


def _print(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    console = out()
    console.print(f"[bold]{escape(found['task'])}[/]  {state(found['state'])}  [dim]{found['id']}[/]")
    numbers = ", ".join(
        f"{found[name]} {name}" for name in ("planned", "requested", "unfinished", *ENDED) if found[name]
    )
    by = f"{found['requested_by']}, {instant(found['requested_at'])}"
    stopped = f"{found['stopped_by']}, {instant(found['ended_at'])}" if found["stopped_by"] else ""
    facts = {
        "of": f"{_of(found)}, {_bound(found, 'from')} to {_bound(found, 'to')}, {found['order']} first,"
        f" {found['max_parallel']} at once" + (", also what had a run" if found["rerun"] else ""),
        "runs": numbers or "none",
        "asked for": escape(by + (f": {found['reason']}" if found["reason"] else "")),
        "stopped": escape(stopped + (f": {found['stop_reason']}" if found["stop_reason"] else "")),
        "finished": instant(found["ended_at"]) if found["state"] == "finished" else "",
    }
    for label, value in facts.items():
        if value:
            console.print(f"  {label:<11} {value}")


def _of(found: Mapping[str, Any]) -> str:
    """What a backfill runs the task for (markup)."""
    match found["source"]:
        case {"kind": "stream", "stream": stream}:
            return f"entries of {escape(stream)}"
        case {"kind": "log", "stream": stream}:
            return f"events of {escape(stream)}"
        case {"kind": "event", "event": event}:
            return f"{escape(event)} in the log"
        case _:
            return "instants"


def _bound(found: Mapping[str, Any], name: str) -> str:
    if found["source"]["kind"] == "schedule":
        return instant(found[name])
    return escape(found[name] or "")


def _instant(text: str, where: str) -> str:
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError):
        hint = "such as 2026-05-04, 2026-05-04T08:30 or 2026-05-04T08:30:00Z"
        raise typer.BadParameter(f"{text!r} is no ISO instant or date, {hint}", param_hint=where) from None
