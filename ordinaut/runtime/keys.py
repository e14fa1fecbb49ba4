"""API keys: who may ask for what, in which space.

A key is random text of which only the SHA-256 is kept, in the table `api_keys`; a key has enough
randomness (192 bits) that a slow hash would add nothing. Who got and who lost a key is in the log
(AgentRegistered, KeyIssued, KeyRevoked on the agent's stream), the key itself never (I11).

Roles: `reader` may read, `operator` may read and command, `admin` may also manage keys.
"""

import asyncio
import hashlib
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

import asyncpg

from ordinaut.domain.errors import Invalid, NotFound, NotPossible, VersionConflict
from ordinaut.domain.events import NewEvent
from ordinaut.domain.ids import cause_id, new_id
from ordinaut.log.append import Append, Connection
from ordinaut.log.read import last_version, read_stream
from ordinaut.runtime.system import System

Role = Literal["admin", "operator", "reader"]
ROLES: tuple[str, ...] = get_args(Role)

PREFIX = "ord_"
REMEMBERED_SECONDS = 5.0
"""How long a looked-up key is believed; a revoked one stops working within this time."""
REMEMBERED = 10_000

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TRIES = 10

# Effects of KeyIssued and KeyRevoked: the vault and the log change together or not at all.
ISSUE = """
INSERT INTO api_keys (id, hash, space, agent, role)
SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::text[])
"""
REVOKE = """
UPDATE api_keys SET revoked_at = clock_timestamp() FROM unnest($1::text[]) AS gone (key_id)
 WHERE id = key_id AND revoked_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key it is: everything the caller sees and does is in `space`."""

    key_id: str
    space: str
    agent: str
    role: Role

    @property
    def actor(self) -> str:
        """How events name the caller."""
        return f"key:{self.agent}"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key as a listing shows it; instants are UTC."""

    id: str
    space: str
    agent: str
    role: str
    created_at: datetime
    revoked_at: datetime | None


def hash_key(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()


def agent_stream(space: str, agent: str) -> str:
    """The stream of an agent's events; the id follows from its name, as a task's does."""
    return f"agent-{agent}-{cause_id(0, 'agent', space, agent)}"


class Keys:
    """Looks keys up, and remembers the answers (the misses too) for `REMEMBERED_SECONDS`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._known: OrderedDict[bytes, tuple[float, Caller | None]] = OrderedDict()

    async def caller(self, key: str) -> Caller | None:
        """Whose key this is; None when there is no such key or it was revoked."""
        # Looked up by hash: how long it takes says nothing about how much of a guess was right.
        digest = hash_key(key)
        known = self._known.get(digest)
        now = time.monotonic()
        if known is not None and known[0] > now:
            return known[1]
        row = await self._pool.fetchrow(
            "SELECT id, space, agent, role FROM api_keys WHERE hash = $1 AND revoked_at IS NULL", digest
        )
        found = Caller(row["id"], row["space"], row["agent"], row["role"]) if row else None
        self._known[digest] = (now + REMEMBERED_SECONDS, found)
        self._known.move_to_end(digest)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found


async def issue_key(
    system: System, *, space: str, agent: str, role: str, actor: str = "system", key: str | None = None
) -> tuple[str, str]:
    """Give `agent` a key (`key`, or a new one): (the key's id, the key). The key is shown only here.

    An agent may have several keys, so that one can be replaced without an interruption. Raises Invalid,
    and NotPossible when the key that was given is in use or was revoked.
    """
    if not _NAME.fullmatch(agent):
        raise Invalid.at("/agent", f"{agent[:80]!r} is not a name for an agent", "such as deploy-bot")
    if not _NAME.fullmatch(space):
        raise Invalid.at("/space", f"{space[:80]!r} is not a name for a space", "such as default or team-a")
    if role not in ROLES:
        raise Invalid.at("/role", f"{role[:80]!r} is not a role", f"one of {', '.join(ROLES)}")
    key_id, plain = new_id(), key or PREFIX + secrets.token_urlsafe(24)
    stream = agent_stream(space, agent)
    row = (key_id, hash_key(plain), space, agent, role)
    for _ in range(_TRIES):
        version = await _version(system.pool, stream)
        events = [NewEvent("KeyIssued", {"key": key_id, "agent": agent, "role": role})]
        if version == 0:
            events.insert(0, NewEvent("AgentRegistered", {"agent": agent}))
        item = Append(
            stream, version, events, space, actor, key_id, f"{actor}:issue_key", effects={ISSUE: row}
        )
        try:
            await system.appender.append(item)
        except VersionConflict:
            continue
        except asyncpg.UniqueViolationError:
            raise NotPossible("this key is in use already, or was revoked; choose another") from None
        return key_id, plain
    raise NotPossible(f"others keep changing the agent {agent!r}; try again")


async def revoke_key(system: System, *, space: str, key_id: str, actor: str = "system") -> None:
    """Make a key worthless, everywhere within `REMEMBERED_SECONDS`. Revoking it twice changes nothing.

    Raises NotFound.
    """
    for _ in range(_TRIES):
        row = await system.pool.fetchrow(
            "SELECT agent, revoked_at FROM api_keys WHERE space = $1 AND id = $2", space, key_id
        )
        if row is None:
            raise NotFound(f"there is no key {key_id!r} in the space {space!r}")
        if row["revoked_at"] is not None:
            return
        stream = agent_stream(space, row["agent"])
        event = NewEvent("KeyRevoked", {"key": key_id, "agent": row["agent"]})
        version = await _version(system.pool, stream)
        effects = {REVOKE: (key_id,)}
        item = Append(stream, version, [event], space, actor, key_id, f"{actor}:revoke_key", effects=effects)
        try:
            await system.appender.append(item)
        except VersionConflict:
            continue
        return
    raise NotPossible(f"others keep changing the same agent's keys as {key_id!r}; try again")


async def list_keys(connection: Connection, space: str) -> list[KeyInfo]:
    """Every key there is or was in a space, oldest first."""
    rows = await connection.fetch(
        "SELECT id, space, agent, role, created_at, revoked_at FROM api_keys WHERE space = $1"
        " ORDER BY created_at, id",
        space,
    )
    return [KeyInfo(*row) for row in rows]


async def ensure_admin_key(system: System, api_key: str | None) -> str | None:
    """See to it that the configured space has an admin key; safe at each start, in any number of processes.

    With `api_key` that key is made valid (nothing is given back: whoever set it knows it). Without one,
    and with no valid admin key in the space, a key is made and given back, once. Raises NotPossible
    when `api_key` was revoked, or is a key of less than an admin.
    """
    space = system.settings.space
    if api_key is not None:
        row = await _find(system.pool, api_key)
        if row is None:
            try:
                await issue_key(system, space=space, agent="admin", role="admin", key=api_key)
            except NotPossible:
                row = await _find(system.pool, api_key)  # another process was first
        if row is not None:
            _require_admin(row, space)
        return None
    # One process at a time, so that of several that start together one makes the key and the others see it.
    async with asyncio.timeout(30), system.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('ordinaut.admin_key'))")
        there = await connection.fetchval(
            "SELECT true FROM api_keys WHERE space = $1 AND role = 'admin' AND revoked_at IS NULL LIMIT 1",
            space,
        )
        if there:
            return None
        _key_id, plain = await issue_key(system, space=space, agent="admin", role="admin")
        return plain


async def _find(pool: asyncpg.Pool, key: str) -> Any:
    return await pool.fetchrow("SELECT space, role, revoked_at FROM api_keys WHERE hash = $1", hash_key(key))


def _require_admin(row: Any, space: str) -> None:
    if row["revoked_at"] is not None:
        raise NotPossible("the key in ORDINAUT_API_KEY was revoked; choose another")
    if row["space"] != space or row["role"] != "admin":
        raise NotPossible(
            f"the key in ORDINAUT_API_KEY is the key of a {row['role']} in the space {row['space']!r};"
            f" it must be an admin's in {space!r}"
        )


async def _version(pool: asyncpg.Pool, stream: str) -> int:
    async with pool.acquire() as connection:
        return last_version(await read_stream(connection, stream))
