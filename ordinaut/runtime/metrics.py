"""What can be measured, in the text format of Prometheus.

Counters and durations are of this process: each role counts what it does itself. The gauges about the
whole system (queue, lags) are asked of PostgreSQL and Redis when somebody looks, so any process that
serves /metrics tells them. Labels name kinds of things, never single ones: no run, task or key is a
label, so that the number of time series stays bounded. (Streams are, a bounded number of them.)
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import asyncpg
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ordinaut.log.database import OUTAGE
from ordinaut.log.relay import STREAM
from projections import due_work

REGISTRY = CollectorRegistry()
CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

RUNS = Counter(
    "ordinaut_runs", "Runs that ended here, by outcome (a run's final state).", ["outcome"], registry=REGISTRY
)
RUN_SECONDS = Histogram(
    "ordinaut_run_seconds", "From RunStarted to the end of the run.", ["outcome"],
    buckets=_SECONDS, registry=REGISTRY,
)  # fmt: skip
STEP_SECONDS = Histogram(
    "ordinaut_step_seconds", "One attempt at one step.", ["tool", "outcome"],
    buckets=_SECONDS, registry=REGISTRY,
)  # fmt: skip
LEASES = Counter(
    "ordinaut_leases",
    "Leases of due work: taken, renewed, lost, handed_back.",
    ["outcome"],
    registry=REGISTRY,
)
OCCURRENCES = Counter(
    "ordinaut_occurrences",
    "Scheduled instants this clock decided, by verdict.",
    ["verdict"],
    registry=REGISTRY,
)
ENTRIES = Counter(
    "ordinaut_stream_entries", "Stream entries this intake read, by outcome.", ["outcome"], registry=REGISTRY
)
ENTRIES_GONE = Counter(
    "ordinaut_stream_entries_gone",
    "Entries that were trimmed or deleted before they were read, as this intake saw.",
    registry=REGISTRY,
)
STREAM_LAG = Gauge(
    "ordinaut_stream_lag_entries", "Entries of a stream that nobody has read, as this intake saw last.",
    ["stream"], registry=REGISTRY,
)  # fmt: skip
STREAM_PENDING = Gauge(
    "ordinaut_stream_pending_entries", "Entries of a stream that were read and are not acknowledged.",
    ["stream"], registry=REGISTRY,
)  # fmt: skip
HELD_BACK = Gauge(
    "ordinaut_intake_held_back",
    "1 while this intake takes in nothing, from streams or the log, because the queue is full.",
    registry=REGISTRY,
)
REACTIONS_LAG = Gauge(
    "ordinaut_reactions_lag_events",
    "Events of the log that tasks listening to it have not been tried on, as this intake saw last.",
    registry=REGISTRY,
)
HTTP_REQUESTS = Counter(
    "ordinaut_http_requests", "Answered requests, by method, route and status.",
    ["method", "route", "status"], registry=REGISTRY,
)  # fmt: skip
HTTP_SECONDS = Histogram(
    "ordinaut_http_request_seconds", "From the first byte of a request to the end of its answer.", ["route"],
    buckets=_SECONDS, registry=REGISTRY,
)  # fmt: skip

LOG_POSITION = Gauge("ordinaut_log_position", "Position of the log's last event.", registry=REGISTRY)
QUEUE = Gauge(
    "ordinaut_queue_runs", "Runs waiting: ready (due), leased, later (due at a later time).", ["state"],
    registry=REGISTRY,
)  # fmt: skip
PROJECTION_LAG = Gauge(
    "ordinaut_projection_lag_events", "Events the projection has not folded yet.", ["projection"],
    registry=REGISTRY,
)  # fmt: skip
RELAY_LAG = Gauge("ordinaut_relay_lag_events", "Events that are not in Redis yet.", registry=REGISTRY)
CLOCK_LAG = Gauge(
    "ordinaut_clock_lag_seconds", "How long the oldest due schedule has been waiting to be fired.",
    registry=REGISTRY,
)  # fmt: skip
UP = Gauge("ordinaut_up", "Whether the part answered when asked (1 or 0).", ["part"], registry=REGISTRY)

CACHE_SECONDS = 1.0
"""The gauges about the whole system are asked for at most this often."""

_SYSTEM = """
SELECT h.position,
       (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(next_fire_at)), 0)::float8
          FROM schedules WHERE next_fire_at <= clock_timestamp()) AS clock_lag,
       (SELECT coalesce(jsonb_object_agg(name, greatest(h.position - position, 0)), '{}')
          FROM projection_checkpoints) AS lags
  FROM log_head h
"""


class SystemGauges:
    """Fills the gauges about the whole system, at most once in `CACHE_SECONDS`."""

    def __init__(self, pool: asyncpg.Pool, redis: Redis) -> None:
        self._pool = pool
        self._redis = redis
        self._asked = float("-inf")
        self._lock = asyncio.Lock()

    async def refresh(self) -> None:
        """Ask now unless it was just asked. What does not answer is `ordinaut_up 0`; its gauges stay."""
        async with self._lock:
            if time.monotonic() - self._asked < CACHE_SECONDS:
                return
            try:
                async with asyncio.timeout(2), self._pool.acquire() as connection:
                    row = await connection.fetchrow(_SYSTEM)
                    depth = await due_work.depth(connection)
                assert row is not None
                self._set(dict(row), depth)
                UP.labels("postgresql").set(1)
            except OUTAGE:
                UP.labels("postgresql").set(0)
            else:
                await self._ask_redis(row["position"])
            self._asked = time.monotonic()

    def _set(self, row: Mapping[str, Any], depth: Mapping[str, int]) -> None:
        LOG_POSITION.set(row["position"])
        CLOCK_LAG.set(row["clock_lag"])
        for name, lag in row["lags"].items():
            PROJECTION_LAG.labels(name).set(lag)
        for state, count in depth.items():
            QUEUE.labels(state).set(count)

    async def _ask_redis(self, position: int) -> None:
        try:
            RELAY_LAG.set(max(0, position - await published_position(self._redis)))
            UP.labels("redis").set(1)
        except (RedisError, OSError, TimeoutError):
            UP.labels("redis").set(0)


async def published_position(redis: Redis, seconds: float = 1.0) -> int:
    """The position of the last event in the Redis stream `ordinaut:log`; 0 when it is empty.

    Raises what asking Redis raises, TimeoutError after `seconds`.
    """
    async with asyncio.timeout(seconds):
        entries = await redis.xrevrange(STREAM, count=1)
    if not entries:
        return 0
    entry_id = entries[0][0]
    text = entry_id.decode() if isinstance(entry_id, bytes) else str(entry_id)
    return int(text.partition("-")[0])


def render() -> bytes:
    """Everything measured, as `text/plain` of Prometheus (`CONTENT_TYPE`)."""
    return generate_latest(REGISTRY)
