"""`ordinaut run …` over HTTP."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from shlex import quote
from typing import Any

from rich.markup import escape

from ordinaut.cli.client import Client, segment
from ordinaut.cli.output import (
    ago,
    brief,
    cause,
    instant,
    note,
    out,
    print_json,
    say,
    seconds_between,
    state,
    table,
)
from ordinaut.cli.program import program
from ordinaut.domain.run import ENDED

LOOK_SECONDS = 0.3
"""How often a run that is followed is looked at."""


def list_runs(task: str | None, states: Sequence[str], limit: int, *, as_json: bool) -> int:
    """`ordinaut run list`."""
    with Client() as client:
        found = list(client.items("/v1/runs", limit, task=task, state=",".join(states) or None))
    if as_json:
        print_json(found)
        return 0
    now = datetime.now(UTC)
    table(
        ("id", "task", "state", "attempt", "cause", "requested", "took", "error"),
        [
            (
                run["id"], escape(run["task"]), state(run["state"]), str(run["attempt"]), cause(run["cause"]),
                ago(run["requested_at"], now), seconds_between(run["started_at"], run["finished_at"]),
                brief(run["error"], 60),
            )
            for run in found
        ],
        empty="No runs.",
    )  # fmt: skip
    return 0


def show(run_id: str, *, follow: bool, as_json: bool) -> int:
    """`ordinaut run show`."""
    with Client() as client:
        if follow:
            return _follow(client, run_id, as_json)
        _print(client.get(_path(run_id)), as_json)
    return 0


def follow(client: Client, run_id: str, *, as_json: bool) -> int:
    """Wait for a run's end and print it; 1 unless it succeeded."""
    return _follow(client, run_id, as_json)


def _follow(client: Client, run_id: str, as_json: bool) -> int:
    told: set[tuple[str, str, int]] = set()
    before = ""
    while True:
        run = client.get(_path(run_id))
        if not as_json:
            if run["state"] != before:
                before = run["state"]
                note(f"run {run['state']}")
            for step in run["steps"]:
                key = (step["id"], step["state"], step["attempt"])
                if key not in told:
                    told.add(key)
                    note(f"  {step['id']} {step['state']} (attempt {step['attempt']})")
        if run["state"] in ENDED:
            _print(run, as_json)
            return 0 if run["state"] == "succeeded" else 1
        time.sleep(LOOK_SECONDS)


def command(run_id: str, verb: str, body: Mapping[str, Any]) -> int:
    """Cancel or retry a run."""
    wanted = {field: value for field, value in body.items() if value is not None}
    with Client() as client:
        client.post(f"{_path(run_id)}/{verb}", wanted)
    say({"cancel": f"canceled {run_id}", "retry": f"{run_id} will be tried again"}[verb])
    return 0


def _path(run_id: str) -> str:
    return f"/v1/runs/{segment(run_id)}"


def _print(run: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(run)
        return
    console = out()
    which = f"attempt {run['attempt']}  {run['id']}"
    console.print(f"[bold]{escape(run['task'])}[/]  {state(run['state'])}  [dim]{which}[/]")
    facts = {
        "cause": cause(run["cause"]) + (f", due {instant(at)}" if (at := run["cause"].get("at")) else ""),
        "correlation": escape(run["correlation"]),
        "requested": instant(run["requested_at"]),
        "started": instant(run["started_at"]),
        "put off to": instant(run["run_at"]) if run["state"] == "queued" else "",
        "due again": instant(run["run_at"]) if run["state"] == "waiting" else "",
        "took": seconds_between(run["started_at"], run["finished_at"]),
        "input": brief(run["input"], 300),
        "output": brief(run["output"], 300),
        "error": brief(run["error"], 1000),
    }
    for label, value in facts.items():
        if value:
            console.print(f"  {label:<11} {value}")
    console.print()
    table(
        ("step", "state", "attempt", "took", "output", "error"),
        [
            (
                escape(step["id"]), state(step["state"]), str(step["attempt"]),
                seconds_between(step["started_at"], step["finished_at"]), brief(step["output"], 80),
                brief(step["error"], 200),
            )
            for step in run["steps"]
        ],
        empty="No step has ended yet.",
    )  # fmt: skip
    note(f"Why it ran: {program()} run why {run['id']}")
    note(f"All that belongs to it: {program()} log list --correlation {quote(run['correlation'])}")
