"""Bad entries are named and parked (I12); the good ones beside them go on."""

from ordinaut.runtime.streams import DEAD
from tests.support.eventually import eventually
from tests.support.listening import a_system, an_intake, events, listen


async def test_bad_entries_are_parked_with_the_reason_and_others_go_on(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        await listen(system, "ship")
        bad = await system.redis.xadd("orders", {"data": "{not json"})
        await system.redis.xadd("orders", {"name": b"\xff\xfe"})
        await system.redis.xadd("orders", {"data": "x" * 2_000_000})
        await system.redis.xadd("orders", {"data": "[" * 5000 + "]" * 5000})
        await system.redis.xadd("orders", {"data": '"good"'})
        await eventually(lambda: (intake.received, intake.matched, intake.rejected) == (5, 1, 4))
        rejected = await events(system, "EventRejected")
        assert [event.data["stream"] for event in rejected] == ["orders"] * 4
        assert rejected[0].data["id"] == bad.decode()
        assert "not JSON" in rejected[0].data["reason"]
        assert rejected[0].data["entry"] == {"data": "{not json"}
        assert "UTF-8" in rejected[1].data["reason"]
        assert "bytes" in rejected[2].data["reason"]
        assert len(rejected[2].data["entry"]["data"]) < 2000
        assert [event.data["input"] for event in await events(system, "RunRequested")] == ["good"]
        dead = [fields for _, fields in await system.redis.xrange(DEAD)]
        assert dead[0] == {
            b"reason": rejected[0].data["reason"].encode(), b"stream": b"orders", b"id": bad,
            b"space": b"default", b"data": b"{not json",
        }  # fmt: skip
        assert dead[1][b"name"] == b"\xff\xfe"
        assert dead[2][b"shortened"] == b"true"
        assert len(dead) == 4
        assert (await system.redis.xpending("orders", "ordinaut"))["pending"] == 0


async def test_a_where_that_fails_rejects_the_entry_for_its_task_alone(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        picky = await listen(system, "picky", where="length(data) > `1`")
        await listen(system, "easy")
        await system.redis.xadd("orders", {"data": "5"})
        await eventually(lambda: (intake.matched, intake.rejected) == (1, 1))
        (rejected,) = await events(system, "EventRejected")
        assert (rejected.data["task"], rejected.data["name"]) == (picky.id, "picky")
        assert "length()" in rejected.data["reason"]
        ((_, copy),) = await system.redis.xrange(DEAD)
        assert copy[b"task"] == b"picky"
        assert copy[b"data"] == b"5"


async def test_an_input_that_cannot_be_stored_is_a_rejection(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        await listen(system, "sum", input={"total": "${sum(data)}"})
        await system.redis.xadd("orders", {"data": "[9223372036854775807, 18446744073709551615]"})
        await system.redis.xadd("orders", {"data": "[1, 2]"})
        await eventually(lambda: (intake.matched, intake.rejected) == (1, 1))
        (rejected,) = await events(system, "EventRejected")
        assert "64 bits" in rejected.data["reason"]


async def test_a_key_that_is_no_stream_is_left_alone_until_it_is_one(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        await system.redis.set("orders", "a text")
        await listen(system, "ship")
        await listen(system, "pack", "parcels")
        await system.redis.xadd("parcels", {"data": "1"})
        await eventually(lambda: intake.matched == 1)
        assert await system.redis.get("orders") == b"a text"
        await system.redis.delete("orders")
        await system.redis.xadd("orders", {"data": "2"})
        await eventually(lambda: intake.matched == 2)


async def test_a_stream_that_becomes_something_else_does_not_hold_the_others_up(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        await listen(system, "ship")
        await listen(system, "pack", "parcels")
        await system.redis.xadd("orders", {"data": "1"})
        await eventually(lambda: intake.matched == 1)
        await system.redis.delete("orders")
        await system.redis.set("orders", "a text")
        await system.redis.xadd("parcels", {"data": "2"})
        await eventually(lambda: intake.matched == 2)


async def test_a_dead_letter_key_that_is_no_stream_holds_nothing_up(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        await system.redis.set(DEAD, "a text")
        await listen(system, "ship")
        await system.redis.xadd("orders", {"data": "{"})
        await system.redis.xadd("orders", {"data": "1"})
        await eventually(lambda: (intake.matched, intake.rejected) == (1, 1))
        assert len(await events(system, "EventRejected")) == 1
