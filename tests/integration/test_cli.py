"""The command line as a person or a script meets it: what it prints, where, and with which exit code."""

import asyncio
import json
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from ordinaut.cli import serve
from ordinaut.runtime.settings import load_settings
from ordinaut.runtime.system import System, open_system
from tests.conftest import StartRole
from tests.support.commands import ordinaut
from tests.support.eventually import eventually
from tests.support.processes import OrdinautProcess, free_port
from tests.support.servers import blocking, execute


def preview(*arguments: str) -> subprocess.CompletedProcess[str]:
    return ordinaut("schedule", "preview", *arguments)


def test_preview_prints_instants_with_their_offset_across_a_clock_change() -> None:
    asked = ("--cron", "30 8 * * 1-5", "--timezone", "Europe/Chisinau", "--after", "2026-03-27T06:30:00Z")
    answer = preview(*asked, "--count", "2", "--json")
    assert answer.returncode == 0
    assert json.loads(answer.stdout) == ["2026-03-30T08:30:00+03:00", "2026-03-31T08:30:00+03:00"]


def test_preview_notes_a_local_time_that_does_not_exist() -> None:
    asked = ("--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "--after", "2026-03-28T12:00:00Z")
    answer = preview(*asked, "--count", "1")
    assert "02:30 does not exist" in answer.stdout


def test_preview_is_a_table_of_local_time_utc_and_note() -> None:
    asked = (
        "--cron",
        "15,45 1 * * *",
        "--timezone",
        "Australia/Lord_Howe",
        "--after",
        "2024-04-06T00:00:00Z",
    )
    answer = preview(*asked, "--count", "2")
    assert [line.rstrip() for line in answer.stdout.splitlines()] == [
        "LOCAL TIME                     UTC                  NOTE",
        "Sun 2024-04-07 01:15:00 +1100  2024-04-06 14:15:00",
        "Sun 2024-04-07 01:45:00 +1100  2024-04-06 14:45:00  clocks go back: the first 01:45, not the second",
    ]


def test_preview_shows_a_calendar_without_a_terminal_and_without_a_server() -> None:
    asked = ("--cron", "30 8 * * 1", "--timezone", "Europe/Berlin", "--after", "2026-03-26T00:00:00Z")
    answer = preview(*asked, "--count", "2", "--calendar")
    assert answer.returncode == 0
    lines = [line.split() for line in answer.stdout.splitlines() if line.split()]
    assert lines[:2] == [["March", "2026"], ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"]]
    assert lines[lines.index(["30", "31"]) + 1] == ["08:30"]
    assert ["April", "2026"] in lines


def test_preview_of_a_wrong_rule_is_found_wrong_and_says_what_would_be_right() -> None:
    answer = preview("--cron", "30 8 * * 1", "--timezone", "Europe/Berln")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "Europe/Berlin" in answer.stderr


def test_preview_of_a_schedule_that_never_fires_is_found_wrong_and_says_so() -> None:
    asked = ("--once", "2020-02-03T08:00:00Z", "--after", "2026-01-01T00:00:00Z")
    answer = preview(*asked)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith("It never fires after 2026-01-01T00:00:00+00:00")
    answer = preview(*asked, "--json")
    assert (answer.returncode, json.loads(answer.stdout)) == (1, [])


def test_preview_in_json_is_what_fires_and_a_schedule_that_excludes_everything_never_does() -> None:
    asked = ("--cron", "0 9 * * *", "--after", "2026-12-24T00:00:00Z")
    answer = preview(*asked, "--exclude", "2026-12-25", "--count", "2", "--json")
    assert json.loads(answer.stdout) == ["2026-12-24T09:00:00+00:00", "2026-12-26T09:00:00+00:00"]
    assert "excluded" in preview(*asked, "--exclude", "2026-12-25", "--count", "2").stdout
    answer = preview("--schedule", '{cron: "0 9 * * *", exclude: [{rrule: FREQ=DAILY}]}', *asked[2:])
    assert (answer.returncode, answer.stdout.count("excluded")) == (1, 10)
    assert answer.stderr.splitlines()[-1].startswith("It never fires after 2026-12-24T00:00:00+00:00")


@pytest.mark.parametrize(
    "arguments",
    [
        ("schedule", "preview"),
        ("schedule", "preview", "--cron", "* * * * *", "--every", "5m"),
        ("schedule", "preview", "--every", "5m", "--after", "tomorrow"),
        ("schedule", "preview", "--every", "5m", "--calendar", "--json"),
        ("serve", "worker", "cook"),
        ("apply", "-f", "/nonexistent.yaml"),
        ("event", "publish", "orders", "{no json"),
    ],
)
def test_misuse_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert ordinaut(*arguments).returncode == 2


def test_a_server_that_does_not_answer_is_one_sentence() -> None:
    answer = ordinaut("task", "list", env={"ORDINAUT_URL": f"http://127.0.0.1:{free_port()}"})
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: no answer from http://127.0.0.1:")
    assert len(answer.stderr.splitlines()) == 1


def test_a_wrong_setting_is_named_as_it_is_written() -> None:
    answer = ordinaut("serve", env={"ORDINAUT_POOL_MAX": "many", "ORDINAUT_PORT": "70000"})
    assert answer.returncode == 1
    assert "ORDINAUT_POOL_MAX must be a whole number, not 'many'" in answer.stderr
    assert "ORDINAUT_PORT must be at most 65535, not '70000'" in answer.stderr


def test_a_wrong_setting_that_may_hold_a_password_is_not_repeated() -> None:
    answer = ordinaut("serve", env={"ORDINAUT_DATABASE_URL": ""})
    assert "ORDINAUT_DATABASE_URL must not be empty" in answer.stderr


def test_doctor_tells_what_is_missing_until_migrate_has_made_it(
    bare_database_url: str, redis_url: str
) -> None:
    env = {"ORDINAUT_DATABASE_URL": bare_database_url, "ORDINAUT_REDIS_URL": redis_url}
    before = ordinaut("doctor", "--json", env=env)
    assert before.returncode == 1
    failed = {each["check"]: each["advice"] for each in json.loads(before.stdout) if each["level"] == "fail"}
    assert failed.pop("migrations") == "run `ordinaut migrate`"

    assert ordinaut("migrate", env=env).returncode == 0
    assert ordinaut("migrate", env=env).stdout == "up to date\n"
    after = json.loads(ordinaut("doctor", "--json", env=env).stdout)
    assert {each["check"]: each["level"] for each in after}["migrations"] == "ok"
    assert {each["check"]: each["level"] for each in after}["relay"] == "ok"


def test_verify_finds_a_tampered_row_and_rebuild_mends_it(database_url: str) -> None:
    env = {"ORDINAUT_DATABASE_URL": database_url}
    assert ordinaut("projections", "verify", env=env).returncode == 0
    row = "gen_random_uuid(), 'default', 'ghost', NULL, '{}', 'active', '{}', 1, 1, now(), now()"
    blocking(execute(database_url, f"INSERT INTO tasks SELECT {row}"))

    found = ordinaut("projections", "verify", "tasks", env=env)
    assert found.returncode == 1
    assert "ghost" in found.stdout
    verdict = json.loads(ordinaut("projections", "verify", "tasks", "--json", env=env).stdout)
    assert [(each["projection"], each["extra"], each["agrees"]) for each in verdict] == [("tasks", 1, False)]

    assert ordinaut("projections", "rebuild", "tasks", env=env).returncode == 0
    assert ordinaut("projections", "verify", env=env).returncode == 0


def test_a_table_that_is_not_as_it_is_defined_is_one_sentence_and_rebuild_mends_it(database_url: str) -> None:
    env = {"ORDINAUT_DATABASE_URL": database_url}
    blocking(execute(database_url, "ALTER TABLE tasks ADD COLUMN colour text"))
    found = ordinaut("projections", "verify", env=env)
    assert (found.returncode, len(found.stderr.splitlines())) == (1, 1)
    assert "the table tasks was not made by this version" in found.stderr
    assert ordinaut("projections", "rebuild", "tasks", env=env).returncode == 0
    assert ordinaut("projections", "verify", env=env).returncode == 0


def test_a_key_is_shown_once_and_can_be_revoked(database_url: str, redis_url: str) -> None:
    env = {"ORDINAUT_DATABASE_URL": database_url, "ORDINAUT_REDIS_URL": redis_url}
    key = json.loads(ordinaut("key", "issue", "deploy-bot", "--role", "reader", "--json", env=env).stdout)
    listed = ordinaut("key", "list", "--json", env=env)
    assert [each["id"] for each in json.loads(listed.stdout)] == [key["id"]]
    assert key["key"] not in listed.stdout
    assert ordinaut("key", "revoke", key["id"], env=env).returncode == 0
    assert json.loads(ordinaut("key", "list", "--json", env=env).stdout)[0]["revoked_at"]


async def test_a_role_waits_for_the_migrations_and_ends_well_on_sigterm(
    bare_database_url: str, redis_url: str, start_role: StartRole
) -> None:
    env = {"ORDINAUT_DATABASE_URL": bare_database_url, "ORDINAUT_REDIS_URL": redis_url}
    role = start_role("relay", "projector", env=env, ready=False)
    await eventually(lambda: "schema.waits" in role.output)
    assert ordinaut("migrate", env=env).returncode == 0
    role.wait_ready()
    assert role.terminate() == 0


async def test_a_role_that_is_told_to_stop_while_the_database_is_away_stops(start_role: StartRole) -> None:
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/ordinaut"
    role = start_role("clock", env={"ORDINAUT_DATABASE_URL": url}, ready=False)
    await eventually(lambda: "database.waits" in role.output)
    assert role.terminate() == 0


def test_an_api_whose_port_is_taken_ends_with_one_sentence(
    database_url: str, redis_url: str, start_role: StartRole, tmp_path: Path
) -> None:
    first = start_role("api")
    env = {
        "ORDINAUT_DATABASE_URL": database_url,
        "ORDINAUT_REDIS_URL": redis_url,
        "ORDINAUT_PORT": str(first.port),
    }
    second = OrdinautProcess(["serve", "api"], env, tmp_path / "second.log").start()
    assert second.wait() == 1
    assert f"127.0.0.1:{first.port}" in second.output
    assert "Traceback" not in second.output


async def test_any_role_serves_its_metrics_on_a_port_of_its_own(start_role: StartRole) -> None:
    port = free_port()
    role = start_role("relay", env={"ORDINAUT_METRICS_PORT": str(port)})
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    assert 'ordinaut_up{part="postgresql"} 1.0' in text, "what concerns the whole system is asked for"
    assert "ordinaut_step_seconds" in text
    assert role.terminate() == 0


def test_a_role_whose_metrics_port_is_taken_ends_with_one_sentence(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = {
            "ORDINAUT_DATABASE_URL": database_url,
            "ORDINAUT_REDIS_URL": redis_url,
            "ORDINAUT_METRICS_PORT": str(port),
        }
        role = OrdinautProcess(["serve", "relay"], env, tmp_path / "role.log").start()
        assert role.wait() == 1
    assert f"127.0.0.1:{port}: another program listens there" in role.output
    assert "ORDINAUT_METRICS_PORT" in role.output
    assert "Traceback" not in role.output


class Idle:
    """A role that waits to be told to stop, and remembers whether it was cut off."""

    cut_off = False

    async def run(self, stop: asyncio.Event) -> None:
        try:
            await stop.wait()
        except asyncio.CancelledError:
            self.cut_off = True
            raise


class Dies:
    """A role with a bug."""

    async def run(self, stop: asyncio.Event) -> None:
        raise ZeroDivisionError


class Leaves:
    """A role that ends although nobody asked for it."""

    async def run(self, stop: asyncio.Event) -> None:
        return


@pytest.mark.parametrize("broken", [Dies(), Leaves()])
async def test_a_role_that_ends_by_itself_takes_the_others_down(
    broken: serve.Role, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = Idle()

    def build(_system: System, _names: object) -> dict[str, serve.Role]:
        return {"idle": idle, "broken": broken}

    monkeypatch.setattr(serve, "build", build)
    async with open_system(load_settings(database_url=database_url, redis_url=redis_url)) as system:
        with pytest.raises(ExceptionGroup):
            await serve.run_roles(system, ["idle", "broken"], asyncio.Event())
    assert idle.cut_off


async def test_roles_that_do_not_end_in_time_are_cut_off(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stubborn:
        async def run(self, stop: asyncio.Event) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(serve, "build", lambda _system, _names: {"stubborn": Stubborn()})
    monkeypatch.setattr(serve, "GRACE_SECONDS", 0.05)
    settings = load_settings(database_url=database_url, redis_url=redis_url, drain_seconds=0.0)
    async with open_system(settings) as system:
        stop = asyncio.Event()
        stop.set()
        with pytest.raises(TimeoutError):
            await serve.run_roles(system, ["stubborn"], stop)
