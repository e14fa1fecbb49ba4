"""Everything a role is given, opened and closed in one place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import structlog
from redis.asyncio import Redis

from ordinaut.log.appender import Appender
from ordinaut.log.database import OUTAGE, create_pool
from ordinaut.log.wake import Notifications
from ordinaut.runtime.redis_client import create_redis
from ordinaut.runtime.settings import Settings
from ordinaut.runtime.tasks import Tasks
from ordinaut.runtime.time import DatabaseTime

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class System:
    """The parts that all roles of one process share."""

    settings: Settings
    pool: asyncpg.Pool
    redis: Redis
    notifications: Notifications
    appender: Appender
    time: DatabaseTime
    tasks: Tasks


@asynccontextmanager
async def open_system(settings: Settings) -> AsyncIterator[System]:
    """Open pool, Redis client and notifications; waits for PostgreSQL, but not for Redis (I6)."""
    stop = asyncio.Event()
    seconds = settings.connect_seconds
    pool = await create_pool(settings.database_url, size=settings.pool_max, timeout=seconds)
    time = DatabaseTime(pool)
    await _first_answer(time)
    redis = create_redis(settings)
    notifications = Notifications(settings.database_url, seconds)
    system = System(settings, pool, redis, notifications, Appender(pool), time, Tasks(pool))
    background = [
        asyncio.create_task(notifications.run(stop), name="notifications"),
        asyncio.create_task(time.run(stop), name="database-time"),
    ]
    try:
        yield system
    finally:
        stop.set()
        await asyncio.gather(*background, return_exceptions=True)
        await redis.aclose()
        await pool.close()


async def _first_answer(time: DatabaseTime) -> None:
    """Wait until PostgreSQL answers, and say once that it does not."""
    waiting = False
    while True:
        try:
            await time.sync()
        except OUTAGE as error:
            if _refused(error):
                raise
            if not waiting:
                logger.warning("database.waits", error=str(error) or type(error).__name__)
            waiting = True
            await asyncio.sleep(0.5)
        else:
            break
    if waiting:
        logger.info("database.answers")


def _refused(error: BaseException) -> bool:
    """Whether waiting will not help: no such database, wrong password."""
    return isinstance(error, asyncpg.InvalidCatalogNameError | asyncpg.InvalidAuthorizationSpecificationError)
