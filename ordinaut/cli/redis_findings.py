"""What `ordinaut doctor` finds out about Redis itself: its version, what it may lose, what it permits."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from ordinaut.cli.finding import Finding
from ordinaut.log.relay import OWNER, STREAM
from ordinaut.runtime.listening import is_pattern
from ordinaut.runtime.logging import without_password
from ordinaut.runtime.redis_client import cluster_of, each_master
from ordinaut.runtime.redis_url import parse_redis_url
from ordinaut.runtime.settings import Settings
from ordinaut.runtime.streams import DEAD, streams_of

OLDEST = (6, 2)

_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})

_GROUP = "ordinaut-doctor"
"""A group that is on no stream."""

RIGHTS: dict[str, tuple[str, ...]] = {
    "+ping": ("PING",),
    "+time": ("TIME",),
    "+info": ("INFO", "server"),
    "+scan": ("SCAN", "0"),
    "+exists": ("EXISTS", DEAD),
    "+get": ("GET", OWNER),
    "+set": ("SET", OWNER, "x", "NX", "XX"),
    "+eval": ("EVAL", "return 0", "0"),
    "+evalsha": ("EVALSHA", "0" * 40, "0"),
    "+xack": ("XACK", DEAD, _GROUP, "0-0"),
    "+xadd": ("XADD", DEAD, "0-0", "x", "x"),
    "+xclaim": ("XCLAIM", DEAD, _GROUP, "x", "0", "0-0"),
    "+xdel": ("XDEL", DEAD, "0-0"),
    "+xgroup|create": ("XGROUP CREATE", DEAD, _GROUP, "x"),
    "+xgroup|delconsumer": ("XGROUP DELCONSUMER", DEAD, _GROUP, "x"),
    "+xinfo|consumers": ("XINFO CONSUMERS", DEAD, _GROUP),
    "+xinfo|groups": ("XINFO GROUPS", DEAD),
    "+xinfo|stream": ("XINFO STREAM", DEAD),
    "+xpending": ("XPENDING", DEAD, _GROUP),
    "+xrange": ("XRANGE", DEAD, "0-0", "0-0"),
    "+xreadgroup": ("XREADGROUP", "GROUP", _GROUP, "x", "STREAMS", DEAD, ">"),
    "+xrevrange": ("XREVRANGE", DEAD, "0-0", "0-0"),
    "+xtrim": ("XTRIM", DEAD, "MAXLEN", "x"),
}
"""Every command that is used, as an ACL rule, with a use of it that changes nothing: most of them are wrong
in a way that Redis finds after it has looked at the rights."""

CLUSTER_RIGHTS = ("+cluster|slots", "+command", "+asking")
"""What a client of a cluster needs to find its way, and could not ask for these rights without."""


async def server(settings: Settings, redis: Redis) -> AsyncIterator[Finding]:
    """What each master is, and whether it may lose entries."""
    try:
        async with asyncio.timeout(settings.connect_seconds):
            infos = [await redis.info(**node) for node in await each_master(redis)]
    except NoPermissionError as error:
        yield Finding("redis", "fail", str(error), "give it +info: see `redis rights`")
        return
    except (RedisError, OSError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        where = without_password(settings.redis_url)
        advice = (
            f"start it, or correct ORDINAUT_REDIS_URL (rediss:// where it speaks TLS){_no_file(settings)}"
        )
        if cluster_of(redis) is not None:
            advice += f"; the user of a cluster needs {' '.join(CLUSTER_RIGHTS)}"
        yield Finding("redis", "fail", f"no answer at {where}: {reason}", advice)
        return
    for info in infos:
        version = str(info.get("valkey_version") or info.get("redis_version"))
        shown = f"{str(info.get('server_name', 'redis')).capitalize()} {version}"
        if cluster_of(redis) is not None:
            shown += f", cluster node at port {info.get('tcp_port')}"
        if tuple(int(part) for part in version.split(".")[:2]) >= OLDEST:
            yield Finding("redis", "ok", shown)
        else:
            yield Finding("redis", "fail", shown, "version 6.2 or newer is needed")
        policy = str(info.get("maxmemory_policy", "noeviction"))
        if info.get("maxmemory") and policy.startswith("allkeys"):
            yield Finding(
                "redis memory", "warn", f"maxmemory-policy {policy}", "streams may be evicted: use noeviction"
            )
        if not info.get("aof_enabled"):
            advice = "entries XADDed just before a crash are lost: set appendonly yes"
            yield Finding("redis disk", "warn", "appendonly no", advice)


def _no_file(settings: Settings) -> str:
    """What else to say where a certificate or a key is not where the URL has it."""
    for name, value in parse_redis_url(settings.redis_url).options.items():
        if name in _FILES and not Path(value).is_file():
            return f"; {name}: there is no file {value}"
    return ""


async def streams(redis: Redis, sources: frozenset[str]) -> frozenset[str]:
    """The streams that these names and patterns stand for. Raises what redis raises."""
    patterns = {name for name in sources if is_pattern(name)}
    return (sources - patterns) | await streams_of(redis, patterns)


async def rights(settings: Settings, redis: Redis, sources: frozenset[str]) -> Finding:
    """Whether the user may do what is needed; `sources` are the streams and patterns that tasks listen to."""
    lacking: list[str] = []
    try:
        for rule, command in RIGHTS.items():
            if await _denied(redis, *command) == "command":
                lacking.append(rule)
        known = sources if "+scan" in lacking else await streams(redis, sources)
        # A key is asked for by a command that is permitted; without one nothing can be said of keys.
        if "+xack" not in lacking:
            for key in (STREAM, OWNER, DEAD, *sorted(known)):
                if await _denied(redis, "XACK", key, _GROUP, "0-0") == "key":
                    lacking.append(f"~{key}")
    except (RedisError, OSError, TimeoutError) as error:
        return Finding("redis rights", "warn", f"cannot be told: {error or type(error).__name__}")
    if not lacking:
        return Finding("redis rights", "ok", "all that are needed")
    user = parse_redis_url(settings.redis_url).options.get("username", "default")
    advice = f"ACL SETUSER {user} {' '.join(lacking)}"
    return Finding("redis rights", "fail", f"the user {user} lacks {', '.join(lacking)}", advice)


async def _denied(redis: Redis, *command: str) -> str | None:
    """`command` or `key` when that is not permitted; None when it is, whatever else becomes of it."""
    try:
        await redis.execute_command(*command)  # type: ignore[no-untyped-call]
    except NoPermissionError as error:
        return "key" if "key" in str(error) and "command" not in str(error) else "command"
    except ResponseError:
        pass  # as was meant
    return None
