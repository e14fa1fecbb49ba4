"""kill -9 of intakes at random moments while tasks of every pattern collect events (I1, I5, I7)."""

import asyncio
import random
from collections import Counter
from typing import Any

import orjson
from redis.asyncio import Redis

from ordinaut.domain import task
from ordinaut.domain.events import Event
from ordinaut.log.read import LogFilter, read_log
from ordinaut.runtime.system import System
from ordinaut.runtime.windows import fold_log
from tests.conftest import StartRole
from tests.support.eventually import eventually
from tests.support.listening import a_system, happen, listen
from tests.support.windows import folded, read_everything, table

KILLS = 24
ENV = {"ORDINAUT_LEASE_SECONDS": "1", "ORDINAUT_POLL_SECONDS": "0.2", "ORDINAUT_DRAIN_SECONDS": "2"}
STREAMS = ("orders", "payments.eu", "payments.us")
PAID = {"stream": "payments.*"}
PARTS = [{"name": "placed", "stream": "orders"}, {"name": "paid", **PAID}]
OF_PARTS = ("sequence", "all_of", "absent")
TASKS: dict[str, dict[str, Any]] = {
    "debounce": {"debounce": {"quiet": "150ms", "max_wait": "600ms"}},
    "batch": {"batch": {"size": 7, "time": "300ms"}},
    "throttle": {"throttle": {"window": "300ms", "limit": 2, "keep": "last"}},
    "sequence": {"sequence": {"within": "400ms", "lateness": "50ms", "events": PARTS}},
    "all_of": {"all_of": {"within": "400ms", "events": PARTS}},
    "absent": {"absent": {"within": "200ms", "after": {"stream": "orders"}, "expected": PAID}},
}


async def test_whatever_intake_is_killed_each_event_is_in_one_run_or_has_one_verdict(
    database_url: str, redis_url: str, start_role: StartRole, seed: int
) -> None:
    chance = random.Random(seed)
    intakes = [start_role("intake", env=ENV) for _ in range(2)]
    sent: Counter[str] = Counter()
    stop = asyncio.Event()
    async with a_system(database_url, redis_url) as system, Redis.from_url(redis_url) as redis:
        tasks = {name: await listen(system, name, key="${data.k}", **on) for name, on in TASKS.items()}

        async def load() -> None:
            while not stop.is_set():
                await asyncio.sleep(chance.expovariate(80))
                stream = chance.choice(STREAMS)
                await redis.xadd(stream, {"data": orjson.dumps({"k": f"{chance.randrange(4)}'é "})})
                sent[stream] += 1

        loading = asyncio.create_task(load())
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0.05, 0.5))
            victim = chance.choice(intakes)
            await asyncio.to_thread(victim.kill)
            if chance.random() < 0.3:  # a task is paused and resumed while its windows are open
                name = chance.choice(list(tasks))
                tasks[name] = await happen(system, tasks[name], task.pause(tasks[name], None))
                tasks[name] = await happen(system, tasks[name], task.resume(tasks[name]))
            victim.start()
            if chance.random() < 0.7:
                await asyncio.to_thread(victim.wait_ready)
            async with system.pool.acquire() as connection, connection.transaction():
                # Nobody moves the windows while both are looked at.
                await connection.execute("SELECT FROM log_readers WHERE name = 'windows' FOR UPDATE")
                assert await table(system) == await folded_by(system)
        stop.set()
        await loading
        await eventually(lambda: decided(system), timeout=60, every=0.2)
        await check(system, sent)


async def folded_by(system: System) -> Any:
    """What the log says of the windows, though somebody holds its reader."""
    async with system.pool.acquire() as connection, connection.transaction():
        position = await connection.fetchval("SELECT position FROM log_readers WHERE name = 'windows'")
        return await fold_log(connection, position)


async def decided(system: System) -> bool:
    read = await read_everything(system)
    behind = await system.pool.fetchval(
        "SELECT count(*) FROM events WHERE type = 'EventCollected'"
        " AND position > (SELECT position FROM log_readers WHERE name = 'windows')"
    )
    return read and not behind and await table(system) == await folded(system) == {}


async def check(system: System, sent: Counter[str]) -> None:
    """Everything that must be true, read from the log itself."""
    async with system.pool.acquire() as connection:
        log = await read_log(connection, LogFilter("default"), after=0, limit=1_000_000)
    verdicts = Counter(one.data["name"] for one in log if _is_verdict(one))
    streams = {name: sum(sent.values()) if name in OF_PARTS else sent["orders"] for name in TASKS}
    assert verdicts == streams, "an entry has no verdict, or two (I7)"
    collected = {one.position: one for one in log if one.type == "EventCollected"}
    by_cause = {
        (one.data["name"], one.data["cause"]["stream"], one.data["cause"]["id"]): one
        for one in collected.values()
    }
    closed = Counter(p for one in log if one.type == "WindowClosed" for p in one.data["positions"])
    assert closed == Counter(collected.keys()), "an event was in no window, or in two"
    outcomes: Counter[int] = Counter()
    for one in log:
        data = one.data
        if one.type == "OccurrenceSkipped" and one.version == 2:
            outcomes[by_cause[data["name"], data["cause"]["stream"], data["cause"]["id"]].position] += 1
        elif one.type in ("RunRequested", "OccurrenceSkipped") and data["cause"]["kind"] == "window":
            assert data["cause"]["count"] == len(data["cause"]["events"])
            for cause in data["cause"]["events"]:
                outcomes[by_cause[data["name"], cause["stream"], cause["id"]].position] += 1
    quiet = {
        p
        for one in log
        if one.type == "WindowClosed" and one.data["reason"] in ("arrived", "unmatched")
        for p in one.data["positions"]
    }
    twice = {p: n for p, n in outcomes.items() if n > 1}
    assert not twice, f"events in two runs, or with two verdicts: {twice}"
    assert outcomes.keys() | quiet == collected.keys() and not outcomes.keys() & quiet
    runs = Counter(one.data["name"] for one in log if one.type == "RunRequested")
    assert runs.keys() == TASKS.keys()


def _is_verdict(event: Event) -> bool:
    return event.version == 1 and event.stream.startswith("run-") and event.data["cause"]["kind"] == "stream"
