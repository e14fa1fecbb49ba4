"""`ordinaut task …` over HTTP."""

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import typer
from rich.markup import escape

from ordinaut.cli.client import Client, segment
from ordinaut.cli.output import ago, brief, instant, note, out, print_json, say, state, table
from ordinaut.cli.program import program
from ordinaut.cli.runs import follow as follow_run
from ordinaut.domain.schedules.spec import trigger_of
from ordinaut.domain.trigger import LOG, PATTERNS, SEVERAL, sources_of


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
                escape(_halted(task) or ago(task["next_fire_at"], now)), escape(task["title"] or ""),
            )
            for task in found
        ],
        empty=f"No tasks. Apply one: {program()} apply -f FILE",
    )  # fmt: skip
    return 0


def _status(task: Mapping[str, Any]) -> str:
    return state(_halted(task) or task["status"])


def _halted(task: Mapping[str, Any]) -> str:
    """`paused` or `snoozed` when the task does not fire at the moment, else ""."""
    if task["status"] == "paused":
        return "paused"
    until = task["snoozed_until"] if task["status"] == "active" else None
    return "snoozed" if until and datetime.fromisoformat(until) > datetime.now(UTC) else ""


def when(schedule: Any) -> str:
    """A schedule in a few words."""
    if schedule is None:
        return "by hand"
    if isinstance(schedule, list):
        return " | ".join(map(when, schedule))
    if "on" in schedule:
        return _heard(schedule["on"])
    for kind in ("cron", "rrule", "once", "every"):
        if kind in schedule:
            zone = "" if kind == "every" else f" {schedule['timezone']}"
            limits = "".join(
                f" {word} {schedule[name]}"
                for name, word in (("start", "from"), ("end", "until"))
                if name in schedule
            )
            excluded = " (with exclusions)" if "exclude" in schedule else ""
            return f"{kind} {schedule[kind]}{zone}{limits}{excluded}"
    return "?"


def _heard(on: Mapping[str, Any]) -> str:
    """What a task listens to: `on orders`, or `sequence of orders, payments`."""
    sources = [source.removeprefix(LOG) for source in dict.fromkeys(sources_of(on).values())]
    kind = next((name for name in PATTERNS if name in on), None)
    return f"on {sources[0]}" if kind not in SEVERAL else f"{kind} of {', '.join(sources)}"


POLICY = ("priority", "timeout", "max_attempts", "concurrency", "catch_up", "overlap", "jitter")

SHOWN_INSTANTS = 3
"""How many of the instants ahead `task show` tells."""


def show(name: str, *, as_json: bool) -> int:
    """`ordinaut task show`."""
    with Client() as client:
        task = client.get(f"/v1/tasks/{segment(name)}")
        ahead = [] if as_json else _ahead(client, task)
    if as_json:
        print_json(task)
        return 0
    console = out()
    console.print(f"[bold]{escape(task['name'])}[/]  {_status(task)}  [dim]version {task['version']}[/]")
    for label, value in _facts(task, ahead):
        console.print(f"  {label:<9} {value}")
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


def _ahead(client: Client, task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The next instants of the task's schedule, while it is not paused; those a snooze will skip, too."""
    if task["next_fire_at"] is None or task["status"] != "active":
        return []
    path = f"/v1/tasks/{segment(task['id'])}/occurrences"
    found = client.get(path, **{"from": task["next_fire_at"], "limit": SHOWN_INSTANTS})["items"]
    return [each for each in found if each["verdict"] == "expected"]


def _facts(task: Mapping[str, Any], ahead: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """What `task show` says above the steps: labels and markup."""
    if task["title"]:
        yield "title", escape(task["title"])
    yield "id", task["id"]
    if task["labels"]:
        yield "labels", _pairs(task["labels"])
    yield "schedule", escape(when(task["schedule"]))
    trigger = trigger_of(task["schedule"]) or {}
    for field in ("where", "input"):
        if trigger.get(field) is not None:
            yield field, brief(trigger[field], 500)
    if task["status"] == "paused":
        reason = task["paused_reason"]
        end = task["paused_until"]
        until = f"until {instant(end)} ({ago(end)})" if end else "until it is resumed"
        yield "paused", until + (f": {escape(reason)}" if reason else "")
    elif _halted(task):
        yield "snoozed", f"until {instant(task['snoozed_until'])} ({ago(task['snoozed_until'])})"
    for number, each in enumerate(ahead):
        skipped = f"  [yellow]to be skipped: {escape(each['reason'])}[/]" if each["reason"] else ""
        told = f"{instant(each['at'])} ({ago(each['at'])}){skipped}"
        yield "" if number else "next", told + (f"  {escape(each['note'])}" if each["note"] else "")
    if task["params"]:
        yield "params", brief(task["params"], 500)
    # JSON objects come in the order the database likes.
    yield (
        "policy",
        _pairs({name: value for name in POLICY if (value := task["policy"].get(name)) is not None}),
    )


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{escape(name)} {brief(value)}" for name, value in values.items())


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
        note(f"Look at it: {program()} run show {answer['run']} --follow")
    return 0


def json_argument(text: str, where: str) -> Any:
    """The JSON value of an argument; one that is no JSON is a misuse."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"is not JSON: {error}", param_hint=where) from None


def retire(name: str, *, yes: bool) -> int:
    """`ordinaut task retire`."""
    if not yes and sys.stdin.isatty() and not typer.confirm(f"Retire {name}?"):
        return 1
    with Client() as client:
        client.delete(f"/v1/tasks/{segment(name)}")
    say(f"retired {name}")
    return 0
