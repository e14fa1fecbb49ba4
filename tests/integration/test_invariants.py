"""Promises that no other file is named after, each shown by itself; docs/invariants.md lists them all."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import orjson
import pytest
from redis.asyncio import Redis

from ordinaut.api.idempotency import Idempotency, fingerprint
from ordinaut.clock.clock import Clock
from ordinaut.domain.errors import VersionConflict
from ordinaut.domain.events import EVENT_TYPES, NewEvent
from ordinaut.intake.intake import Intake
from ordinaut.log.append import Append
from ordinaut.log.appender import Appender
from ordinaut.log.database import connect
from ordinaut.runtime.embedded import EmbeddedServers
from ordinaut.runtime.keys import issue_key, revoke_key
from ordinaut.runtime.settings import Settings
from ordinaut.runtime.system import open_system
from ordinaut.work.tools.registry import BUILT_IN, Registry
from ordinaut.work.worker import Worker
from tests.support.api import Served, running_api
from tests.support.eventually import eventually
from tests.support.hooks import github
from tests.support.probes import Probe
from tests.support.running import running
from tests.support.servers import blocking, execute, make_template, with_database
from tests.support.world import World, open_world


async def test_i1_every_append_waits_for_the_disk_whatever_the_server_is_set_to(
    database_url: str, redis_url: str
) -> None:
    name = database_url.partition("?")[0].rpartition("/")[2]
    other = await connect(database_url)
    await other.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    await other.close()
    settings = Settings(database_url=database_url, redis_url=redis_url, pool_max=2)
    async with open_system(settings) as system, system.pool.acquire() as one:
        assert await one.fetchval("SHOW synchronous_commit") == "on"
        # The connection that is left remembers an Idempotency-Key without waiting, and waits again after it.
        await Idempotency(system.pool).begin("default", "k", fingerprint("POST", "/", "", b""), 1)
        assert await system.pool.fetchval("SHOW synchronous_commit") == "on"
        await Idempotency(system.pool).first_seen("default", ["event 1"], 1)
        assert await system.pool.fetchval("SHOW synchronous_commit") == "on"


@pytest.fixture
async def crashing(tmp_path: Path) -> AsyncIterator[tuple[EmbeddedServers, Served]]:
    """An API on a PostgreSQL of its own, which writes to the disk."""
    with EmbeddedServers(ephemeral=True) as servers:
        await asyncio.to_thread(blocking, make_template(servers.database_url, "template"))
        await asyncio.to_thread(
            blocking, execute(servers.database_url, 'CREATE DATABASE "crash" TEMPLATE "template"')
        )
        url = with_database(servers.database_url, "crash")
        async with running_api(url, servers.redis_url, projector=False) as api:
            yield servers, api


async def test_i1_what_was_answered_survives_a_crash_of_the_database(
    crashing: tuple[EmbeddedServers, Served],
) -> None:
    servers, api = crashing
    assert servers.postgres is not None
    answered: list[str] = []
    stop = asyncio.Event()

    async def publish() -> None:
        while not stop.is_set():
            try:
                answer = await api.http.post("/v1/events", json={"stream": "s", "data": len(answered)})
            except httpx.HTTPError:
                continue
            if answer.status_code == 202:
                answered.append(answer.json()["id"])
            else:
                assert answer.status_code == 503, answer.text
                await asyncio.sleep(0.01)

    publishers = [asyncio.create_task(publish()) for _ in range(4)]
    await eventually(lambda: len(answered) > 50, 30)
    await asyncio.to_thread(servers.postgres.stop, immediate=True)
    await asyncio.to_thread(servers.postgres.start)
    before = len(answered)
    await eventually(lambda: len(answered) > before, 30)
    stop.set()
    await asyncio.gather(*publishers)
    rows = await api.system.pool.fetch("SELECT stream FROM events WHERE type = 'EventReceived'")
    assert {f"event-{id}" for id in answered} <= {row["stream"] for row in rows}


async def test_i4_who_appends_second_learns_it_and_changes_nothing(database_url: str, redis_url: str) -> None:
    settings = Settings(database_url=database_url, redis_url=redis_url)
    async with open_system(settings) as one, open_system(settings) as two:

        async def say(appender: Appender, who: str) -> str:
            item = Append("task-x", 0, [NewEvent("TaskPaused", {"by": who})], "default", who, "c")
            try:
                await appender.append(item)
            except VersionConflict as conflict:
                assert (conflict.stream, conflict.expected, conflict.actual) == ("task-x", 0, 1)
                return ""
            return who

        said = await asyncio.gather(
            *[say(system.appender, f"{n}-{k}") for n in range(20) for k, system in enumerate((one, two))]
        )
        (winner,) = filter(None, said)
        rows = await one.pool.fetch("SELECT position, actor FROM events")
        assert [(row["position"], row["actor"]) for row in rows] == [(1, winner)]


@pytest.fixture
async def world(database_url: str, redis_url: str) -> AsyncIterator[World]:
    async with open_world(database_url, redis_url, poll_seconds=0.05) as opened:
        yield opened


async def test_i9_a_run_whose_worker_is_lost_goes_on_behind_its_last_recorded_step(world: World) -> None:
    first, second = Probe("first"), Probe("second", holding=True)
    await world.define(
        "job",
        [
            {"id": "one", "uses": "test.first", "with": {"n": 1}},
            {"id": "two", "uses": "test.second", "with": {"seen": "${steps.one.n}"}},
        ],
    )
    lost = world.start_worker(first.tool, second.tool)
    run_id = await world.request("job")
    await eventually(lambda: len(second.calls) == 1)
    await lost.kill()
    await world.expire_leases()
    second.let_go()
    world.start_worker(first.tool, second.tool)
    run = await world.finished(run_id)
    assert (run.state, run.attempt, run.output) == ("succeeded", 2, {"seen": 1})
    assert len(first.calls) == 1, "it was finished, and is not done again"
    # The step that was under way is done once more, under the same key: outside, at least once.
    assert [call.idempotency_key for call in second.calls] == [f"{run_id}/two"] * 2


def _echo(id: str, **more: object) -> dict[str, object]:
    return {"id": id, "uses": "debug.echo", **more}


async def _live(api: Served, redis: Redis) -> None:
    """Let happen, over every door, whatever there are events for."""
    publish = {"id": "next", "uses": "event.publish", "with": {"stream": "second", "data": {}}}
    fails = {"id": "no", "uses": "http.get", "with": {"url": "http://127.0.0.1:9/"}}
    again, later = {"max_attempts": 2, "base": "0s"}, {"max_attempts": 2, "base": "1h", "max": "1h"}
    first = {"stream": "first", "where": "data.n > `0`"}
    for name, document in {
        "ticks": {"schedule": {"every": "1s"}, "pipeline": [_echo("tick")]},
        "first": {"on": first, "pipeline": [publish, _echo("never", **{"if": "`false`"})]},
        "second": {"on": {"stream": "second"}, "pipeline": [_echo("end")]},
        "calms": {"on": {"stream": "second", "debounce": {"quiet": "10ms"}}, "pipeline": [_echo("end")]},
        "minds": {"on": {"event": "RunFailed"}, "pipeline": [_echo("end")]},
        "fails": {"pipeline": [{**fails, "retry": again}]},
        "waits": {"pipeline": [{**fails, "retry": later}]},
        "changes": {"pipeline": [_echo("a")]},
    }.items():
        assert (await api.http.put(f"/v1/tasks/{name}", json=document)).status_code == 201
    for path in ("pause", "resume", "snooze"):
        body = {"for": "1h"} if path == "snooze" else {}
        assert (await api.http.post(f"/v1/tasks/changes/{path}", json=body)).status_code == 200
    await api.http.put("/v1/tasks/changes", json={"pipeline": [_echo("b")]})
    await api.http.delete("/v1/tasks/changes")
    await redis.xadd("first", {"data": orjson.dumps({"n": 1})})
    await redis.xadd("first", {"data": b"{"})
    await eventually(lambda: _given_up(api), 20)
    for name, state, then in (("fails", "failed", "retry"), ("waits", "waiting", "cancel")):
        run = (await api.http.post(f"/v1/tasks/{name}/run")).json()["run"]
        await eventually(lambda run=run, state=state: _in_state(api, run, state), 20)
        assert (await api.http.post(f"/v1/runs/{run}/{then}")).is_success
    key, _ = await issue_key(api.system, space="default", agent="passer-by", role="reader")
    await revoke_key(api.system, space="default", key_id=key)
    hook = {"kind": "github", "stream": "second", "secrets": ["i10"]}
    assert (await api.http.put("/v1/hooks/code", json=hook)).status_code == 201
    for secret, status in (("shared", 202), ("guess", 401)):
        answer = await api.http.post("/v1/hooks/code", content=b"{}", headers=github(b"{}", secret))
        assert answer.status_code == status
    await api.http.delete("/v1/hooks/code")
    await api.http.post("/v1/tasks/ticks/pause")
    await api.http.put("/v1/spaces/default", json={"minimum_interval": "1h"})
    await eventually(lambda: _backfilled(api, "/v1/tasks/ticks/backfill"), 20, every=0.2)


async def _given_up(api: Served) -> bool:
    """Have a dead letter decided anew, which makes it no better, and drop it."""
    letters = (await api.http.get("/v1/dead-letters")).json()["items"]
    if not letters:
        return False
    path = f"/v1/dead-letters/{letters[0]['id']}"
    requeued = await api.http.post(f"{path}/requeue", json={"reason": "look again"})
    dropped = await api.http.delete(path, params={"reason": "it is broken"})
    assert requeued.json()["state"] == "dead" and dropped.is_success
    return True


async def _backfilled(api: Served, path: str) -> bool:
    """Begin a backfill that has something to run, and stop another before it has finished."""
    first = await api.http.post(path, json={"from": "2020-01-01T00:00:00Z"})
    again = await api.http.post(path, json={"from": "2020-01-01T00:00:00Z", "rerun": True})
    stopped = await api.http.post(f"/v1/backfills/{again.json()['backfill']}/stop")
    return bool(first.json()["counts"]["run"] and stopped.is_success)


async def _in_state(api: Served, run: str, state: str) -> bool:
    return bool((await api.http.get(f"/v1/runs/{run}")).json()["state"] == state)


OUTSIDE = ("request:", "redis:", "schedule:", "hook:", "cli:", "system:")
"""How causes begin that are not in the log."""

UNHEARD = {"StepStarted", "RunWaiting", "RunResumed", "RunParked"}
"""Events that this life does not bring about."""


async def test_i10_every_event_leads_back_to_what_caused_it(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDINAUT_SECRET_I10", "shared")
    async with (
        running_api(database_url, redis_url, poll_seconds=0.1) as api,
        Redis.from_url(redis_url) as redis,
    ):
        roles = Clock(api.system), Intake(api.system), Worker(api.system, Registry(BUILT_IN))
        async with running(*roles):
            await _live(api, redis)

            async def heard() -> set[str]:
                return {row[0] for row in await api.system.pool.fetch("SELECT DISTINCT type FROM events")}

            async def everything() -> bool:
                missing = set(EVENT_TYPES) - UNHEARD - await heard()
                assert not missing, missing
                return True

            await eventually(everything, 30)
        rows = await api.system.pool.fetch("SELECT * FROM events ORDER BY position")
        _check_causes(rows)


def _check_causes(rows: list[asyncpg.Record]) -> None:
    by_reference = {f"{row['stream']}/{row['version']}": row for row in rows}
    for row in rows:
        assert row["actor"] and row["correlation"], row
        cause = by_reference.get(row["causation"] or "")
        if cause is None:
            assert (row["causation"] or "").startswith(OUTSIDE), row
        else:
            assert cause["position"] < row["position"], "a cause comes before what it causes"
            assert cause["correlation"] == row["correlation"], "and belongs to the same"
