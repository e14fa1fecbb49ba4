"""kill -9 of every role at random moments, under load (I1, I4, I5, I7, I8, I9)."""

import asyncio
import random

from redis.asyncio import Redis

from ordinaut.runtime.settings import Settings
from ordinaut.runtime.system import open_system
from tests.chaos.ground import Ground
from tests.conftest import StartRole

KILLS = 32
ENV = {"ORDINAUT_LEASE_SECONDS": "2", "ORDINAUT_POLL_SECONDS": "0.3", "ORDINAUT_DRAIN_SECONDS": "2"}


async def test_whatever_role_is_killed_each_trigger_gives_one_run_and_each_run_finishes(
    database_url: str, redis_url: str, start_role: StartRole, seed: int
) -> None:
    rng = random.Random(seed)
    # One worker beside an intake, where runs are leased along with their request.
    roles = ["worker", "worker intake", "relay", "projector", "clock", "intake"]
    processes = [start_role(*some.split(), env=ENV, ready=False) for some in roles]
    for process in processes:
        await asyncio.to_thread(process.wait_ready)
    settings = Settings(database_url=database_url, redis_url=redis_url)
    async with open_system(settings) as system, Redis.from_url(redis_url) as redis:
        ground = Ground(system, redis, rng)
        await ground.begin(per_second=25)
        victims: list[str] = []
        for _ in range(KILLS):
            await asyncio.sleep(rng.uniform(0.05, 0.4))
            victim = rng.choice(processes)
            victims.append(victim.roles[0])
            await asyncio.to_thread(victim.kill)
            victim.start()
            if rng.random() < 0.8:  # else it may be killed while it starts
                await asyncio.to_thread(victim.wait_ready)
            if rng.random() < 0.2:
                await ground.check_projections()  # at any moment
        print("killed", victims)
        await ground.end_load()
        await ground.settle()
        await ground.check()
        await ground.check_redis_log()
        assert len(ground.wanted) > 30
