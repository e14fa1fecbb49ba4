"""`ordinaut task …` over HTTP."""

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import typer
from rich.markup import escape

from ordinaut.cli.client import Client, segment
from ordinaut.cli.output import ago, brief, instant, note, out, print_json, say, state, table
from ordinaut.cli.runs import follow as follow_run
from ordinaut.domain.durations import parse_duration


def list_tasks(status: str | None, limit: int | None, *, as_json: bool) -> int:
    """`ordinaut task list`."""
    with Client() as client:
        found = list(client.items("/v1/tasks", limit, status=status))
    if as_json:
        print_json(found)
        return 0
    now = datetime.now(UTC)
    table(
        ("name", "status", "schedule", "next", "title"),
        [
            (
                escape(task["name"]), _status(task), escape(when(task["schedule"])),
                ago(task["next_fire_at"], now), escape(task["title"] or ""),
            )
            for task in found
        ],
        empty="No tasks. Apply one: ordinaut apply -f FILE",
    )  # fmt: skip
    return 0


def _status(task: Mapping[str, Any]) -> str:
    until = task.get("snoozed_until")
    snoozed = until and task["status"] == "active" and _future(until)
    return state("snoozed" if snoozed else task["status"])


def _future(text: str) -> bool:
    return datetime.fromisoformat(text) > datetime.now(UTC)


def when(schedule: Mapping[str, Any] | None) -> str:
    """A schedule in a few words."""
    if schedule is None:
        return "by hand"
    if "on" in schedule:
        return f"on {schedule['on'].get('stream', 'events')}"
    for kind in ("cron", "rrule", "once", "every"):
        if kind in schedule:
            zone = "" if kind == "every" else f" {schedule['timezone']}"
            return f"{kind} {schedule[kind]}{zone}"
    return "?"


def show(name: str, *, as_json: bool) -> int:
    """`ordinaut task show`."""
    with Client() as client:
        task = client.get(f"/v1/tasks/{segment(name)}")
    if as_json:
        print_json(task)
        return 0
    console = out()
    console.print(f"[bold]{escape(task['name'])}[/]  {_status(task)}  [dim]version {task['version']}[/]")
    next_at = task["next_fire_at"]
    facts = {
        "title": task["title"],
        "id": task["id"],
        "schedule": when(task["schedule"]),
        "next": f"{instant(next_at)} ({ago(next_at)})" if next_at else None,
        "paused": task.get("paused_reason"),
        "snoozed": instant(task.get("snoozed_until")),
        "params": brief(task["params"]) if task["params"] else None,
    }
    for label, value in facts.items():
        if value:
            console.print(f"  {label:<9} {value if label == 'params' else escape(str(value))}")
    console.print()
    table(
        ("step", "uses", "if", "timeout", "attempts"),
        [
            (
                escape(step["id"]), escape(step["uses"]), escape(step["if"] or ""), step["timeout"],
                str(step["retry"]["max_attempts"]),
            )
            for step in task["pipeline"]
        ],
    )  # fmt: skip
    return 0


def run_now(name: str, value: str | None, *, simulate: bool, follow: bool, as_json: bool) -> int:
    """`ordinaut task run`; with `follow` the exit code says whether the run succeeded."""
    body: dict[str, Any] = {}
    if value is not None:
        body["input"] = json_argument(value, "--input")
    if simulate:
        body["simulate"] = True
    with Client() as client:
        answer = client.post(f"/v1/tasks/{segment(name)}/run", body)
        if follow:
            return follow_run(client, answer["run"], as_json=as_json)
    if as_json:
        print_json(answer)
    else:
        say(answer["run"])
        note(f"Look at it: ordinaut run show {answer['run']} --follow")
    return 0


def json_argument(text: str, where: str) -> Any:
    """The JSON value of an argument; one that is no JSON is a misuse."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"is not JSON: {error}", param_hint=where) from None


def command(name: str, verb: str, body: Mapping[str, Any]) -> int:
    """Pause, resume or snooze a task."""
    wanted = {field: value for field, value in body.items() if value is not None}
    with Client() as client:
        client.post(f"/v1/tasks/{segment(name)}/{verb}", wanted)
    past = {"pause": "paused", "resume": "resumed", "snooze": "snoozed"}[verb]
    say(f"{past} {name}")
    return 0


def snooze(name: str, until: str | None, reason: str | None) -> int:
    """`ordinaut task snooze`: `until` is an instant, a duration from now, or None for one occurrence."""
    return command(name, "snooze", {**_until(until), "reason": reason})


def _until(text: str | None) -> dict[str, str]:
    if text is None:
        return {}
    with suppress(ValueError, OverflowError):
        parse_duration(text)
        return {"for": text}
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither an ISO instant nor a duration such as 2h", param_hint="UNTIL"
        ) from None
    return {"until": at.astimezone().isoformat()}


def retire(name: str, *, yes: bool) -> int:
    """`ordinaut task retire`."""
    if not yes and sys.stdin.isatty() and not typer.confirm(f"Retire {name}?"):
        return 1
    with Client() as client:
        client.delete(f"/v1/tasks/{segment(name)}")
    say(f"retired {name}")
    return 0
