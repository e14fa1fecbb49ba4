"""`ordinaut task backfill` and `ordinaut backfill …` against a whole system."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartRole
from tests.support.clock import World, open_world, whole_second
from tests.support.commands import ordinaut
from tests.support.eventually import eventually
from tests.support.processes import ROOT, OrdinautProcess

KEY = "ord_cli_tests_0123456789abcdef0123456789"
MINUTE = timedelta(minutes=1)

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
async def start(database_url: str) -> AsyncIterator[datetime]:
    """The first of 6 instants of the task `tick`, of which only the latest has run."""
    async with open_world(database_url) as world:
        yield await an_outage(world)


async def an_outage(world: World) -> datetime:
    first = whole_second(world.system.time.now()) - 5 * MINUTE - MINUTE / 2
    await world.create("tick", {"every": "1m", "anchor": first.isoformat()}, at=first)
    await world.project()
    await world.fire_all()
    return first


@pytest.fixture
def env(start_role: StartRole) -> dict[str, str]:
    """How commands find the system; nobody carries out its runs yet."""
    roles = start_role("api", "projector", "clock", env={"ORDINAUT_API_KEY": KEY})
    return {"ORDINAUT_URL": roles.api, "ORDINAUT_API_KEY": KEY}


@pytest.fixture
def cli(env: dict[str, str]) -> Cli:
    return lambda *arguments: ordinaut(*arguments, env=env)


def result(answer: subprocess.CompletedProcess[str]) -> Any:
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_a_backfill_is_shown_begun_and_followed_to_its_end(
    cli: Cli, start: datetime, start_role: StartRole
) -> None:
    command = ("task", "backfill", "tick", "--from", start.isoformat())
    plan = cli(*command, "--dry-run")
    assert plan.returncode == 0
    assert plan.stdout.count("will run") == 5 and plan.stdout.count("left as it is") == 1
    assert "5 of 6 instants will run, oldest first." in plan.stderr
    assert "1 have a run already (--rerun runs them again)." in plan.stderr
    assert result(cli("backfill", "list", "--json")) == []
    assert len(result(cli(*command, "--dry-run", "--json"))["items"]) == 6

    start_role("worker")
    done = cli(*command, "--yes", "--max-parallel", "2", "--order", "newest", "--reason", "the disk was full")
    assert done.returncode == 0, done.stderr
    assert "5/5" in done.stderr and "5 succeeded" in done.stderr
    assert "tick  finished" in done.stdout and "5 planned, 5 requested, 5 succeeded" in done.stdout
    assert "the disk was full" in done.stdout and "newest first, 2 at once" in done.stdout
    (listed,) = result(cli("backfill", "list", "--task", "tick", "--state", "finished", "--json"))
    assert (listed["state"], listed["succeeded"]) == ("finished", 5)
    assert listed["id"] in cli("backfill", "list").stdout
    assert result(cli("backfill", "show", listed["id"], "--json")) == listed
    again = cli(*command, "--yes")
    assert again.returncode == 0 and "Nothing to run." in again.stderr

    (newest, *_) = result(cli("run", "list", "--task", "tick", "--json"))
    assert newest["cause"]["backfill"] == listed["id"]
    assert "backfill of what was missed" in cli("run", "list", "--task", "tick").stdout
    chain = result(cli("run", "why", newest["id"], "--json"))
    assert [event["type"] for event in chain] == ["RunRequested", "BackfillRequested"]
    told = cli("run", "why", newest["id"]).stdout
    assert (
        "a backfill of tick was asked for (the disk was full)" in told and "because  of the request" in told
    )


async def test_ctrl_c_leaves_a_backfill_running_and_says_how_to_stop_it(
    cli: Cli, env: dict[str, str], start: datetime, tmp_path: Path
) -> None:
    command = ["task", "backfill", "tick", "--from", start.isoformat(), "--yes"]
    following = OrdinautProcess(command, env, tmp_path / "follow.log").start()
    try:
        (one,) = await eventually(lambda: result(cli("backfill", "list", "--json")), timeout=30, every=0.2)
        following.send(signal.SIGINT)
        assert following.wait() == 0
        assert f"backfill stop {one['id']}" in following.output
    finally:
        following.kill()
    stopped = cli("backfill", "stop", one["id"], "--reason", "enough")
    assert stopped.returncode == 0 and stopped.stdout == f"stopped {one['id']}\n"
    assert "1 of its runs are under way and go on." in stopped.stderr
    shown = cli("backfill", "show", one["id"]).stdout
    assert "tick  stopped" in shown and "key:admin" in shown and ": enough" in shown
    (run,) = result(cli("run", "list", "--task", "tick", "--state", "queued", "--limit", "1", "--json"))
    assert cli("run", "cancel", run["id"]).returncode == 0


def test_where_somebody_sits_at_the_terminal_it_is_asked_first(
    cli: Cli, env: dict[str, str], start: datetime
) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"n\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ORDINAUT_")}
    answer = subprocess.run(
        [sys.executable, "-m", "ordinaut", "task", "backfill", "tick", "--from", start.isoformat()],
        cwd=ROOT, env=clean | env, stdin=theirs, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert answer.returncode == 1, answer.stderr
    assert "Run 5 instants of tick?" in answer.stdout and "Nothing was run." in answer.stderr
    assert result(cli("backfill", "list", "--json")) == []


def test_what_is_wrong_with_a_backfill_is_said(cli: Cli, start: datetime) -> None:
    assert cli("task", "backfill", "tick").returncode == 2
    misused = cli("task", "backfill", "tick", "--from", "yesterday")
    assert misused.returncode == 2 and "--from" in misused.stderr
    assert cli("task", "backfill", "tick", "--from", "2026-01-01", "--order", "random").returncode == 2
    assert cli("task", "backfill", "tick", "--from", "2026-01-01", "--max-parallel", "0").returncode == 2
    ahead = cli("task", "backfill", "tick", "--from", "2026-01-01", "--to", "2100-01-01")
    assert ahead.returncode == 1 and "/to" in ahead.stderr
    assert cli("backfill", "show", "nothing").returncode == 1
    assert cli("backfill", "stop", "nothing").returncode == 1
    assert start
