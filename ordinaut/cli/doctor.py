"""`ordinaut doctor`: checks everything the system stands on, and says what to do about what is wrong."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError
from rich.markup import escape

from ordinaut.cli import ledger, redis_findings, spacing, stream_findings
from ordinaut.cli.database import operator_settings
from ordinaut.cli.finding import Finding
from ordinaut.cli.output import print_json, state, table
from ordinaut.cli.schema import missing
from ordinaut.domain.errors import OrdinautError
from ordinaut.domain.trigger import LOG, sources_of
from ordinaut.log.database import OUTAGE, connect
from ordinaut.log.relay import OWNER, STREAM
from ordinaut.runtime.logging import without_password
from ordinaut.runtime.redis_client import create_redis
from projections.rebuild import status
from projections.tasks import stream_triggers

OLDEST_POSTGRES = 150000
MUCH_LAG = 10_000
"""Events that a reader may be behind before it is worth a word."""
SKEW_SECONDS = 5.0
LEAST_FREE = 0.9
"""The share of PostgreSQL's connections in use from which on it is worth a word."""


def doctor(*, as_json: bool) -> int:
    """Print every finding; 1 when one of them is a failure."""
    findings = asyncio.run(_all())
    if as_json:
        print_json([asdict(each) for each in findings])
    else:
        table(
            ("", "check", "found", "what to do"),
            [(state(each.level), each.check, escape(each.found), escape(each.advice)) for each in findings],
        )
    return 1 if any(each.level == "fail" for each in findings) else 0


async def _all() -> list[Finding]:
    try:
        settings = operator_settings()
    except OrdinautError as error:
        return [Finding("settings", "fail", error.message, "correct the variables named")]
    findings = [Finding("settings", "ok", "readable")]
    redis = create_redis(settings)
    try:
        postgres, prepared = None, False
        try:
            postgres = await connect(settings.database_url, timeout=settings.connect_seconds)
        except OUTAGE as error:
            where = without_password(settings.database_url)
            findings.append(_away("database", where, error, "ORDINAUT_DATABASE_URL"))
        else:
            findings += [finding async for finding in _database(postgres)]
            findings.append(schema := await _schema(postgres))
            prepared = schema.level == "ok"
        answers = [finding async for finding in redis_findings.server(settings, redis)]
        findings += answers
        if postgres is not None and prepared:
            findings.append(await _projections(postgres))
            findings += [finding async for finding in ledger.findings(postgres)]
            findings += [finding async for finding in spacing.findings(postgres)]
            findings.append(await stream_findings.queue(postgres, settings))
            findings.append(await stream_findings.letters(postgres))
        if all(each.level != "fail" for each in answers):
            sources = await _sources(postgres) if postgres is not None and prepared else frozenset()
            findings.append(await redis_findings.rights(settings, redis, sources))
            if postgres is not None and prepared:
                findings.append(await _relay(postgres, redis))
                with suppress(NoPermissionError):  # which is told already
                    findings += [finding async for finding in stream_findings.groups(sources, redis)]
        if postgres is not None:
            await postgres.close()
    finally:
        with suppress(RedisError, OSError):
            await redis.aclose()
    return findings


def _away(check: str, where: str, error: BaseException, variable: str) -> Finding:
    reason = str(error) or type(error).__name__
    return Finding(check, "fail", f"no answer at {where}: {reason}", f"start it, or correct {variable}")


async def _database(connection: asyncpg.Connection) -> AsyncIterator[Finding]:
    version = int(await connection.fetchval("SHOW server_version_num"))
    shown = f"PostgreSQL {await connection.fetchval('SHOW server_version')}"
    if version >= OLDEST_POSTGRES:
        yield Finding("database", "ok", shown)
    else:
        yield Finding("database", "fail", shown, "PostgreSQL 15 or newer is needed")
    for name, consequence in (
        ("fsync", "a power cut can destroy the database"),
        ("full_page_writes", "a power cut can tear pages"),
    ):
        value = await connection.fetchval("SELECT current_setting($1)", name)
        if value != "on":
            yield Finding(name, "fail", value, f"{consequence}: set {name} = on in postgresql.conf")
        else:
            yield Finding(name, "ok", "on")
    # Ordinaut's own connections ask for `on`; somebody else's default only concerns others.
    yield Finding("synchronous_commit", "ok", "on, on each of Ordinaut's connections")
    used = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    )
    allowed = int(await connection.fetchval("SHOW max_connections"))
    crowded = used > LEAST_FREE * allowed
    advice = "raise max_connections, or lower ORDINAUT_POOL_MAX" if crowded else ""
    yield Finding("connections", "warn" if crowded else "ok", f"{used} of {allowed}", advice)
    yield await _skew(connection)


async def _skew(connection: asyncpg.Connection) -> Finding:
    before = time.time()
    there: datetime = await connection.fetchval("SELECT clock_timestamp()")
    middle = datetime.fromtimestamp((before + time.time()) / 2, UTC)
    seconds = (there - middle).total_seconds()
    found = f"the database's is {abs(seconds):.3f} s {'ahead' if seconds > 0 else 'behind'}"
    if abs(seconds) < SKEW_SECONDS:
        return Finding("clocks", "ok", found)
    return Finding("clocks", "warn", found, "let NTP set both; schedules go by the database's clock")


async def _schema(connection: asyncpg.Connection) -> Finding:
    lacking = await missing(connection)
    if lacking:
        return Finding("migrations", "fail", f"lacking: {', '.join(lacking)}", "run `ordinaut migrate`")
    return Finding("migrations", "ok", "all applied")


async def _projections(connection: asyncpg.Connection) -> Finding:
    behind = [row for row in await status(connection) if row["lag"] > MUCH_LAG]
    if behind:
        found = ", ".join(f"{row['name']} by {row['lag']} events" for row in behind)
        return Finding("projections", "warn", f"behind: {found}", "is the role `projector` running?")
    return Finding("projections", "ok", "up with the log")


async def _relay(connection: asyncpg.Connection, redis: Redis) -> Finding:
    """Whether what is in Redis is this log, and how far."""
    log_id = await connection.fetchval("SELECT log_id::text FROM log_head")
    try:
        owner = await redis.get(OWNER)
        last = int(await _last(redis))
    except RedisError as error:
        return Finding("relay", "fail", str(error), f"the key {STREAM} must be a stream of Ordinaut's")
    # Read after Redis was: events are appended all the time.
    position: int = await connection.fetchval("SELECT position FROM log_head")
    if owner is not None and _text(owner) != log_id:
        advice = "give each system a Redis of its own"
        return Finding("relay", "fail", f"{STREAM} holds another log's events", advice)
    if last > position:
        found = f"{STREAM} is at {last}, the log only at {position}"
        return Finding("relay", "fail", found, f"was the database restored? When sure, delete {STREAM}")
    lag = position - last
    if lag > MUCH_LAG:
        return Finding("relay", "warn", f"{lag} events behind", "is the role `relay` running?")
    return Finding("relay", "ok", f"at {last} of {position}")


async def _last(redis: Redis) -> str:
    if not await redis.exists(STREAM):
        return "0"
    info = await redis.xinfo_stream(STREAM)
    return _text(info["last-generated-id"]).partition("-")[0]


async def _sources(connection: asyncpg.Connection) -> frozenset[str]:
    """The streams, and patterns of streams, that tasks listen to."""
    rows = await stream_triggers(connection)
    heard = (source for row in rows for source in sources_of(row["definition"]["schedule"]["on"]).values())
    return frozenset(source for source in heard if not source.startswith(LOG))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
