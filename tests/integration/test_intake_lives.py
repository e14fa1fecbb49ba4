"""A stream that was deleted and created again is new work; an entry that comes again is not (I7)."""

import pytest

from ordinaut.domain import ids
from ordinaut.runtime.streams import GROUP
from tests.support.eventually import eventually
from tests.support.listening import a_system, an_intake, events, listen, read_to_the_end


async def test_entries_of_a_stream_that_was_created_again_are_new_work_though_their_ids_are_not(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        ship = await listen(system, "ship")
        await eventually(lambda: "orders" in intake.lags)
        lives = [["b", "a"], ["b", "c", "d"], ["b", "e"]]
        matched = 0
        for life, texts in enumerate(lives):
            if life:
                await system.redis.delete("orders")
            for number, text in enumerate(texts, 1):
                await system.redis.xadd("orders", {"data": f'"{text}"'}, id=f"{number}-1")
            matched += 2 if life == 0 else len(texts) - 1  # `b` is the same entry each time
            await eventually(lambda wanted=matched: intake.matched == wanted)
        runs = {run.data["input"]: run for run in await events(system, "RunRequested")}
        got = {text: run.data["cause"]["id"] for text, run in runs.items()}
        assert got == {"b": "1-1", "a": "2-1", "c": "2-1", "d": "3-1", "e": "2-1"}
        assert runs["a"].stream == f"run-{ids.entry_run_id('default', 'orders', '2-1', ship.id)}"
        digest = runs["c"].data["digest"]
        assert runs["c"].stream == f"run-{ids.entry_run_id('default', 'orders', '2-1', ship.id, digest)}"


async def test_an_entry_of_a_second_life_that_is_read_again_gets_no_second_run(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        await listen(system, "ship")
        await eventually(lambda: "orders" in intake.lags)
        await system.redis.xadd("orders", {"data": "1"}, id="5-1")
        await eventually(lambda: intake.matched == 1)
        await system.redis.delete("orders")
        await system.redis.xadd("orders", {"data": "2"}, id="5-1")
        await eventually(lambda: intake.matched == 2)
        for number in (3, 4):
            await system.redis.xgroup_destroy("orders", GROUP)
            await eventually(lambda wanted=number: intake.received == wanted)
        assert [run.data["input"] for run in await events(system, "RunRequested")] == [1, 2]


@pytest.mark.parametrize("older", [1, 3])
async def test_a_redis_from_an_older_snapshot_starts_nothing_twice(
    database_url: str, redis_url: str, older: int
) -> None:
    """What was in the snapshot is read again. What is added then is new, though its id was given before."""
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        await listen(system, "ship")
        await eventually(lambda: "orders" in intake.lags)
        for number in range(1, 5):
            await system.redis.xadd("orders", {"data": str(number)}, id=f"{number}-1")
            if number == older:
                snapshot = await system.redis.dump("orders")
        await eventually(lambda: intake.matched == 4)
        await system.redis.delete("orders")
        await system.redis.restore("orders", 0, snapshot)
        await system.redis.xadd("orders", {"data": '"new"'}, id="4-1")
        await eventually(lambda: intake.matched == 5)

        await eventually(lambda: read_to_the_end(system.redis))
        inputs = [run.data["input"] for run in await events(system, "RunRequested")]
        assert inputs == [1, 2, 3, 4, "new"]


async def test_a_bad_entry_of_another_life_is_another_rejection(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        await listen(system, "ship")
        await eventually(lambda: "orders" in intake.lags)
        for number, data in enumerate(("{", "[", "[")):
            await system.redis.xadd("orders", {"data": data}, id="5-1")
            await eventually(lambda wanted=number + 1: intake.received == wanted)
            await system.redis.delete("orders")
        entries = [event.data["entry"]["data"] for event in await events(system, "EventRejected")]
        assert entries == ["{", "["]


async def test_a_task_that_is_new_gets_one_run_for_an_entry_whose_id_others_had_before(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        await listen(system, "ship")
        await eventually(lambda: "orders" in intake.lags)
        await system.redis.xadd("orders", {"data": "1"}, id="5-1")
        await eventually(lambda: intake.matched == 1)
        await listen(system, "pack")
        await system.redis.delete("orders")
        await system.redis.xadd("orders", {"data": "2"}, id="5-1")
        await eventually(lambda: intake.matched == 3)
        runs = [(run.data["name"], run.data["input"]) for run in await events(system, "RunRequested")]
        assert sorted(runs) == [("pack", 2), ("ship", 1), ("ship", 2)]
