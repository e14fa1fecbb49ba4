"""Stream entries become runs: one for each entry and task, whatever the entry looks like."""

import json
import random
from datetime import UTC, datetime, timedelta

import orjson
from redis.asyncio import Redis

from ordinaut.domain import task
from ordinaut.domain.ids import entry_run_id
from ordinaut.runtime.streams import DEAD, GROUP, ensure_group, milliseconds, open_stream, unheard_from
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex
from tests.support.eventually import eventually
from tests.support.listening import a_system, an_intake, events, happen, listen, read_to_the_end


async def requested(system: System, count: int) -> list[object]:
    async def enough() -> list[object]:
        inputs = [event.data["input"] for event in await events(system, "RunRequested")]
        assert len(inputs) >= count, inputs
        return inputs

    return await eventually(enough)


async def settled(redis: Redis, stream: str = "orders") -> None:
    """Every entry has been read and acknowledged."""
    await eventually(lambda: read_to_the_end(redis, stream))


async def test_an_entry_becomes_a_run_of_the_task_that_listens(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system):
        listener = await listen(system, "ship")
        entry = await system.redis.xadd("orders", {"data": json.dumps({"id": 7, "amount": 120})})
        await requested(system, 1)
        (event,) = await events(system, "RunRequested")
        entry_id = entry.decode()
        run = entry_run_id("default", "orders", entry_id, listener.id)
        assert event.stream == f"run-{run}"
        assert event.data["cause"] == {"kind": "stream", "stream": "orders", "id": entry_id}
        assert event.data["input"] == {"id": 7, "amount": 120}
        assert (event.actor, event.correlation, event.causation) == (
            "intake",
            run,
            f"redis:orders/{entry_id}",
        )
        await settled(system.redis)


async def test_flat_fields_json_and_cloud_events_are_read(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system):
        await listen(system, "ship")
        cloud = {"specversion": "1.0", "type": "order.made", "source": "/shop", "id": "1"}
        await system.redis.xadd("orders", {"id": "7", "amount": "120"})
        await system.redis.xadd("orders", {"data": "[1, 2]"})
        await system.redis.xadd("orders", {"data": orjson.dumps({**cloud, "data": {"amount": 5}})})
        binary = {f"ce_{name}": value for name, value in cloud.items()}
        await system.redis.xadd("orders", {**binary, "data": '{"amount": 6}'})
        assert await requested(system, 4) == [
            {"id": "7", "amount": "120"},
            [1, 2],
            {"amount": 5},
            {"amount": 6},
        ]


async def test_where_chooses_and_input_shapes(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system):
        await listen(system, "big", where="data.amount > `100`", input={"sum": "${data.amount}"})
        await listen(system, "all")
        for amount in (50, 120):
            await system.redis.xadd("orders", {"data": json.dumps({"amount": amount})})
        await requested(system, 3)
        got = [(event.data["name"], event.data["input"]) for event in await events(system, "RunRequested")]
        assert sorted(got, key=repr) == [
            ("all", {"amount": 120}),
            ("all", {"amount": 50}),
            ("big", {"sum": 120}),
        ]


async def test_tasks_of_every_space_hear_a_stream(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system):
        await listen(system, "ship", space="here")
        await listen(system, "ship", space="there")
        await system.redis.xadd("orders", {"data": "1"})

        async def each_has_one() -> bool:
            spaces = [await events(system, "RunRequested", space=space) for space in ("here", "there")]
            return [len(runs) for runs in spaces] == [1, 1]

        await eventually(each_has_one)


async def test_a_task_acknowledged_before_the_entry_is_never_missed(
    database_url: str, redis_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    async with a_system(database_url, redis_url) as system, an_intake(system):
        index = TriggerIndex(system.pool)
        for number in range(40):
            stream = f"stream-{chance.randrange(6)}"
            await listen(system, f"task-{number}", stream, where=f"data == `{number}`")
            if chance.random() < 0.5:
                # As the API does before it answers, unless Redis is away at that moment.
                await open_stream(system.redis, system.pool, index, stream)
            await system.redis.xadd(stream, {"data": str(number)})
        assert sorted(await requested(system, 40), key=str) == sorted(range(40), key=str)


async def test_a_group_begins_with_the_millisecond_in_which_the_task_was_created(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        created = datetime.now(UTC)
        at = milliseconds(created)
        for entry_id in (f"{at - 1}-7", f"{at}-0", f"{at}-1"):
            await redis.xadd("orders", {"data": "1"}, id=entry_id)
        later = created + timedelta(seconds=1)
        assert await ensure_group(redis, "orders", await unheard_from(redis, "orders", [later, created], 0))
        ((_, entries),) = await redis.xreadgroup(GROUP, "somebody", {"orders": ">"})
        assert [entry_id.decode() for entry_id, _ in entries] == [f"{at}-0", f"{at}-1"]


async def test_a_task_does_not_take_what_was_there_before_it(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        await system.redis.xadd("orders", {"data": '"old"'}, id="1000-1")
        await listen(system, "ship")
        async with an_intake(system):
            await system.redis.xadd("orders", {"data": '"new"'})
            assert await requested(system, 1) == ["new"]
            await settled(system.redis)
            assert len(await events(system, "RunRequested")) == 1


async def test_a_paused_task_gets_its_verdict_and_no_run(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system):
        ship = await listen(system, "ship")
        ship = await happen(system, ship, task.pause(ship, "stocktaking"))
        await system.redis.xadd("orders", {"data": "1"})

        async def skipped() -> bool:
            return [event.data["reason"] for event in await events(system, "OccurrenceSkipped")] == ["paused"]

        await eventually(skipped)
        await happen(system, ship, task.resume(ship))
        await system.redis.xadd("orders", {"data": "2"})
        assert await requested(system, 1) == [2]


async def test_an_entry_after_the_end_of_a_pause_runs_though_no_clock_has_resumed_the_task(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system):
        ship = await listen(system, "ship")
        until = system.time.now() + timedelta(seconds=2)
        await happen(system, ship, task.pause(ship, "stocktaking", until))
        await system.redis.xadd("orders", {"data": "1"})

        async def skipped() -> bool:
            return [event.data["reason"] for event in await events(system, "OccurrenceSkipped")] == ["paused"]

        await eventually(skipped)
        await eventually(lambda: system.time.now() > until, 20)
        await system.redis.xadd("orders", {"data": "2"})
        assert await requested(system, 1) == [2]
        assert (await system.tasks.load(ship.id)).status == "paused"


async def test_a_retired_task_hears_nothing_and_its_successor_only_what_is_new(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        ship = await listen(system, "ship")
        await system.redis.xadd("orders", {"data": "1"})
        await requested(system, 1)
        await happen(system, ship, task.retire(ship, None))
        await system.redis.xadd("orders", {"data": "2"})
        await eventually(lambda: intake.received == 2)
        await listen(system, "ship-again")
        await system.redis.xadd("orders", {"data": "3"})
        assert await requested(system, 2) == [1, 3]


async def test_what_a_step_added_goes_on_with_its_correlation_and_depth(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system):
        await listen(system, "ship")
        about = {"ordinaut-key": "run/step", "ordinaut-correlation": "the-first-run", "ordinaut-depth": "3"}
        await system.redis.xadd("orders", {"data": '{"a": 1}', **about})
        await system.redis.xadd("orders", {"data": "2", **about, "ordinaut-depth": "16"})
        assert await requested(system, 1) == [{"a": 1}]
        (run,) = await events(system, "RunRequested")
        assert (run.correlation, run.data["depth"]) == ("the-first-run", 4)

        async def cut() -> bool:
            skips = await events(system, "OccurrenceSkipped")
            return [event.data["reason"] for event in skips] == ["causation_depth"]

        await eventually(cut)


async def test_a_clean_stop_takes_the_consumer_out_of_the_group(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        async with an_intake(system):
            await listen(system, "ship")
            await system.redis.xadd("orders", {"data": "1"})
            await requested(system, 1)
        assert await system.redis.xinfo_consumers("orders", GROUP) == []
        assert not await system.redis.exists(DEAD)


async def test_ids_that_are_no_times_are_as_good_as_others(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        await listen(system, "ship")
        await open_stream(system.redis, system.pool, TriggerIndex(system.pool), "orders")
        for number in (1, 2):
            await system.redis.xadd("orders", {"data": str(number)}, id=f"{number}-1")
        async with an_intake(system):
            assert await requested(system, 2) == [1, 2]
            await system.redis.xadd("orders", {"data": "3"}, id="3-1")
            assert await requested(system, 3) == [1, 2, 3]
