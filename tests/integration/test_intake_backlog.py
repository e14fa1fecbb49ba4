"""Windows that are due, and the streams that more of their events may come from."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from ordinaut.intake import backlog, windows
from ordinaut.intake.backlog import Backlog
from ordinaut.intake.windows import Windows
from ordinaut.runtime.streams import GROUP, ensure_group
from ordinaut.runtime.system import System
from tests.support.eventually import eventually
from tests.support.listening import a_system, an_intake, events, listen, roomy
from tests.support.windows import add, as_json, old, runs, settle, table


async def hidden(system: System, stream: str = "orders") -> bool:
    """Whether the stream may hold events up to now that have not been dealt with."""
    asked, now = Backlog(system.redis), system.time.now()

    async def later() -> bool:
        seconds, microseconds = await system.redis.time()
        return bool(seconds + microseconds / 1e6 > now.timestamp() + 0.001)

    await eventually(later, every=0.001)
    async with system.pool.acquire() as connection:
        await asked.ask(connection, [stream], now, now)
    return asked.hides([stream], now)


async def collected(system: System, number: int) -> bool:
    return len(await events(system, "EventCollected")) >= number


async def test_what_may_come_by_a_clock_that_is_behind_has_not_been_read(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        await ensure_group(system.redis, "orders")
        asked = Backlog(system.redis)
        ahead = system.time.now() + timedelta(seconds=60)  # as a database says it whose clock is ahead
        async with system.pool.acquire() as connection:
            await asked.ask(connection, ["orders", "others"], ahead, ahead)
        assert asked.hides(["orders"], ahead) and asked.hides(["others"], ahead)
        before = ahead - timedelta(seconds=70)
        assert not asked.hides(["orders"], before) and not asked.hides(["others"], before)


async def test_no_time_is_up_by_a_redis_whose_clock_is_behind(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        await listen(system, "save", debounce={"quiet": "2s"})
        real = system.time.now
        system.time.now = lambda: real() + timedelta(seconds=30)  # type: ignore[method-assign]
        async with an_intake(system):
            for number in range(4):
                await system.redis.xadd("orders", {"data": str(number)})
                await eventually(partial(collected, system, number + 1), timeout=20)
                assert await events(system, "WindowClosed") == []
            (run,) = await runs(system, 1)
        assert (run.data["input"], run.data["cause"]["count"]) == (3, 4)


async def test_what_is_unread_or_not_acknowledged_hides_events_until_it_is_dealt_with(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        assert not await hidden(system), "there is no such stream"
        await add(system, "orders", (0, 1))
        assert await hidden(system), "nobody has a group yet"
        await ensure_group(system.redis, "orders", "0")
        assert await hidden(system), "unread"
        ((_, ((entry_id, _),)),) = await system.redis.xreadgroup(GROUP, "one", {"orders": ">"})
        assert await hidden(system), "read"
        await system.redis.xack("orders", GROUP, entry_id)
        assert not await hidden(system)


async def test_an_entry_that_is_acknowledged_while_it_is_asked_for_stops_nothing(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_system(database_url, redis_url) as system:
        await add(system, "orders", (0, 1))
        await ensure_group(system.redis, "orders", "0")
        ((_, ((entry_id, _),)),) = await system.redis.xreadgroup(GROUP, "one", {"orders": ">"})
        asked = system.redis.xinfo_groups

        async def answered(stream: str) -> Any:
            groups = await asked(stream)
            await system.redis.xack(stream, GROUP, entry_id)
            return groups

        monkeypatch.setattr(system.redis, "xinfo_groups", answered)
        assert not await hidden(system)


async def test_entries_that_were_deleted_before_they_were_read_are_not_waited_for(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        await ensure_group(system.redis, "orders")
        await add(system, "orders", (0, 1), (1, 2))
        for entry_id, _ in await system.redis.xrange("orders"):
            await system.redis.xdel("orders", entry_id)
        assert not await hidden(system)
        await system.redis.xadd("orders", {"data": "3"})
        assert await hidden(system)
        await system.redis.xtrim("orders", maxlen=0)
        assert not await hidden(system)


async def test_a_redis_that_hangs_is_asked_once_and_not_for_each_stream(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "ANSWER_SECONDS", 0.2)
    asked_for: list[asyncio.StreamWriter] = []

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked_for.append(writer)
        await reader.read()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, a_system(database_url, redis_url) as system, Redis(port=port) as silent:
        asked, now = Backlog(silent), system.time.now()
        streams = [f"orders.{number}" for number in range(50)]
        async with system.pool.acquire() as connection:
            await asked.ask(connection, [*streams, "payments.*"], now, now)
        assert all(asked.hides([stream], now) for stream in [*streams, "payments.*"])
        assert len(asked_for) == 1
        for writer in asked_for:
            writer.close()


async def test_windows_end_while_more_and_more_is_collected(database_url: str, redis_url: str) -> None:
    """Under load there is always something new in the log."""
    stop = asyncio.Event()

    async with a_system(database_url, redis_url) as system:
        await listen(system, "save", key="${data.k}", debounce={"quiet": "200ms"})
        await listen(system, "all", batch={"time": "200ms"})

        async def keep_adding() -> None:
            number = 0
            while not stop.is_set():
                async with system.redis.pipeline(transaction=False) as pipeline:
                    for _ in range(20):
                        number += 1
                        pipeline.xadd("orders", {"data": as_json({"k": number})})
                    await pipeline.execute()
                await asyncio.sleep(0.01)

        async with an_intake(system):
            adding = asyncio.create_task(keep_adding())
            try:
                for name in ("save", "all"):

                    async def ended(name: str = name) -> bool:
                        closed = await events(system, "WindowClosed")
                        return len([one for one in closed if one.data["name"] == name]) > 5

                    await eventually(ended, timeout=30)
            finally:
                stop.set()
                await adding


async def test_a_stream_that_is_ahead_of_another_makes_nothing_absent_that_has_only_not_been_read(
    database_url: str, redis_url: str
) -> None:
    unpaid = {"within": "30s", "after": {"stream": "orders"}, "expected": {"stream": "payments"}}
    async with a_system(database_url, redis_url) as system:
        await old(system, "remind", key="${data.k}", absent=unpaid)
        await ensure_group(system.redis, "payments", "0")
        await add(system, "orders", (0, {"k": 1}), (3600, {"k": 1}))
        await add(system, "payments", (5, {"k": 1}), (3605, {"k": 1}))
        # Somebody has the payments, and does not say yet what they mean.
        await system.redis.xreadgroup(GROUP, "another", {"payments": ">"})
        async with an_intake(system):

            async def orders_are_in() -> bool:
                return len(await events(system, "EventCollected")) >= 2

            await eventually(orders_are_in, timeout=20)
            await Windows(system, roomy(system)).step()

            async def arrived() -> bool:
                return len(await events(system, "WindowClosed")) == 2

            await eventually(arrived, timeout=20)
        assert [one.data["reason"] for one in await events(system, "WindowClosed")] == ["arrived"] * 2
        assert await events(system, "RunRequested") == []


async def test_the_patience_with_a_stream_begins_anew_with_each_window(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def idle(self: Windows, stop: asyncio.Event) -> None:
        await stop.wait()

    monkeypatch.setattr(Windows, "run", idle)
    passed = [0.0]
    monkeypatch.setattr(windows, "monotonic", lambda: passed[0])

    async with a_system(database_url, redis_url) as system:
        await old(system, "save", debounce={"quiet": "10s"})
        one = Windows(system, roomy(system))

        async def collected_and_one_unread(second: int, number: int) -> None:
            await add(system, "orders", (second, number))
            async with an_intake(system):

                async def collected() -> bool:
                    return len(await events(system, "EventCollected")) == number

                await eventually(collected, timeout=20)
            await add(system, "orders", (second + 5, 0))
            while await one.step():
                pass

        await collected_and_one_unread(0, 1)
        assert len(await table(system)) == 1, "it waits"
        await system.redis.xtrim("orders", maxlen=0)
        await settle(system)
        assert await table(system) == {}, "another intake has ended it"
        passed[0] += 2 * windows.PATIENCE_SECONDS
        await collected_and_one_unread(100, 2)
        assert len(await table(system)) == 1, "this one waits, too"
        passed[0] += 2 * windows.PATIENCE_SECONDS
        while await one.step():
            pass
        assert await table(system) == {}, "but not for ever"
