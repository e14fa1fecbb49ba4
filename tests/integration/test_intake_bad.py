"""Bad entries are named and parked (I12); the good ones beside them go on."""

from collections.abc import Sequence
from typing import Any

import pytest

from ordinaut.intake.intake import Intake
from ordinaut.runtime.entries import Entry
from ordinaut.runtime.streams import DEAD, GROUP, ensure_group
from tests.support.eventually import eventually
from tests.support.listening import a_system, an_intake, events, listen, read_to_the_end
from tests.support.running import running


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
        await eventually(lambda: read_to_the_end(system.redis))
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
        told = str(intake.unreadable)
        assert "'orders' cannot be read: WRONGTYPE" in told and "must be a stream" in told
        await system.redis.delete("orders")
        await system.redis.xadd("orders", {"data": "2"})
        await eventually(lambda: intake.matched == 2)
        assert intake.unreadable is None


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


async def test_every_kind_of_bad_entry_is_a_dead_letter_of_its_own(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system, an_intake(system) as intake:
        await listen(system, "ship")
        bad: dict[str, dict[Any, Any]] = {
            "no fields": {"ordinaut-key": "a/b"},
            "UTF-8": {b"\xff\xfe": b"name"},
            "NUL": {"name": "a\x00b"},
            "bytes": {"data": b"x" * 10_000_000},
            "not JSON": {"data": ""},
            "levels": {"data": "[" * 70 + "]" * 70},
            "64 bits": {"data": "123456789012345678901234567890"},
        }
        for number, fields in enumerate(bad.values()):
            await system.redis.xadd("orders", fields)
            await system.redis.xadd("orders", {"data": str(number)})
        await eventually(lambda: (intake.matched, intake.rejected) == (len(bad), len(bad)), 20)
        rejected = await events(system, "EventRejected")
        for wanted, event in zip(bad, rejected, strict=True):
            assert wanted in event.data["reason"], event.data["reason"]
        assert len({event.stream for event in rejected}) == len(bad)
        assert await system.redis.xlen(DEAD) == len(bad)


async def test_large_entries_are_read_a_few_at_a_time(database_url: str, redis_url: str) -> None:
    async with a_system(database_url, redis_url) as system:
        await listen(system, "ship")
        await ensure_group(system.redis, "orders", "0")
        for number in range(60):
            await system.redis.xadd("orders", {"data": b"x" * 1_000_000 if number < 30 else str(number)})
        intake = Intake(system)
        counts: list[int] = []
        read = intake._batch.read

        def remember(entries: Sequence[Entry], *, full: bool) -> None:
            counts.append(len(entries))
            read(entries, full=full)

        intake._batch.read = remember  # type: ignore[method-assign]
        async with running(intake):
            await eventually(lambda: (intake.matched, intake.rejected) == (30, 30), 20)
        assert [count for count in counts if count][:2] == [10, 33]


async def test_consumers_that_were_killed_long_ago_are_taken_out_of_the_group(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ordinaut.intake.intake.GONE_LEASES", 0.0)
    async with a_system(database_url, redis_url) as system:
        await listen(system, "ship")
        await ensure_group(system.redis, "orders", "0")
        for name in ("gone", "holds"):
            await system.redis.xgroup_createconsumer("orders", GROUP, name)
        await system.redis.xadd("orders", {"data": "1"})
        await system.redis.xreadgroup(GROUP, "holds", {"orders": ">"})
        async with an_intake(system) as intake:

            async def only_mine() -> bool:
                names = [one["name"].decode() for one in await system.redis.xinfo_consumers("orders", GROUP)]
                return set(names) <= {intake.consumer}

            await eventually(only_mine)
            assert intake.matched == 1, "what the other held was taken over first"
