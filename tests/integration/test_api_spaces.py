"""/v1/spaces: the least time between two instants of a schedule, and what it refuses."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ordinaut.domain.space import change, fold, space_stream
from ordinaut.log.append import Append, append
from ordinaut.log.read import read_stream
from ordinaut.runtime.keys import issue_key
from ordinaut.runtime.settings import Settings
from ordinaut.runtime.system import System, open_system
from tests.support.api import KEY, PIPELINE, Served, pointers, problem, running_api, task
from tests.support.commands import ordinaut
from tests.support.eventually import eventually


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url) as served:
        yield served


async def set_minimum(api: Served, minimum: str | None, **more: Any) -> dict[str, Any]:
    answer = await api.http.put("/v1/spaces/default", json={"minimum_interval": minimum, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def put(api: Served, name: str, schedule: Any, **query: str) -> Any:
    body = {"schedule": schedule, "pipeline": PIPELINE}
    return await api.http.put(f"/v1/tasks/{name}", json=body, params=query)


async def test_a_space_has_no_minimum_until_somebody_sets_one(api: Served) -> None:
    assert (await api.http.get("/v1/spaces/default")).json() == {
        "space": "default", "minimum_interval": None, "reason": None, "version": 0,
        "changed_at": None, "changed_by": None,
    }  # fmt: skip
    assert (await put(api, "tick", {"every": "1s"})).status_code == 201


async def test_who_set_the_minimum_and_why_is_in_the_log_and_in_the_answer(api: Served) -> None:
    answer = await set_minimum(api, "PT90S", reason="the mail server asked for it")
    assert (answer["minimum_interval"], answer["changed_by"]) == ("1m30s", "key:admin")
    assert (await api.http.get("/v1/spaces/default")).json() == answer
    (event,) = (await api.http.get("/v1/log", params={"type": "SpaceChanged"})).json()["items"]
    assert event["stream"] == "space-default"
    assert event["actor"] == "key:admin"
    assert event["causation"].startswith("request:")
    assert event["data"] == {"minimum_interval": "1m30s", "reason": "the mail server asked for it"}


async def test_setting_what_is_set_already_changes_nothing(api: Served) -> None:
    first = await set_minimum(api, "10s", reason="one")
    assert await set_minimum(api, "10s", reason="another") == first
    assert (await set_minimum(api, None))["version"] == 2


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ({"every": "59s", "anchor": "2026-01-01T00:00:00Z"}, "which are 59s apart"),
        (
            {"rrule": "FREQ=DAILY;BYHOUR=8,9;BYMINUTE=0,59", "timezone": "Europe/Chisinau"},
            "which are 1m apart",
        ),
        ({"rrule": "FREQ=YEARLY;BYMONTH=5;BYMONTHDAY=1;BYHOUR=0;BYMINUTE=0;BYSECOND=0,30"}, "30s apart"),
    ],
)
async def test_a_schedule_that_names_two_instants_too_near_to_each_other_is_refused(
    api: Served, schedule: dict[str, str], said: str
) -> None:
    await set_minimum(api, "2m")
    for answer in (
        await put(api, "tick", schedule),
        await put(api, "tick", schedule, dry_run="true"),
        await api.http.post("/v1/tasks", json=task("tick", schedule=schedule)),
    ):
        problem(answer, 422)
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/schedule"
        assert said in error["detail"]
        assert error["hint"] == "the least in the space 'default' is 2m"
    assert (await api.http.get("/v1/tasks/tick")).status_code == 404


@pytest.mark.parametrize(
    "schedule",
    [
        {"every": "2m"},
        {"cron": "*/2 * * * *"},
        {"once": "2040-01-01T00:00:00Z"},
        {"on": {"stream": "orders"}},
        None,
    ],
)
async def test_what_keeps_to_the_minimum_is_accepted(api: Served, schedule: dict[str, str] | None) -> None:
    await set_minimum(api, "2m")
    assert (await put(api, "tick", schedule)).status_code == 201


async def test_a_task_that_is_there_stays_until_it_is_given_another_schedule(api: Served) -> None:
    fast, slower = {"every": "5s"}, {"every": "9s"}
    assert (await put(api, "tick", fast)).status_code == 201
    await set_minimum(api, "10s")
    assert (await put(api, "tick", fast)).status_code == 200
    body = {"schedule": fast, "pipeline": PIPELINE, "title": "Another title"}
    assert (await api.http.put("/v1/tasks/tick", json=body)).json()["title"] == "Another title"
    assert pointers(await put(api, "tick", slower)) == ["/schedule"]
    assert (await put(api, "tick", {"every": "10s"})).status_code == 200
    assert (await put(api, "tick", fast)).status_code == 422
    assert (await api.http.delete("/v1/tasks/tick")).status_code == 200
    assert (await put(api, "tick", {"every": "9s"})).status_code == 422


async def test_only_an_admin_sets_it_and_everybody_of_the_space_sees_it(api: Served) -> None:
    await set_minimum(api, "10s")
    for role in ("operator", "reader"):
        _, key = await issue_key(api.system, space="default", agent=f"an-{role}", role=role)
        async with api.client(key) as http:
            assert (await http.get("/v1/spaces/default")).json()["minimum_interval"] == "10s"
            problem(await http.put("/v1/spaces/default", json={"minimum_interval": None}), 403)
    assert (await api.http.get("/v1/spaces/default")).json()["version"] == 1


async def test_a_space_is_set_for_itself_alone(api: Served) -> None:
    _, key = await issue_key(api.system, space="elsewhere", agent="boss", role="admin")
    await set_minimum(api, "1h")
    async with api.client(key) as http:
        problem(await http.get("/v1/spaces/default"), 404)
        problem(await http.put("/v1/spaces/default", json={"minimum_interval": None}), 404)
        assert (await http.get("/v1/spaces/elsewhere")).json()["minimum_interval"] is None
        answer = await http.post("/v1/tasks", json=task("tick", schedule={"every": "1s"}))
        assert answer.status_code == 201


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/minimum_interval"),
        ({"minimum_interval": 10}, "/minimum_interval"),
        ({"minimum_interval": "soon"}, "/minimum_interval"),
        ({"minimum_interval": "0s"}, "/minimum_interval"),
        ({"minimum_interval": "367d"}, "/minimum_interval"),
        ({"minimum_interval": "10s", "reason": 7}, "/reason"),
        ({"minimum_interval": "10s", "reason": "x" * 1001}, "/reason"),
        ({"minimum_interval": "10s", "maximum": 7}, "/maximum"),
    ],
)
async def test_a_bad_setting_is_refused_with_its_place(api: Served, body: Any, pointer: str) -> None:
    answer = await api.http.put("/v1/spaces/default", json=body)
    problem(answer, 422)
    assert pointers(answer) == [pointer]


async def set_elsewhere(system: System, minimum: timedelta) -> None:
    """As another process does it: this API hears nothing of it."""
    async with system.pool.acquire() as connection, connection.transaction():
        stream = space_stream("default")
        space = fold("default", await read_stream(connection, stream))
        await append(
            connection, [Append(stream, space.version, change(space, minimum, None), "default", "x", "c")]
        )


async def test_a_task_is_never_recorded_by_a_minimum_that_has_changed(
    api: Served, database_url: str, redis_url: str
) -> None:
    """An API that remembers the space as it was has its append refused, and decides anew."""
    assert (await put(api, "before", {"every": "1s"})).status_code == 201
    async with open_system(Settings(database_url=database_url, redis_url=redis_url)) as other:
        await set_elsewhere(other, timedelta(seconds=10))
        problem(await api.http.post("/v1/tasks", json=task("posted", schedule={"every": "1s"})), 422)
        await set_elsewhere(other, timedelta(seconds=20))
        problem(await put(api, "put", {"every": "10s"}), 422)
        problem(await put(api, "before", {"every": "19s"}), 422)
        assert (await put(api, "put", {"every": "20s"})).status_code == 201
        await set_elsewhere(other, timedelta(seconds=1))
        assert (await put(api, "quick", {"every": "1s"})).status_code == 201


async def test_a_refused_change_of_schedule_gives_the_old_one_no_last_verdict(
    api: Served, database_url: str, redis_url: str
) -> None:
    """What is due by the old schedule is only skipped as `changed` when the change is recorded."""
    assert (await put(api, "tick", {"every": "1s"})).status_code == 201
    async with open_system(Settings(database_url=database_url, redis_url=redis_url)) as other:
        await set_elsewhere(other, timedelta(hours=1))
        await eventually(lambda: _is_due(api), timeout=20)
        problem(await put(api, "tick", {"every": "2s"}), 422)
    (row,) = await api.system.pool.fetch("SELECT count(*) FROM events WHERE type = 'OccurrenceSkipped'")
    assert row[0] == 0


async def _is_due(api: Served) -> bool:
    return bool(await api.system.pool.fetchval("SELECT min(next_fire_at) < now() FROM schedules"))


async def test_those_who_set_the_minimum_at_once_are_put_in_one_order(api: Served) -> None:
    wanted = [f"{n}s" for n in range(1, 5)]
    answers = await asyncio.gather(*(set_minimum(api, each) for each in wanted))
    assert len(answers) == 4
    log = (await api.http.get("/v1/log", params={"stream": "space-default"})).json()["items"]
    assert [event["version"] for event in log] == [1, 2, 3, 4]
    assert sorted(event["data"]["minimum_interval"] for event in log) == wanted


async def test_apply_says_in_which_file_and_line_the_schedule_is(
    api: Served, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    env = {"ORDINAUT_URL": api.url, "ORDINAUT_API_KEY": KEY}

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(ordinaut, *arguments, env=env)

    done = await run("space", "set", "--minimum-interval", "10s", "--reason", "[6] calls a minute")
    assert done.returncode == 0, done.stderr
    assert "10s" in done.stdout and "key:admin: [6] calls a minute" in done.stdout
    file = tmp_path / "tasks.yaml"
    file.write_text(
        "name: slow\nschedule: {every: 10s}\npipeline: [{id: say, uses: debug.echo}]\n---\n"
        "name: fast\nschedule: {every: 5s}\npipeline: [{id: say, uses: debug.echo}]\n"
    )
    for more in (["--dry-run"], ["--yes"]):
        refused = await run("apply", "-f", str(file), *more)
        assert refused.returncode == 1
        assert f"{file}:6: /schedule: names " in refused.stderr
        assert "5s apart (the least in the space 'default' is 10s)" in refused.stderr
    assert (await api.http.get("/v1/tasks/slow")).status_code == 404
    assert "It was so already" in (await run("space", "set", "--minimum-interval", "10s")).stderr
    assert (await run("space", "set", "--minimum-interval", "None")).returncode == 0
    shown = json.loads((await run("space", "show", "--json")).stdout)
    assert (shown["minimum_interval"], shown["version"]) == (None, 2)
    assert (await run("apply", "-f", str(file), "--yes")).returncode == 0
    assert (await run("space", "set", "--minimum-interval", "often")).returncode == 2
    assert (await run("space", "show", "elsewhere")).returncode == 1


async def test_doctor_names_the_tasks_that_are_faster_than_their_space_allows_by_now(
    api: Served, database_url: str, redis_url: str
) -> None:
    for name, every in (("fast", "5s"), ("slow", "10s"), ("gone", "2s")):
        assert (await put(api, name, {"every": every})).status_code == 201
    await put(api, "listens", {"on": {"stream": "orders"}})
    await api.http.delete("/v1/tasks/gone")
    answer = await api.http.put("/v1/spaces/default", json={"minimum_interval": "10s"})
    await api.fresh("/v1/tasks", answer)
    env = {"ORDINAUT_DATABASE_URL": database_url, "ORDINAUT_REDIS_URL": redis_url}
    done = await asyncio.to_thread(ordinaut, "doctor", "--json", env=env)
    told, summary = [each for each in json.loads(done.stdout) if each["check"] == "space default"]
    assert told["level"] == summary["level"] == "warn"
    assert told["found"].startswith("fast names ") and told["found"].endswith("which are 5s apart")
    assert summary["found"] == "1 of 2 schedules keep to the minimum interval of 10s"
