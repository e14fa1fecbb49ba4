"""`ordinaut stream dead …` over HTTP."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape

from ordinaut.cli.client import Client, segment
from ordinaut.cli.output import ago, brief, instant, note, out, print_json, say, state, table


def list_letters(wanted: str, stream: str | None, task: str | None, limit: int, *, as_json: bool) -> int:
    """`ordinaut stream dead ls`."""
    with Client() as client:
        found = list(client.items("/v1/dead-letters", limit, state=wanted, stream=stream, task=task))
    if as_json:
        print_json(found)
        return 0
    now = datetime.now(UTC)
    table(
        ("letter", "state", "stream", "id", "task", "rejected", "reason"),
        [
            (
                one["id"], state(one["state"]), escape(one["cause"]["stream"]), escape(one["cause"]["id"]),
                escape(one["task"] or ""), ago(one["rejected_at"], now), brief(one["reason"]),
            )
            for one in found
        ],
        empty="No dead letters.",
    )  # fmt: skip
    return 0


def show(letter: str, *, as_json: bool) -> int:
    """`ordinaut stream dead show`."""
    with Client() as client:
        found = client.get(_path(letter))
    _print(found, as_json=as_json)
    return 0


def requeue(letter: str, reason: str, *, as_json: bool) -> int:
    """`ordinaut stream dead requeue`: 1 when it was rejected again."""
    with Client() as client:
        found = client.post(f"{_path(letter)}/requeue", {"reason": reason})
    if as_json:
        print_json(found)
    elif found["state"] == "dead":
        note(f"It was rejected again: {found['reason']}")
    elif found["runs"]:
        say(f"requeued {found['id']}: {', '.join(found['runs'])}")
    else:
        say(f"requeued {found['id']}: no task wanted a run for it")
    return 1 if found["state"] == "dead" else 0


def drop(letter: str, reason: str) -> int:
    """`ordinaut stream dead drop`."""
    with Client() as client:
        found = client.delete(_path(letter), reason=reason)
    say(f"dropped {found['id']}")
    return 0


def _path(letter: str) -> str:
    return f"/v1/dead-letters/{segment(letter)}"


def _print(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    console = out()
    cause, history = found["cause"], found["history"]
    console.print(f"[bold]{escape(cause['stream'])} {cause['id']}[/]  {state(found['state'])}  {found['id']}")
    times = "" if found["rejections"] == 1 else f", {found['rejections']} times"
    facts = {
        "reason": found["reason"],
        "rejected": f"{instant(found['rejected_at'])}{times}",
        "task": found["task"] or "",
        "history": ""
        if history is None
        else f"delivered {history['deliveries']} times, last to {history['last_consumer']}",
        found["state"]: f"{found['decided_by']}, {instant(found['decided_at'])}: {found['decision_reason']}"
        if found["decided_by"] and found["state"] != "dead"
        else "",
        "runs": ", ".join(found["runs"]),
    }
    for label, value in facts.items():
        if value:
            console.print(f"  {label:<9} {escape(value)}")
    for name, value in (found["entry"] or {}).items():
        console.print(f"  [dim]{escape(name)}[/] {escape(value)}")
    if found["shortened"]:
        console.print("  [dim](shortened: the log does not hold the entry whole)[/]")
