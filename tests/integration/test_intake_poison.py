"""An entry that kills whoever reads it is found out, and nobody else is blamed for it."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.exceptions import ConnectionError

from ordinaut.domain.errors import Unavailable
from ordinaut.domain.ids import entry_run_id
from ordinaut.intake.intake import Intake
from ordinaut.runtime.streams import DEAD, GROUP, ensure_group
from ordinaut.runtime.system import System
from tests.support.eventually import eventually
from tests.support.listening import a_system, an_intake, events, listen, read_to_the_end
from tests.support.processes import ROOT

FRAIL = """
import os, sys
from ordinaut.intake import record
from ordinaut.cli.main import main
decide = record.decide

def decide_or_die(entry, *arguments, **named):
    if b"kill" in entry.fields.get(b"data", b""):
        os._exit(9)
    return decide(entry, *arguments, **named)

record.decide = decide_or_die
sys.argv = ["ordinaut", "serve", "intake"]
main()
"""
"""An intake that ends without a word when it decides an entry with `kill` in it."""


@asynccontextmanager
async def frail_intakes(system: System, count: int) -> AsyncIterator[list[int]]:
    """So many such processes, each started again whenever it has died; the deaths are in the list."""
    env = {
        "ORDINAUT_DATABASE_URL": system.settings.database_url,
        "ORDINAUT_REDIS_URL": system.settings.redis_url,
        "ORDINAUT_LEASE_SECONDS": "1", "ORDINAUT_POLL_SECONDS": "0.1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    deaths: list[int] = []

    async def supervise() -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", FRAIL, env=env, cwd=ROOT, stderr=subprocess.DEVNULL
            )
            try:
                deaths.append(await process.wait())
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    supervisors = [asyncio.create_task(supervise()) for _ in range(count)]
    try:
        yield deaths
    finally:
        for one in supervisors:
            one.cancel()
        await asyncio.gather(*supervisors, return_exceptions=True)


async def test_an_entry_that_keeps_killing_its_intake_is_a_dead_letter_and_all_others_get_their_runs(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        ship = await listen(system, "ship")
        await ensure_group(system.redis, "orders", "0")
        entries = [
            (await system.redis.xadd("orders", {"data": '"kill"' if number == 40 else str(number)})).decode()
            for number in range(100)
        ]
        killer = entries.pop(40)
        async with frail_intakes(system, 2) as deaths:

            async def rejected() -> bool:
                return bool(await events(system, "EventRejected"))

            await eventually(rejected, 60)
            await system.redis.xadd("orders", {"data": '"after"'})

            await eventually(lambda: read_to_the_end(system.redis), 30)
            assert deaths == [9] * system.settings.max_deliveries
        (event,) = await events(system, "EventRejected")
        assert (event.data["stream"], event.data["id"], event.data["entry"]) == (
            "orders", killer, {"data": '"kill"'},
        )  # fmt: skip
        history = event.data["history"]
        assert history["deliveries"] == 5
        assert history["last_consumer"].startswith("intake-")
        assert history["idle_seconds"] >= 1
        assert "delivered 5 times" in event.data["reason"]
        ((_, copy),) = await system.redis.xrange(DEAD)
        assert (copy[b"id"], copy[b"data"]) == (killer.encode(), b'"kill"')
        runs = Counter(run.stream for run in await events(system, "RunRequested"))
        expected = {f"run-{entry_run_id('default', 'orders', entry, ship.id)}" for entry in entries}
        assert expected < set(runs) and len(runs) == 100 and set(runs.values()) == {1}


async def delivered(redis: Redis, times: int, entry: str, stream: str = "orders") -> None:
    """Entries that were handed out so often, the last time to one who is gone."""
    await redis.xreadgroup(GROUP, "gone", {stream: ">"})
    await redis.xclaim(stream, GROUP, "gone", 0, [entry], idle=5000, retrycount=times, justid=True)


async def test_an_entry_is_given_all_the_deliveries_it_gets(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url, max_deliveries=4) as system:
        await listen(system, "ship")
        for stream, times in (("orders", 3), ("parcels", 4)):
            await listen(system, f"hear-{stream}", stream)
            await ensure_group(system.redis, stream, "0")
            entry = (await system.redis.xadd(stream, {"data": f'"{stream}"'})).decode()
            await delivered(system.redis, times, entry, stream)
        async with an_intake(system) as intake:
            await eventually(lambda: (intake.received, intake.rejected) == (2, 1))
        assert {event.data["input"] for event in await events(system, "RunRequested")} == {"orders"}
        (rejected,) = await events(system, "EventRejected")
        assert rejected.data["stream"] == "parcels"


async def test_an_entry_that_kills_even_when_it_is_rejected_is_rejected_unread(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        await listen(system, "ship")
        await ensure_group(system.redis, "orders", "0")
        entry = (await system.redis.xadd("orders", {"data": "1"})).decode()
        await delivered(system.redis, 6, entry)
        async with an_intake(system) as intake:
            await eventually(lambda: intake.rejected == 1)
        (rejected,) = await events(system, "EventRejected")
        assert (rejected.data["entry"], rejected.data["history"]["deliveries"]) == ({}, 6)
        assert (await system.redis.xpending("orders", GROUP))["pending"] == 0


async def test_what_a_live_intake_has_in_hand_is_not_taken_from_it(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system, a_system(database_url, redis_url) as other:
        await listen(system, "ship")
        async with an_intake(system) as slow, an_intake(other) as fast:
            await eventually(lambda: slow.lags and fast.lags)
            recording = asyncio.Event()
            entered = 0
            for one in (slow, fast):
                record = one._recorder.record

                async def wait_and_record(*given: object, record: object = record) -> object:
                    nonlocal entered
                    entered += 1
                    await recording.wait()
                    return await record(*given)  # type: ignore[operator]

                one._recorder.record = wait_and_record  # type: ignore[method-assign, assignment]
            await system.redis.xadd("orders", {"data": "1"})
            await eventually(lambda: entered)
            await nothing_claimed(system, slow, fast)
            recording.set()
            await eventually(lambda: slow.received + fast.received == 1)


async def nothing_claimed(system: System, *intakes: Intake) -> None:
    """Both intakes look for what was left behind, twice, and the entry stays delivered once."""
    rounds = [one._claim_at for one in intakes]

    async def looked_twice() -> bool:
        (pending,) = await system.redis.xpending_range("orders", GROUP, "-", "+", 10)
        assert pending["times_delivered"] == 1
        later = [one._claim_at for one in intakes]
        # Who has the entry in hand does not look.
        return max(now - was for now, was in zip(later, rounds, strict=True)) > 2.5

    await eventually(looked_twice, 20)


async def test_a_drain_while_postgresql_is_away_gives_the_entries_back_as_they_were(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        await listen(system, "ship")
        intake = Intake(system)
        stop = asyncio.Event()
        work = asyncio.create_task(intake.run(stop))
        await eventually(lambda: "orders" in intake.lags)

        async def away(*_: object) -> None:
            raise Unavailable("away")

        intake._recorder.record = away  # type: ignore[method-assign, assignment]
        await system.redis.xadd("orders", {"data": "1"})
        await eventually(lambda: intake.trouble)
        stop.set()
        await asyncio.wait_for(work, 10)
        (pending,) = await system.redis.xpending_range("orders", GROUP, "-", "+", 10)
        assert pending["times_delivered"] == 0
        assert pending["time_since_delivered"] >= 1000
        async with an_intake(system) as next_one:
            await eventually(lambda: next_one.matched == 1)


async def test_what_redis_did_not_acknowledge_is_acknowledged_later_and_not_delivered_again(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        await listen(system, "ship")
        async with an_intake(system) as intake:
            await eventually(lambda: "orders" in intake.lags)
            copy, lost = intake._copy_dead, 3

            async def lose_redis(dead: object) -> None:
                nonlocal lost
                lost -= 1
                if lost >= 0:
                    raise ConnectionError("away")
                await copy(())

            intake._copy_dead = lose_redis  # type: ignore[method-assign, assignment]
            await system.redis.xadd("orders", {"data": "1"})

            async def acknowledged() -> bool:
                return intake.matched == 1 and not (await system.redis.xpending("orders", GROUP))["pending"]

            await eventually(acknowledged)
            assert intake.received == 1


async def test_pending_entries_that_were_trimmed_do_not_stay_pending(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        await listen(system, "ship")
        await ensure_group(system.redis, "orders", "0")
        for number in range(3):
            entry = await system.redis.xadd("orders", {"data": str(number)})
        await delivered(system.redis, 1, entry.decode())
        await system.redis.xtrim("orders", maxlen=1, approximate=False)
        async with an_intake(system) as intake:
            await eventually(lambda: intake.received == 1)

            async def none() -> bool:
                return (await system.redis.xpending("orders", GROUP))["pending"] == 0

            await eventually(none)
