"""The client that all roles share, on a real server of the Redis protocol."""

import asyncio

from redis.asyncio import Redis

from ordinaut.runtime.redis_client import create_redis
from ordinaut.runtime.settings import Settings
from tests.support.eventually import eventually


async def _gone(redis: Redis, client_ids: set[str]) -> bool:
    return client_ids.isdisjoint({client["id"] for client in await redis.client_list()})


async def test_connections_the_server_has_closed_cost_no_command(redis_url: str) -> None:
    settings = Settings.model_validate({"redis_url": redis_url})
    async with create_redis(settings) as client, Redis.from_url(redis_url) as other:
        at_once = 5
        ids = {str(one) for one in await asyncio.gather(*[client.client_id() for _ in range(at_once)])}
        assert len(ids) == at_once
        for one in ids:
            await other.client_kill_filter(_id=one)
        await eventually(lambda: _gone(other, ids))
        await other.ping()  # the news of the closed ones has come before this answer

        added = await asyncio.gather(*[client.xadd("orders", {"n": n}) for n in range(at_once)])
        assert len(set(added)) == at_once
        assert await client.xlen("orders") == at_once
