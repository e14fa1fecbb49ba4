"""One entry, one run (I7): however often it is delivered, to whomever, and whatever Redis forgets."""

import asyncio
from urllib.parse import urlsplit

from redis.asyncio import Redis

from ordinaut.domain import task
from ordinaut.intake.record import Recorder
from ordinaut.intake.source import Source
from ordinaut.runtime.entries import Entry
from ordinaut.runtime.streams import GROUP, ensure_group
from ordinaut.runtime.triggers import TriggerIndex
from tests.support.eventually import eventually
from tests.support.listening import a_system, an_intake, events, happen, listen, read_to_the_end
from tests.support.servers import Servers, execute


async def test_two_intakes_share_a_group_and_each_entry_gets_one_run(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as one, a_system(database_url, redis_url) as other:
        await listen(one, "ship")
        async with an_intake(one) as first, an_intake(other) as second:
            await eventually(lambda: first.lags and second.lags)
            for number in range(200):
                await one.redis.xadd("orders", {"data": str(number)})
            await eventually(lambda: first.received + second.received == 200)
        inputs = [event.data["input"] for event in await events(one, "RunRequested")]
        assert sorted(inputs) == list(range(200))


async def test_an_entry_recorded_but_not_acknowledged_is_claimed_and_gets_no_second_run(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        await listen(system, "ship")
        await ensure_group(system.redis, "orders", "0")
        for number in range(3):
            await system.redis.xadd("orders", {"data": str(number)})
        # An intake that dies between its commit and XACK.
        reply = await system.redis.xreadgroup(GROUP, "dead", {"orders": ">"})
        ((_, read),) = reply.items() if isinstance(reply, dict) else reply
        recorder = Recorder(system, TriggerIndex(system.pool))
        entries = [Entry("orders", entry_id.decode(), fields) for entry_id, fields in read[:2]]
        assert await recorder.record(entries, {"orders": Source("orders")}) == []
        async with an_intake(system) as intake:
            await eventually(lambda: intake.received == 3)
            assert intake.matched == 1
        assert len(await events(system, "RunRequested")) == 3
        assert (await system.redis.xpending("orders", GROUP))["pending"] == 0


async def test_new_entries_work_after_flushall(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        await listen(system, "ship")
        await system.redis.xadd("orders", {"data": "1"})
        await eventually(lambda: intake.matched == 1)
        await system.redis.flushdb()
        await system.redis.xadd("orders", {"data": "2"})
        await eventually(lambda: intake.matched == 2)
        assert [event.data["input"] for event in await events(system, "RunRequested")] == [1, 2]


async def test_a_group_that_was_destroyed_is_made_again_without_a_second_run(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        await listen(system, "ship")
        await system.redis.xadd("orders", {"data": "1"})
        await eventually(lambda: intake.matched == 1)
        await listen(system, "late")
        await system.redis.xgroup_destroy("orders", GROUP)
        await system.redis.xadd("orders", {"data": "2"})
        await eventually(lambda: intake.matched == 3)
        got = [(event.data["name"], event.data["input"]) for event in await events(system, "RunRequested")]
        assert sorted(got) == [("late", 2), ("ship", 1), ("ship", 2)]


async def test_a_change_between_reading_and_recording_is_decided_again(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        ship = await listen(system, "ship")
        index = TriggerIndex(system.pool)
        recorder = Recorder(system, index)
        fresh = index.refresh
        paused = False

        async def refresh_and_then_pause() -> None:
            nonlocal paused
            await fresh()
            if not paused:
                paused = True
                await happen(system, ship, task.pause(ship, None))

        index.refresh = refresh_and_then_pause  # type: ignore[method-assign]
        await recorder.record([Entry("orders", "5-1", {b"data": b"1"})], {})
        assert await events(system, "RunRequested") == []
        (skip,) = await events(system, "OccurrenceSkipped")
        assert skip.data["reason"] == "paused"


async def test_what_changed_before_the_entry_came_counts_though_nobody_has_looked(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        picky = await listen(system, "picky", where="length(data) > `1`")
        index = TriggerIndex(system.pool)
        await index.refresh()
        mended = {**picky.definition, "schedule": {"on": {"stream": "orders", "where": None, "input": None}}}
        await happen(system, picky, task.change(picky, mended, [], ""))
        await listen(system, "new")
        assert await Recorder(system, index).record([Entry("orders", "5-1", {b"data": b"1"})], {}) == []
        runs = await events(system, "RunRequested")
        assert sorted((run.data["name"], run.data["task_version"]) for run in runs) == [
            ("new", 1),
            ("picky", 2),
        ]
        assert await events(system, "EventRejected") == []


async def test_while_redis_is_away_it_waits_and_then_goes_on(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        await listen(system, "ship")
        await system.redis.xadd("orders", {"data": "1"})
        await eventually(lambda: intake.matched == 1)
        other = Redis.from_url(redis_url)
        for _ in range(5):
            await other.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0)
        await other.xadd("orders", {"data": "2"})
        await other.aclose()
        await eventually(lambda: intake.matched == 2)
        await eventually(lambda: intake.trouble is None)


async def test_while_postgresql_is_away_nothing_is_acknowledged_and_nothing_lost(
    servers: Servers, database_url: str, redis_url: str
) -> None:
    name = urlsplit(database_url).path.removeprefix("/")
    away = (
        f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false',
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    back = f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        await listen(system, "ship")
        await system.redis.xadd("orders", {"data": "1"})
        await eventually(lambda: intake.matched == 1)
        await execute(servers.database_url, *away)
        try:
            await system.redis.xadd("orders", {"data": "2"})

            async def waits() -> bool:
                # Not read yet, or read and in hand.
                return bool(intake.trouble) and not await read_to_the_end(system.redis)

            await eventually(waits)
        finally:
            await execute(servers.database_url, back)
        await eventually(lambda: intake.matched == 2)
        await eventually(lambda: intake.trouble is None)
        assert [event.data["input"] for event in await events(system, "RunRequested")] == [1, 2]
