"""Is it alive, is it ready, what does it measure: for probes and scrapers, without a key."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from redis.exceptions import RedisError

from ordinaut.api.door import Direct, Door, as_json, door_of
from ordinaut.log.database import OUTAGE
from ordinaut.runtime.metrics import CONTENT_TYPE, published_position, render
from ordinaut.runtime.migrate import migration_files
from projections import due_work
from projections.registry import all_projections

_FULL = "{} runs or more wait for workers: nothing more is read from streams, and no task reacts to events"

router = APIRouter(tags=["system"], route_class=Direct)

SECONDS = 2.0
"""A part that does not answer within this time is not ready."""
NEEDS_REDIS = frozenset({"relay", "intake"})
BEHIND = 10_000
"""A projection or the relay this many events behind is told as degraded."""


@router.get("/health/live")
async def live(request: Request) -> Response:
    """200 as long as the process answers at all."""
    return as_json({"status": "alive"})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """200 when requests can be served, else 503; either way with what is not well.

    Not ready: the database does not answer, migrations or read tables are missing, or a role of this
    process cannot work (the relay and the intake without Redis). Degraded, and still ready: Redis is
    away from a process that does without it, or somebody is far behind.
    """
    door = door_of(request)
    checks = await _database(door)
    checks["redis"] = await _redis(door, checks.pop("_head", None))
    for name, trouble in door.troubles.items():
        detail = trouble()
        checks[name] = {"ok": True, "state": "degraded" if detail else "ok", "detail": detail or ""}
    if door.stopping.is_set():
        checks["process"] = _failed("the process is stopping")
    not_ready = [name for name, check in checks.items() if not check["ok"]]
    degraded = [name for name, check in checks.items() if check["ok"] and check["state"] != "ok"]
    body = {
        "status": "not ready" if not_ready else "degraded" if degraded else "ready",
        "not_ready": not_ready,
        "degraded": degraded,
        "roles": sorted(door.roles),
        "checks": checks,
    }
    return as_json(body, 503 if not_ready else 200, {"Cache-Control": "no-store"})


def _well(detail: str = "", state: str = "ok") -> dict[str, Any]:
    return {"ok": True, "state": state, "detail": detail}


def _failed(detail: str) -> dict[str, Any]:
    return {"ok": False, "state": "failed", "detail": detail}


async def _database(door: Door) -> dict[str, Any]:
    """The checks that PostgreSQL answers: `database`, `migrations`, `projections`, and `queue` when it is
    full; `_head` is for others."""
    try:
        async with asyncio.timeout(SECONDS), door.system.pool.acquire() as connection:
            there = await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL")
            applied = await connection.fetch("SELECT name FROM schema_migrations") if there else []
            missing = [name for name in migration_files() if name not in {row[0] for row in applied}]
            if missing:
                detail = f"not applied: {', '.join(missing)}; run `ordinaut migrate`"
                return {"database": _well(), "migrations": _failed(detail)}
            head = await connection.fetchval("SELECT position FROM log_head")
            rows = await connection.fetch("SELECT name, version, position FROM projection_checkpoints")
            there = await connection.fetchval("SELECT to_regclass('due_work') IS NOT NULL")
            high = door.system.settings.queue_high_water
            waiting = await due_work.waiting(connection, high) if there else 0
    except OUTAGE as error:
        return {"database": _failed(f"PostgreSQL does not answer ({type(error).__name__})")}
    known = {row["name"]: row for row in rows}
    projections = all_projections()
    absent = [name for name in projections if name not in known]
    if absent:
        tables = _failed(f"no read table for {', '.join(absent)}; run `ordinaut migrate`")
    else:
        old = [name for name, one in projections.items() if known[name]["version"] != one.version]
        behind = [
            f"{name} ({head - row['position']})"
            for name, row in known.items()
            if head - row["position"] > BEHIND
        ]
        trouble = [f"of another version: {', '.join(old)}"] if old else []
        trouble += [f"events behind: {', '.join(behind)}"] if behind else []
        tables = _well("; ".join(trouble), "degraded" if trouble else "ok")
    checks = {"database": _well(), "migrations": _well(), "projections": tables, "_head": head}
    if waiting >= high:
        checks["queue"] = _well(_FULL.format(waiting), "degraded")
    return checks


async def _redis(door: Door, head: int | None) -> dict[str, Any]:
    try:
        published = await published_position(door.system.redis, SECONDS / 2)
    except (RedisError, OSError) as error:
        detail = f"Redis does not answer ({type(error).__name__})"
        needing = NEEDS_REDIS.intersection(door.roles)
        if needing:
            return _failed(f"{detail}; needed here by: {', '.join(sorted(needing))}")
        return _well(f"{detail}; stream triggers and {'ordinaut:log'} wait for it", "degraded")
    lag = max(0, head - published) if head is not None else 0
    if lag > BEHIND:
        return _well(f"ordinaut:log is {lag} events behind", "degraded")
    return _well()


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """What is measured, in the text format of Prometheus."""
    await door_of(request).gauges.refresh()
    return Response(render(), media_type=CONTENT_TYPE)
