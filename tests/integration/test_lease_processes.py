"""Leases among real processes: frozen, killed and terminated as an operator or a machine would."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest

from tests.conftest import StartRole
from tests.support.eventually import eventually
from tests.support.probes import HttpProbe, http_probe
from tests.support.processes import RoleProcess
from tests.support.world import World, open_world

QUICK = {"ORDINAUT_LEASE_SECONDS": "1", "ORDINAUT_POLL_SECONDS": "0.1"}


@pytest.fixture
async def world(database_url: str, redis_url: str) -> AsyncIterator[World]:
    async with open_world(database_url, redis_url) as opened:
        yield opened


@pytest.fixture
async def server() -> AsyncIterator[HttpProbe]:
    """A service that answers when the test says so."""
    async with http_probe() as probe:
        probe.open.clear()
        yield probe


def asking(server: HttpProbe, *ids: str) -> list[dict[str, object]]:
    return [{"id": id, "uses": "http.post", "with": {"url": f"{server.url}/{id}"}} for id in ids]


def worker_of(process: RoleProcess) -> str:
    """The end of the actor's name that this process has."""
    return f"-{process.pid}-"


async def test_a_worker_that_was_frozen_past_its_lease_records_nothing_when_it_wakes(
    world: World, server: HttpProbe, start_role: StartRole
) -> None:
    await world.define("job", asking(server, "only"))
    frozen = await asyncio.to_thread(start_role, "worker", env=QUICK)
    run_id = await world.request("job")
    await eventually(lambda: len(server.asked) == 1)
    frozen.freeze()
    other = await asyncio.to_thread(start_role, "worker", env=QUICK)
    await eventually(lambda: len(server.asked) == 2, 20)
    # Both are answered; the frozen one finds its answer when it wakes.
    server.open.set()
    run = await world.finished(run_id)
    assert (run.state, run.attempt) == ("succeeded", 2)
    await asyncio.to_thread(other.terminate)
    frozen.thaw()
    await eventually(lambda: '"run.lost"' in frozen.output or '"run.let_go"' in frozen.output)
    # It is awake and at work, and still says nothing more of that run.
    assert (await world.finished(await world.request("job"))).state == "succeeded"
    events = await world.events(run_id)
    assert [event.type for event in events] == [
        "RunRequested", "RunStarted", "RunStarted", "StepSucceeded", "RunSucceeded",
    ]  # fmt: skip
    assert worker_of(frozen) in events[1].actor
    assert all(worker_of(other) in event.actor for event in events[2:])
    assert await world.due_work() == {}


async def test_a_run_that_kills_its_worker_is_parked_when_its_attempts_are_spent(
    world: World, server: HttpProbe, start_role: StartRole
) -> None:
    await world.define("deadly", asking(server, "deadly"), policy={"max_attempts": 2})
    run_id = await world.request("deadly")
    process = await asyncio.to_thread(start_role, "worker", env=QUICK, ready=False)
    for kills in (1, 2):
        await eventually(lambda kills=kills: len(server.asked) == kills, 20)
        process.kill()
        process.start()
    run = await world.finished(run_id)
    assert (run.state, run.attempt, run.crashes) == ("parked", 2, 2)
    assert "its worker was lost 2 times" in run.error["message"]
    assert {asked.headers["idempotency-key"] for asked in server.asked} == {f"{run_id}/deadly"}
    # The worker lives on without it.
    server.open.set()
    await world.define("harmless")
    assert (await world.finished(await world.request("harmless"))).state == "succeeded"
    await world.retry(run_id)
    assert (await world.in_state(run_id, "succeeded")).attempt == 3


async def test_a_worker_that_is_terminated_finishes_its_step_and_hands_the_run_on(
    world: World, server: HttpProbe, start_role: StartRole
) -> None:
    await world.define("job", asking(server, "first", "second"), policy={"max_attempts": 1})
    leaving = await asyncio.to_thread(start_role, "worker")
    runs = await world.request_many("job", [1, 2, 3])
    await eventually(lambda: len(server.asked) == 3)
    leaving.send(signal.SIGTERM)
    await eventually(lambda: '"worker.draining"' in leaving.output)
    server.open.set()
    assert await asyncio.to_thread(leaving.wait) == 0
    for run_id in runs:
        assert await world.types(run_id) == [
            "RunRequested", "RunStarted", "StepSucceeded", "RunRetryScheduled",
        ]  # fmt: skip
    await asyncio.to_thread(start_role, "worker")
    for run_id in runs:
        run = await world.finished(run_id)
        assert (run.state, run.attempt) == ("succeeded", 2)
    assert sorted(asked.path for asked in server.asked) == ["/first"] * 3 + ["/second"] * 3
