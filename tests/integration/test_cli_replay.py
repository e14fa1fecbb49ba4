"""`ordinaut stream replay` and `ordinaut trigger test` against a whole system."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.conftest import StartRole
from tests.support.commands import ordinaut
from tests.support.processes import ROOT

KEY = "ord_cli_tests_0123456789abcdef0123456789"
TASK = """
name: ship
on: {stream: "orders.*", where: "data.amount > `100`", input: {n: "${data.amount}"}}
pipeline: [{id: say, uses: debug.echo}]
"""

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def env(start_role: StartRole) -> dict[str, str]:
    roles = start_role("api", "projector", "clock", env={"ORDINAUT_API_KEY": KEY})
    return {"ORDINAUT_URL": roles.api, "ORDINAUT_API_KEY": KEY}


@pytest.fixture
def cli(env: dict[str, str]) -> Cli:
    return lambda *arguments: ordinaut(*arguments, env=env)


@pytest.fixture
def entries(redis_url: str, cli: Cli, tmp_path: Any) -> list[str]:
    """Four entries, two of which the task matches that was made behind them."""
    client = redis.Redis.from_url(redis_url)
    added = [
        client.xadd("orders.eu", {"data": data})
        for data in ("{", *(f'{{"amount": {n}}}' for n in (1, 200, 300)))
    ]
    (tmp_path / "ship.yaml").write_text(TASK)
    assert cli("apply", "-f", str(tmp_path / "ship.yaml"), "--yes").returncode == 0
    return [one.decode() for one in added]


def test_a_replay_is_shown_begun_and_followed_to_its_end(
    cli: Cli, entries: list[str], start_role: StartRole
) -> None:
    command = ("stream", "replay", "orders.eu", "--task", "ship")
    plan = cli(*command, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert plan.stdout.count("will run") == 2 and plan.stdout.count("left as it is") == 2
    assert '{"n": 200}' in plan.stdout and entries[2] in plan.stdout
    assert "2 of 4 entries will run, oldest first." in plan.stderr
    assert "1 do not match the trigger." in plan.stderr
    assert "1 cannot be read, or the trigger fails on them." in plan.stderr
    part = cli(*command, "--from", entries[3], "--to", entries[3], "--dry-run", "--json")
    assert [one["id"] for one in json.loads(part.stdout)["items"]] == [entries[3]]

    start_role("worker")
    done = cli(*command, "--yes", "--max-parallel", "2", "--order", "newest", "--reason", "it was forgotten")
    assert done.returncode == 0, done.stderr
    assert "2/2" in done.stderr and "ship  finished" in done.stdout
    assert f"entries of orders.eu, {entries[0]} to {entries[3]}, newest first" in done.stdout
    assert "it was forgotten" in done.stdout
    listed = cli("backfill", "list")
    assert "entries of orders.eu" in listed.stdout and entries[3] in listed.stdout
    runs = json.loads(cli("run", "list", "--task", "ship", "--json").stdout)
    assert f"replay of orders.eu {entries[2]}" in cli("run", "show", runs[0]["id"]).stdout
    why = cli("run", "why", runs[0]["id"])
    assert "a replay of orders.eu for ship was asked for (it was forgotten)" in why.stdout
    again = cli(*command, "--yes")
    assert again.returncode == 0 and "Nothing to run." in again.stderr
    assert "2 have a run already (--rerun runs them again)." in again.stderr


def test_somebody_at_a_terminal_is_asked_first(env: dict[str, str], cli: Cli, entries: list[str]) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ordinaut", "stream", "replay", "orders.eu", "--task", "ship"]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **env}, stdin=theirs, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.write(ours, b"n\n")
    shown, told = process.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 1
    assert "Run 2 entries of ship?" in shown + told and "Nothing was run." in told
    assert json.loads(cli("backfill", "list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere", "--task", "ship"), 1, "does not listen to 'nowhere'"),
        (("orders.us", "--task", "ship"), 1, "there is no stream 'orders.us' in Redis"),
        (("orders.eu", "--task", "shop"), 1, "there is no task"),
        (("orders.eu", "--task", "ship", "--from", "x"), 1, "/from: 'x' is not the id of an entry"),
        (("orders.eu", "--task", "ship", "--from", "2-0", "--to", "1-0"), 1, "/from: comes behind `to`"),
        (("orders.eu", "--task", "ship", "--log"), 1, "the log has no event of the stream"),
        (("orders.eu",), 2, "Missing option '--task'"),
        (("orders.eu", "--task", "ship", "--max-parallel", "0"), 2, "max-parallel"),
    ],
)
def test_what_cannot_be_replayed_is_named(
    cli: Cli, entries: list[str], arguments: tuple[str, ...], code: int, words: str
) -> None:
    answer = cli("stream", "replay", *arguments)
    assert (answer.returncode, words in answer.stderr) == (code, True), answer.stderr


def test_a_changed_trigger_is_tried_before_it_is_applied(cli: Cli, entries: list[str], tmp_path: Any) -> None:
    changed = tmp_path / "changed.yaml"
    changed.write_text(TASK.replace("> `100`", "< `250`"))
    command = ("trigger", "test", "-f", str(changed), "--against", "orders.eu")
    shown = cli(*command, "--last", "1000")
    assert shown.returncode == 0, shown.stderr
    for entry, *words in (
        (entries[0], "error", "not JSON"),
        (entries[1], "match", "newly", '{"n": 1}'),
        (entries[2], "match", '{"n": 200}'),
        (entries[3], "no match", "no longer"),
    ):
        line = next(line for line in shown.stdout.splitlines() if line.startswith(entry))
        assert all(word in line for word in words), line
    assert "2 of 4 entries would start a run of ship, 1 do not match, 1 are errors." in shown.stderr
    assert "version 1, which is in force: 1 newly, 1 no longer, 0 with another input." in shown.stderr
    part = cli(*command, "--from", entries[1], "--to", entries[1], "--json")
    assert json.loads(part.stdout)["counts"]["entries"] == 1
    assert "… and 2 more" in cli(*command, "--limit", "2").stderr
    assert json.loads(cli("run", "list", "--json").stdout) == []
    changed.write_text(TASK.replace("name: ship", "name: new"))
    assert "There is no task new yet" in cli(*command).stderr


def test_faults_of_a_trigger_are_named_with_file_and_line(
    cli: Cli, entries: list[str], tmp_path: Any
) -> None:
    file = tmp_path / "bad.yaml"
    command = ("trigger", "test", "-f", str(file), "--against", "orders.eu")
    for text, words in (
        (TASK.replace("> `100`", ">"), f"{file}:3: /on/where"),
        (TASK.replace("debug.echo", "debug.eco"), f"{file}:4: /pipeline/0/uses"),
        ("name: [", f"{file}:"),
        (TASK + "---" + TASK.replace("ship", "other"), "defines 2 tasks (ship, other)"),
        (TASK.replace("orders.*", "shop"), "/stream: the task 'ship' does not listen to 'orders.eu'"),
    ):
        file.write_text(text)
        answer = cli(*command)
        assert (answer.returncode, words in answer.stderr) == (1, True), answer.stderr
    file.write_text(TASK)
    assert cli("trigger", "test", "-f", str(tmp_path / "none.yaml"), "--against", "x").returncode == 2
    assert "Looked at orders.*" in cli("trigger", "test", "-f", str(file)).stderr
    unnamed = cli("stream", "replay", "--task", "ship")
    assert unnamed.returncode == 1 and "listens to many streams, 'orders.*'" in unnamed.stderr
    assert "leave one out" in cli(*command, "--last", "5", "--from", "1-0").stderr


COLLECTING = """
name: bill
on:
  key: "${data.order}"
  sequence:
    within: 1m
    events:
      - {name: placed, stream: orders.eu, input: "${data.amount}"}
      - {name: paid, stream: payments, where: "data.paid", input: "${id}"}
pipeline: [{id: say, uses: debug.echo}]
"""


def test_the_windows_of_a_trigger_are_shown_with_the_runs_that_come_of_them(
    cli: Cli, entries: list[str], redis_url: str, tmp_path: Any
) -> None:
    client = redis.Redis.from_url(redis_url)
    begin = 1_770_000_000_000
    for stream, second, data in (
        ("baskets", 0, {"order": "a", "amount": 5}),
        ("baskets", 1, {"order": "b", "amount": 7}),
        ("payments", 4, {"order": "a", "paid": True}),
        ("payments", 5, {"order": "b", "paid": False}),
        ("payments", 6, {"paid": True}),
    ):
        client.xadd(stream, {"data": json.dumps(data)}, id=f"{begin + second * 1000}-0")
    file = tmp_path / "collecting.yaml"
    file.write_text(COLLECTING.replace("orders.eu", "baskets"))
    shown = cli("trigger", "test", "-f", str(file))
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    header, first, paid, second, _, failed = (line.split() for line in lines)
    assert header == ["KEY", "FROM", "TO", "HELD", "ENDED", "RUN", "OF", "INPUT", "LEFT", "OUT"]
    assert first[0] == "a" and "complete" in first and second[0] == "b"
    assert f"placed baskets {begin}-0" in lines[1] and paid == ["paid", "payments", f"{begin + 4000}-0"]
    assert f'{{"placed": 5, "paid": "{begin + 4000}-0"}}' in lines[1]
    assert "1 incomplete" in lines[3]
    assert failed[:3] == ["payments", f"{begin + 6000}-0", "error"]
    assert "Looked at baskets and payments" in shown.stderr
    assert "3 of 5 entries would be collected by bill, 1 do not match, 1 are errors." in shown.stderr
    assert "2 windows would have ended and 0 would be open: 1 run, 1 entry left out." in shown.stderr
    file.write_text(file.read_text().replace("name: bill", "name: ship"))
    assert "0 with another input; 1 run instead of 0." in cli("trigger", "test", "-f", str(file)).stderr
    found = json.loads(cli("trigger", "test", "-f", str(file), "--json").stdout)
    assert [one["reason"] for one in found["windows"]["items"]] == ["complete", "incomplete"]
    assert json.loads(cli("window", "list", "--json").stdout) == []


def test_a_trigger_on_events_of_the_log_is_tried_and_replayed_without_a_stream(
    cli: Cli, entries: list[str], start_role: StartRole, tmp_path: Any
) -> None:
    file = tmp_path / "notice.yaml"
    file.write_text(
        "name: notice\non: {event: TaskCreated, input: {task: '${data.task}'}}\n"
        "pipeline: [{id: say, uses: debug.echo}]\n"
    )
    shown = cli("trigger", "test", "-f", str(file))
    assert '{"task": "ship"}' in shown.stdout and "Looked at TaskCreated" in shown.stderr
    assert cli("apply", "-f", str(file), "--yes").returncode == 0
    start_role("worker")
    done = cli("stream", "replay", "--task", "notice", "--yes")
    assert done.returncode == 0, done.stderr
    assert "TaskCreated in the log" in done.stdout and "notice  finished" in done.stdout
    (run,) = json.loads(cli("run", "list", "--task", "notice", "--json").stdout)
    assert "replay of TaskCreated" in cli("run", "show", run["id"]).stdout
    assert "a replay of TaskCreated for notice was asked for" in cli("run", "why", run["id"]).stdout
    refused = cli("stream", "replay", "orders", "--task", "notice")
    assert refused.returncode == 1 and "it listens to 'TaskCreated'" in refused.stderr
