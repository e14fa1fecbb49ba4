"""stream.add against a real server of the Redis protocol."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from ordinaut.domain.ids import new_id
from ordinaut.runtime.redis_client import REDIS_CONNECTIONS, create_redis
from ordinaut.runtime.settings import Settings
from ordinaut.work.tools import stream
from ordinaut.work.tools.base import StepContext
from ordinaut.work.tools.call import call_tool
from ordinaut.work.tools.errors import ToolError


@dataclass
class Services:
    redis: Any


@pytest.fixture(params=[False, True], ids=["bytes", "text"])
async def client(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, decode_responses=request.param) as made:
        yield made


@pytest.fixture
def key() -> str:
    return f"orders-{new_id()}"


Add = Callable[..., Awaitable[Any]]


@pytest.fixture
def add(client: Redis) -> Add:
    async def call(given: dict[str, Any]) -> Any:
        services: Any = Services(client)
        log = structlog.get_logger()
        ctx = StepContext(
            "r1", "t", "default", "s1", 1, "r1/s1", "c1", "worker:w", "run-r1/2", 3, False, services, log
        )
        return await call_tool(stream.ADD, given, ctx, 10)

    return call


async def entries(client: Redis, key: str) -> list[tuple[str, dict[str, str]]]:
    def text(value: Any) -> str:
        return value.decode() if isinstance(value, bytes) else str(value)

    found: Any = await client.xrange(key)
    return [
        (text(entry), {text(name): text(value) for name, value in fields.items()}) for entry, fields in found
    ]


CAUSE = {"ordinaut-key": "r1/s1", "ordinaut-correlation": "c1", "ordinaut-depth": "3"}


async def test_data_is_added_as_json_with_what_caused_it(client: Redis, add: Add, key: str) -> None:
    output = await add({"stream": key, "data": {"id": 7, "name": "ü"}})
    assert await entries(client, key) == [(output["id"], {"data": '{"id":7,"name":"ü"}', **CAUSE})]


async def test_data_may_be_null(client: Redis, add: Add, key: str) -> None:
    await add({"stream": key, "data": None})
    assert (await entries(client, key))[0][1]["data"] == "null"


async def test_flat_fields_are_added_as_they_are(client: Redis, add: Add, key: str) -> None:
    await add({"stream": key, "fields": {"id": 7, "name": "x", "paid": True, "amount": 1.5}})
    expected = {"id": "7", "name": "x", "paid": "true", "amount": "1.5", **CAUSE}
    assert (await entries(client, key))[0][1] == expected


async def test_a_second_attempt_adds_an_entry_with_the_same_key(client: Redis, add: Add, key: str) -> None:
    first, second = await add({"stream": key, "data": 1}), await add({"stream": key, "data": 1})
    assert first != second
    assert {fields["ordinaut-key"] for _, fields in await entries(client, key)} == {"r1/s1"}


async def test_maxlen_bounds_the_stream(client: Redis, add: Add, key: str) -> None:
    for number in range(250):
        await add({"stream": key, "data": number, "maxlen": 10})
    # An approximate bound drops whole nodes, of at most 100 entries by default.
    assert await client.xlen(key) <= 110


async def test_a_key_that_is_no_stream_is_not_tried_again(client: Redis, add: Add, key: str) -> None:
    await client.set(key, "x")
    with pytest.raises(ToolError, match="WRONGTYPE") as caught:
        await add({"stream": key, "data": 1})
    assert caught.value.retryable is False


async def test_a_redis_that_does_not_answer_may_be_tried_again(unused_tcp_port: int) -> None:
    async with Redis.from_url(f"redis://127.0.0.1:{unused_tcp_port}") as nowhere:
        services: Any = Services(nowhere)
        log = structlog.get_logger()
        ctx = StepContext(
            "r1", "t", "default", "s1", 1, "r1/s1", "c1", "worker:w", "run-r1/2", 3, False, services, log
        )
        with pytest.raises(ToolError, match="XADD orders") as caught:
            await call_tool(stream.ADD, {"stream": "orders", "data": 1}, ctx, 30)
    assert caught.value.retryable is True


async def test_more_steps_than_connections_wait_for_each_other(database_url: str, redis_url: str) -> None:
    client = create_redis(Settings(database_url=database_url, redis_url=redis_url))
    many = [client.xadd("many", {"data": str(number)}) for number in range(8 * REDIS_CONNECTIONS)]
    assert len(set(await asyncio.gather(*many))) == len(many)
    await client.aclose()
