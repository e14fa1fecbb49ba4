"""The commands that talk to the API: apply, task, run, log, event."""

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ordinaut.cli.apply import NotApplied, carry_out, find_files, plan, read_items
from ordinaut.cli.client import Client, Unreachable
from tests.conftest import StartRole
from tests.support.commands import ordinaut
from tests.support.eventually import eventually
from tests.support.processes import OrdinautProcess

KEY = "ord_cli_tests_0123456789abcdef0123456789"

Cli = Callable[..., subprocess.CompletedProcess[str]]

ECHO = """\
name: echo
on: {stream: orders, where: "data.amount > `100`"}
pipeline:
  - id: say
    uses: debug.echo
    with: {text: "${input.text || 'nothing'}"}
"""

NIGHTLY = """\
# Every night.
name: nightly
schedule: {rrule: "FREQ=DAILY;BYHOUR=3"}
params: {city: Chisinau}
pipeline:
  - {id: say, uses: debug.echo, with: "${params.city}"}
"""


CHAIN = """\
name: first
pipeline: [{id: tell, uses: event.publish, with: {stream: done, data: 1}}]
---
name: second
on: {stream: done}
pipeline: [{id: say, uses: debug.echo}]
"""


@pytest.fixture
def api(start_role: StartRole) -> str:
    """The URL of a whole system of this test's own."""
    return start_role("api", "projector", "intake", "worker", env={"ORDINAUT_API_KEY": KEY}).api


@pytest.fixture
def cli(api: str) -> Cli:
    """Runs a command against it."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return ordinaut(*arguments, env={"ORDINAUT_URL": api, "ORDINAUT_API_KEY": KEY})

    return run


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two good definitions."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "echo.yaml").write_text(ECHO)
    (tmp_path / "tasks" / "nightly.yaml").write_text(NIGHTLY)
    return tmp_path / "tasks"


def names(cli: Cli) -> list[str]:
    return [task["name"] for task in result(cli("task", "list", "--json"))]


def result(answer: subprocess.CompletedProcess[str]) -> Any:
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_a_directory_with_bad_files_applies_none_and_names_every_place(cli: Cli, directory: Path) -> None:
    (directory / "bad.yaml").write_text(
        NIGHTLY.replace("nightly", "bad").replace("${params.city}", "${params.town}")
    )
    (directory / "broken.yaml").write_text("name: broken\npipeline: [")
    (directory / "tool.yaml").write_text(
        ECHO.replace("name: echo", "name: tool").replace("debug.echo", "debug.ecko")
    )
    (directory / "twice.yaml").write_text(ECHO)
    get = "name: get\npipeline:\n  - id: ask\n    uses: http.get\n    with:\n      ulr: https://example.org\n"
    (directory / "get.yaml").write_text(get)

    answer = cli("apply", "-f", str(directory))
    assert answer.returncode == 1
    said = answer.stderr.splitlines()
    assert any(f"{directory}/bad.yaml:6: /pipeline/0/with" in line for line in said), said
    assert any(f"{directory}/broken.yaml:2" in line for line in said), said
    assert any(f"{directory}/twice.yaml:1" in line and "twice" in line for line in said), said
    assert names(cli) == []

    # What only the server knows is checked before anything is sent, too.
    for name in ("bad", "broken", "twice"):
        (directory / f"{name}.yaml").unlink()
    answer = cli("apply", "-f", str(directory))
    assert answer.returncode == 1
    assert f"{directory}/tool.yaml:5: /pipeline/0/uses" in answer.stderr
    assert "debug.echo" in answer.stderr
    assert f"{directory}/get.yaml:6: /pipeline/0/with/ulr" in answer.stderr
    assert "did you mean 'url'?" in answer.stderr
    assert names(cli) == []


def test_apply_shows_a_plan_and_the_second_time_there_is_nothing_to_do(cli: Cli, directory: Path) -> None:
    assert "2 tasks would be applied" in cli("apply", "-f", str(directory), "--dry-run").stdout
    assert names(cli) == []

    assert "2 tasks applied" in cli("apply", "-f", str(directory)).stdout
    assert names(cli) == ["echo", "nightly"]
    assert "Nothing to do" in cli("apply", "-f", str(directory)).stdout

    (directory / "nightly.yaml").write_text(NIGHTLY.replace("Chisinau", "Tallinn"))
    changed = cli("apply", "-f", str(directory / "nightly.yaml")).stdout.splitlines()
    assert [line.strip() for line in changed[1:4]] == ["/params/city", '- "Chisinau"', '+ "Tallinn"']
    assert result(cli("task", "show", "nightly", "--json"))["params"] == {"city": "Tallinn"}


def test_a_single_instant_in_the_past_is_applied_only_where_all_is_caught_up_with(
    cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "late.yaml"
    file.write_text(re.sub("on: .*", "schedule:\n  once: 2020-02-03T08:00:00Z", ECHO, count=1))
    refused = cli("apply", "-f", str(file))
    assert refused.returncode == 1
    assert ":3: /schedule/once: " in refused.stderr and "is in the past" in refused.stderr
    assert "policy.catch_up: {all: {}}" in refused.stderr
    assert names(cli) == []
    file.write_text(f"{file.read_text()}policy:\n  catch_up: all\n")
    assert "1 task applied" in cli("apply", "-f", str(file)).stdout
    assert result(cli("task", "show", "echo", "--json"))["next_fire_at"] == "2020-02-03T08:00:00+00:00"


def test_tasks_are_run_paused_snoozed_and_retired(cli: Cli, directory: Path) -> None:
    cli("apply", "-f", str(directory))
    run = result(cli("task", "run", "echo", "--input", '{"text": "hi"}', "--follow", "--json"))
    assert (run["state"], run["output"]) == ("succeeded", {"text": "hi"})

    shown = cli("run", "show", run["id"]).stdout
    assert "say" in shown and "succeeded" in shown
    assert [each["id"] for each in result(cli("run", "list", "--task", "echo", "--json"))] == [run["id"]]

    assert cli("task", "pause", "nightly", "--reason", "holidays").returncode == 0
    assert result(cli("task", "show", "nightly", "--json"))["status"] == "paused"
    assert cli("task", "resume", "nightly").returncode == 0
    assert cli("task", "snooze", "nightly", "2h").returncode == 0
    assert result(cli("task", "show", "nightly", "--json"))["snoozed_until"]
    assert cli("task", "retire", "nightly").returncode == 0
    assert names(cli) == ["echo"]


def test_a_task_is_paused_until_an_instant_and_says_so(cli: Cli, directory: Path) -> None:
    cli("apply", "-f", str(directory))
    assert (
        cli("task", "pause", "nightly", "--reason", "holidays", "--until", "2h").stdout == "paused nightly\n"
    )
    shown = cli("task", "show", "nightly").stdout
    assert "paused    until " in shown and "(in " in shown and "holidays" in shown
    paused = result(cli("task", "pause", "nightly", "--until", "2100-01-01T00:00:00Z", "--json"))
    assert (paused["paused_until"], paused["paused_reason"]) == ("2100-01-01T00:00:00+00:00", "holidays")
    past = cli("task", "pause", "nightly", "--until", "2020-01-01T00:00:00Z")
    assert past.returncode == 1 and "/until" in past.stderr
    assert cli("task", "pause", "nightly", "--until", "soon").returncode == 2
    assert cli("task", "resume", "nightly", "--reason", "back early").returncode == 0
    assert result(cli("task", "show", "nightly", "--json"))["paused_until"] is None


def test_tasks_are_paused_and_resumed_by_label(cli: Cli, tmp_path: Path) -> None:
    for name, team in (("a", "billing"), ("b", "billing"), ("c", "ops")):
        labelled = NIGHTLY.replace("name: nightly", f"name: {name}\nlabels: {{team: {team}}}")
        (tmp_path / f"{name}.yaml").write_text(labelled)
    cli("apply", "-f", str(tmp_path))
    cli("task", "pause", "b", "--reason", "audit")
    paused = cli("task", "pause", "--label", "team=billing", "--reason", "audit")
    assert paused.stdout == "paused a\n" and "b is paused already" in paused.stderr
    resumed = result(cli("task", "resume", "--label", "team=billing", "--json"))
    assert resumed == {"changed": ["a", "b"], "already": []}
    assert "No task has these labels" in cli("task", "pause", "--label", "team=none").stderr
    for wrong in ([], ["a", "--label", "team=billing"], ["--label", "billing"]):
        for verb in ("pause", "resume"):
            assert cli("task", verb, *wrong).returncode == 2, wrong
    twice = cli("task", "pause", "--label", "team=billing", "--label", "team=ops")
    assert twice.returncode == 2 and "two values" in twice.stderr


def test_a_published_event_runs_what_listens_and_is_in_the_log(cli: Cli, directory: Path) -> None:
    cli("apply", "-f", str(directory))
    event = result(cli("event", "publish", "orders", '{"amount": 120}', "--json"))
    assert len(event["runs"]) == 1
    assert result(cli("run", "show", event["runs"][0], "--follow", "--json"))["state"] == "succeeded"
    types = [
        each["type"] for each in result(cli("log", "list", "--stream", f"run-{event['runs'][0]}", "--json"))
    ]
    assert (types[0], types[-1]) == ("RunRequested", "RunSucceeded")


def test_a_run_can_be_traced_back_to_what_began_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "chain.yaml").write_text(CHAIN)
    cli("apply", "-f", str(tmp_path))
    first = result(cli("task", "run", "first", "--follow", "--json"))
    (second,) = first["output"]["runs"]
    chain = result(cli("run", "why", second, "--json"))
    assert [event["type"] for event in chain] == [
        "RunRequested",
        "EventReceived",
        "RunStarted",
        "RunRequested",
    ]
    assert chain[-1]["stream"] == f"run-{first['id']}" and chain[-1]["causation"].startswith("request:")
    told = cli("run", "why", second)
    assert "second was asked to run" in told.stdout
    assert f"because  of the {chain[-1]['causation'].replace(':', ' ')}" in told.stdout.splitlines()
    assert f"log list --correlation {first['correlation']}" in told.stderr

    shown = cli("run", "show", second)
    assert first["correlation"] in shown.stdout
    assert f"run why {second}" in shown.stderr
    assert (cli("run", "why", "nothing").returncode, cli("run", "why", "nothing").stdout) == (1, "")


def test_the_log_is_listed_from_either_end(cli: Cli, directory: Path) -> None:
    cli("apply", "-f", str(directory))
    oldest, newest = result(cli("log", "list", "--json")), result(cli("log", "list", "--newest", "--json"))
    assert newest == oldest[::-1] and len(newest) > 1
    assert result(cli("log", "list", "--newest", "--limit", "1", "--json")) == oldest[-1:]
    assert result(cli("log", "list", "--since", "2099-01-01", "--json")) == []
    assert result(cli("log", "list", "--until", "2099-01-01T08:30:00Z", "--json")) == oldest


def test_what_is_wrong_with_an_option_is_said_of_the_option(cli: Cli) -> None:
    misused = cli("log", "list", "--since", "yesterday")
    assert misused.returncode == 2
    assert "--since" in misused.stderr and "%2B" not in misused.stderr
    refused = cli("run", "list", "--state", "happy")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: --state: 'happy' is not known")


def test_a_task_is_shown_with_its_trigger_its_policy_and_what_is_ahead(cli: Cli, directory: Path) -> None:
    cli("apply", "-f", str(directory))
    echo, nightly = cli("task", "show", "echo").stdout, cli("task", "show", "nightly").stdout
    assert "where     data.amount > `100`" in echo
    assert "overlap skip" in echo and "priority 5" in echo
    ahead = [line for line in nightly.splitlines() if " (in " in line]
    assert len(ahead) == 3 and ahead[0].strip().startswith("next")

    cli("task", "snooze", "nightly", "30h")
    assert "to be skipped: snoozed" in cli("task", "show", "nightly").stdout
    cli("task", "pause", "nightly", "--reason", "holidays")
    paused = cli("task", "show", "nightly").stdout
    assert "paused    until it is resumed: holidays" in paused
    assert " (in " not in paused and " in " not in cli("task", "list").stdout


async def test_the_log_is_followed_live(cli: Cli, directory: Path, tmp_path: Path, api: str) -> None:
    cli("apply", "-f", str(directory))
    env = {"ORDINAUT_URL": api, "ORDINAUT_API_KEY": KEY}
    command = ["log", "follow", "--type", "EventReceived", "--type", "RunSucceeded", "--json"]
    follower = OrdinautProcess(command, env, tmp_path / "follow.log").start()
    try:

        def both() -> bool:
            # Published again until the follower is there to see it.
            cli("event", "publish", "orders", '{"amount": 120}')
            return {"EventReceived", "RunSucceeded"} <= {
                json.loads(line)["type"] for line in follower.output.splitlines()
            }

        await eventually(both, timeout=30, every=0.2)
        follower.send(signal.SIGINT)
        assert follower.wait() == 0
    finally:
        follower.kill()


def test_when_applying_fails_half_way_it_is_said_what_was_applied(
    cli: Cli, directory: Path, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Client.put

    def failing(self: Client, path: str, body: Any, **query: Any) -> Any:
        if path.endswith("/nightly"):
            raise Unreachable("the cable was pulled")
        return put(self, path, body, **query)

    with Client(api, KEY) as client:
        changes = plan(client, read_items(find_files([directory])))
        monkeypatch.setattr(Client, "put", failing)
        with pytest.raises(NotApplied, match=r"cable was pulled. Applied: echo. Not applied: nightly"):
            carry_out(client, changes)
    assert names(cli) == ["echo"]


def test_the_tools_are_listed_with_their_schemas(cli: Cli) -> None:
    tools = {tool["name"]: tool for tool in result(cli("tool", "list", "--json"))}
    assert tools["event.publish"]["input_schema"]["required"] == ["stream"]
    assert tools["event.publish"]["output_schema"]["required"] == ["id", "runs"]
    assert "stream, data?" in cli("tool", "list").stdout


def test_what_is_not_there_is_named_on_stderr(cli: Cli) -> None:
    answer = cli("task", "show", "nobody")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "nobody" in answer.stderr


def test_webhooks_are_set_listed_and_removed(cli: Cli) -> None:
    shown = cli("hook", "set", "github", "--kind", "github", "--stream", "code", "--secret", "nowhere")
    assert shown.returncode == 1 and "/secrets/0" in shown.stderr
    assert cli("hook", "list").stderr == "There are no webhooks.\n"
    assert result(cli("hook", "list", "--json")) == []
    assert cli("hook", "remove", "github").returncode == 1
    assert cli("hook", "set", "x", "--kind", "gitlab", "--stream", "s", "--secret", "n").returncode == 2
