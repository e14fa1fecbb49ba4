"""No more is read than the queue can take, and what will never be read is told."""

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from ordinaut.domain import task
from ordinaut.domain.events import NewEvent
from ordinaut.domain.run import run_stream
from ordinaut.intake.reads import BATCH
from ordinaut.log.append import Append
from ordinaut.runtime.metrics import REGISTRY
from ordinaut.runtime.streams import GROUP, ensure_group
from ordinaut.runtime.system import System
from projections import due_work
from projections.projector import step
from projections.registry import all_projections
from tests.support.api import running_api
from tests.support.commands import ordinaut
from tests.support.eventually import eventually
from tests.support.listening import a_system, an_intake, events, happen, listen, read_to_the_end
from tests.support.redis_servers import needs


def measured(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def finish(system: System, count: int) -> None:
    """What workers do: so many of the waiting runs end."""
    rows = await system.pool.fetch("SELECT run_id::text AS id, space FROM due_work LIMIT $1", count)
    done = [
        Append(run_stream(row["id"]), 1, [NewEvent("RunCanceled", {"reason": None})], row["space"], "t", "t")
        for row in rows
    ]
    await system.appender.append_all(done)


async def group_of(system: System) -> dict[str, Any]:
    (group,) = await system.redis.xinfo_groups("orders")
    found: dict[str, Any] = group
    return found


async def test_a_full_queue_holds_reading_back_until_there_is_room_again(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ordinaut.intake.intake.BATCH", 10)
    async with a_system(database_url, redis_url, queue_high_water=50) as system:
        await listen(system, "ship")
        await ensure_group(system.redis, "orders", "0")
        for number in range(200):
            await system.redis.xadd("orders", {"data": str(number)})
        async with an_intake(system) as intake:

            async def held() -> bool:
                return intake.pressure.held and (await group_of(system))["pending"] == 0

            await eventually(held)
            read = intake.received
            # The mark, and what was on its way when it was reached: two batches.
            assert 50 <= read <= 70
            assert "50 runs or more wait" in (intake.pressure.trouble or "")
            assert measured("ordinaut_intake_held_back") == 1
            await finish(system, read - 45)  # below the mark, above the point at which it goes on
            counted = intake.pressure._asked
            await eventually(lambda: intake.pressure._asked > counted + 0.3)
            assert (intake.received, intake.pressure.held) == (read, True)
            await finish(system, 20)
            await eventually(lambda: intake.received > read)

            async def drained() -> bool:
                async with system.pool.acquire() as connection:
                    waiting = await due_work.waiting(connection, 1000)
                assert waiting <= 70
                await finish(system, 30)
                return intake.received == 200

            await eventually(drained, 20)
            await eventually(lambda: not intake.pressure.held)
        assert sorted(run.data["input"] for run in await events(system, "RunRequested")) == list(range(200))


async def test_a_full_queue_holds_reactions_to_the_log_back_and_none_is_lost(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ordinaut.intake.log_events.BATCH", 10)
    async with a_system(database_url, redis_url, queue_high_water=30) as system:
        await listen(system, "alarm", event="TaskPaused")
        state = await listen(system, "often")
        for _ in range(80):
            state = await happen(system, state, task.pause(state, None))
            state = await happen(system, state, task.resume(state))
        paused = [event.position for event in await events(system, "TaskPaused")]

        async def asked_for() -> list[int]:
            return [run.data["cause"]["position"] for run in await events(system, "RunRequested")]

        async with an_intake(system) as intake:
            await eventually(lambda: intake.pressure.held)
            counted = intake.pressure._asked
            await eventually(lambda: intake.pressure._asked > counted + 0.5)
            # The mark, and the batch that was on its way when it was reached.
            read = await asked_for()
            assert 30 <= len(read) <= 40
            assert read == paused[: len(read)]
            assert "no task reacts to events of the log" in (intake.pressure.trouble or "")
            assert measured("ordinaut_intake_held_back") == 1
            assert (measured("ordinaut_reactions_lag_events") or 0) >= 2 * (80 - len(read)) - 1

            async def drained() -> bool:
                async with system.pool.acquire() as connection:
                    assert await due_work.waiting(connection, 1000) <= 40
                await finish(system, 10)
                return len(await asked_for()) == 80

            await eventually(drained, 20)
            await eventually(lambda: measured("ordinaut_reactions_lag_events") == 0)
        assert await asked_for() == paused


async def test_a_full_queue_holds_windows_back_and_their_patience_with_streams_too(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ordinaut.intake.windows.PATIENCE_SECONDS", 0.3)
    async with a_system(database_url, redis_url, queue_high_water=1) as system:
        await listen(system, "load", batch={"size": 100, "time": "2s"})
        await listen(system, "fills", "letters")
        async with an_intake(system) as intake:
            await system.redis.xadd("orders", {"data": "1"})
            await eventually(lambda: system.pool.fetchval("SELECT count(*) FROM windows"))
            await system.redis.xadd("letters", {"data": "1"})
            await eventually(lambda: intake.pressure.held)
            # Within the window, and not read before it is over.
            await system.redis.xadd("orders", {"data": "2"})
            over = "SELECT count(*) FROM windows WHERE due_at < now() - interval '1 second'"
            await eventually(lambda: system.pool.fetchval(over))
            assert len(await events(system, "RunRequested")) == 1
            await finish(system, 1)
            await eventually(lambda: events(system, "WindowClosed"))
        (_, run) = await events(system, "RunRequested")
        assert run.data["input"] == [1, 2]


async def test_of_a_long_backlog_little_is_pending_and_no_more_runs_wait_than_may(
    database_url: str, redis_url: str
) -> None:
    entries, mark = 20_000, 2_000
    async with a_system(database_url, redis_url, queue_high_water=mark) as system:
        await listen(system, "ship", where="data.kind == 'ship'")
        await ensure_group(system.redis, "orders", "0")
        for start in range(0, entries, BATCH):
            async with system.redis.pipeline(transaction=False) as pipeline:
                for n in range(start, start + BATCH):
                    entry = {"n": n, "kind": "ship" if n % 2 else "bill"}
                    pipeline.xadd("orders", {"data": json.dumps(entry)})
                await pipeline.execute()
        pending, waiting, held = [0], [0], False
        async with an_intake(system) as intake:

            async def taken_in() -> bool:
                nonlocal held
                pending.append((await group_of(system))["pending"])
                async with system.pool.acquire() as connection:
                    waiting.append(await due_work.waiting(connection, entries))
                if intake.pressure.held:
                    held = True
                    await finish(system, waiting[-1])
                return await read_to_the_end(system.redis)

            await eventually(taken_in, 60)
        assert held
        # The batch that is recorded, the one that has been read meanwhile, and one to acknowledge.
        assert 0 < max(pending) <= 3 * BATCH
        assert mark <= max(waiting) <= mark + 2 * BATCH
        requested = await system.pool.fetch(
            "SELECT (data #>> '{input,n}')::int AS n FROM events WHERE type = 'RunRequested'"
        )
        assert sorted(row["n"] for row in requested) == list(range(1, entries, 2))


async def test_reading_goes_on_when_there_is_room_however_slow_the_poll_is(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url, queue_high_water=5, poll_seconds=60) as system:
        await listen(system, "ship")
        await ensure_group(system.redis, "orders", "0")
        async with an_intake(system) as intake:
            await eventually(lambda: "orders" in intake.lags)
            for number in range(5):
                await system.redis.xadd("orders", {"data": str(number)})
            await eventually(lambda: intake.pressure.held)
            await system.redis.xadd("orders", {"data": "5"})
            await finish(system, 5)
            await eventually(lambda: intake.matched == 6)


async def test_a_full_queue_is_told_and_the_api_stays_ready(database_url: str, redis_url: str) -> None:
    async with running_api(database_url, redis_url, queue_high_water=3) as api:
        await api.http.put("/v1/tasks/hello", json={"pipeline": [{"id": "a", "uses": "debug.echo"}]})

        async def ready() -> Any:
            answer = await api.http.get("/health/ready")
            assert answer.status_code == 200
            return answer.json()

        assert "queue" not in (await ready())["checks"]
        for _ in range(3):
            await api.http.post("/v1/tasks/hello/run", json={})
        told = await ready()
        assert told["status"] == "degraded"
        assert "3 runs or more wait" in told["checks"]["queue"]["detail"]
        env = {"ORDINAUT_DATABASE_URL": database_url, "ORDINAUT_REDIS_URL": redis_url}
        done = ordinaut("doctor", "--json", env=env | {"ORDINAUT_QUEUE_HIGH_WATER": "3"})
        found = {one["check"]: one for one in json.loads(done.stdout)}
        assert found["queue"]["level"] == "warn"
        assert "nothing is read from streams" in found["queue"]["found"]
        assert found["dead letters"]["level"] == "ok"


async def test_entries_that_were_trimmed_unread_are_told_once(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url, queue_high_water=1) as system:
        await needs(system.redis, 7, "how many entries there have ever been in a stream")
        await listen(system, "ship")
        await ensure_group(system.redis, "orders", "0")
        before = measured("ordinaut_stream_entries_gone_total") or 0.0
        with capture_logs() as logs:
            async with an_intake(system) as intake:
                await system.redis.xadd("orders", {"data": "0"})
                await eventually(lambda: intake.pressure.held)
                for number in range(1, 101):
                    await system.redis.xadd("orders", {"data": str(number)}, maxlen=20, approximate=False)

                def gone() -> float:
                    return (measured("ordinaut_stream_entries_gone_total") or 0.0) - before

                await eventually(lambda: gone() == 80)
                assert measured("ordinaut_stream_lag_entries", stream="orders") == 20
                assert measured("ordinaut_stream_pending_entries", stream="orders") == 0
                async with system.pool.acquire() as connection:
                    await step(connection, all_projections()["tasks"])
                env = {"ORDINAUT_DATABASE_URL": database_url, "ORDINAUT_REDIS_URL": redis_url}
                done = json.loads(ordinaut("doctor", "--json", env=env).stdout)
                told = [one["found"] for one in done if one["check"] == "stream orders"]
                looked = intake._watch._at
                await eventually(lambda: intake._watch._at > looked)
                assert gone() == 80

                async def read() -> bool:
                    await finish(system, 30)
                    return intake.received == 21

                await eventually(read)
                # Redis itself goes on counting those that are gone.
                await eventually(lambda: measured("ordinaut_stream_lag_entries", stream="orders") == 0)
        assert any("80 entries were trimmed or deleted before anybody had read them" in one for one in told)
        warnings = [one for one in logs if one["event"] == "intake.entries_gone_unread"]
        assert sum(one["entries"] for one in warnings) == 80


async def test_nothing_that_was_read_is_told_as_gone(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        before = measured("ordinaut_stream_entries_gone_total") or 0.0
        async with an_intake(system) as intake:
            await listen(system, "ship")
            await eventually(lambda: "orders" in intake.lags)
            for number in range(30):
                await system.redis.xadd("orders", {"data": str(number)})
            await eventually(lambda: intake.matched == 30)
            await system.redis.xtrim("orders", maxlen=0, approximate=False)
            await system.redis.xadd("orders", {"data": "30"})
            await eventually(lambda: intake.matched == 31)
            looked = intake._watch._at
            await eventually(lambda: intake._watch._at > looked)
        assert (measured("ordinaut_stream_entries_gone_total") or 0.0) == before
        assert (await system.redis.xpending("orders", GROUP))["pending"] == 0
