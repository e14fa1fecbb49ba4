"""Hooks as the log has them now, the keys to verify deliveries with, and refused deliveries on record."""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import structlog

from ordinaut.domain.errors import NotFound, OrdinautError
from ordinaut.domain.events import NewEvent
from ordinaut.domain.hook import Hook, evolve, fold, hook_stream
from ordinaut.domain.ids import new_id
from ordinaut.domain.signature import Reason, key_of
from ordinaut.log.append import Append, Connection
from ordinaut.log.read import COLUMNS, read_stream, to_event
from ordinaut.runtime.publication import event_stream
from ordinaut.runtime.secrets import read_secrets
from ordinaut.runtime.system import System

PAUSE_SECONDS = 20.0
"""How long, after a refused delivery was recorded, more of the same hook are only counted."""

# There are few events of hooks, and an index by type: no table is needed to be fresh.
_ALL = f"""
SELECT {COLUMNS} FROM events WHERE type IN ('HookDefined', 'HookRemoved') AND space = $1 ORDER BY position
"""

logger = structlog.get_logger(__name__)


async def load_hook(connection: Connection, space: str, name: str) -> Hook:
    """The hook as its stream has it now, whether it exists or not."""
    return fold(space, name, await read_stream(connection, hook_stream(space, name)))


async def all_hooks(connection: Connection, space: str) -> list[Hook]:
    """The hooks of a space, in the order of their names."""
    hooks: dict[str, Hook] = {}
    for row in await connection.fetch(_ALL, space):
        event = to_event(row)
        name = event.data["name"]
        evolve(hooks.setdefault(name, Hook(space, name)), event)
    return [hooks[name] for name in sorted(hooks) if hooks[name].exists]


def read_key(kind: str, name: str, directory: Path | None) -> bytes:
    """The key under the secret's name. Raises `NotFound` where there is none, ValueError when it is not what
    a secret of this kind is; neither tells of the value."""
    return key_of(kind, read_secrets([name], directory)[name])


def keys_of(hook: Hook, directory: Path | None) -> tuple[list[bytes], bool]:
    """The keys of those of its secrets that are here, and whether those are all."""
    keys: list[bytes] = []
    for name in hook.secrets:
        try:
            keys.append(read_key(hook.kind, name, directory))
        except NotFound as error:
            logger.warning("hook.secret_missing", hook=hook.name, space=hook.space, error=error.message)
        except ValueError as error:
            logger.warning(
                "hook.secret_unusable", hook=hook.name, space=hook.space, name=name, error=str(error)
            )
    return keys, len(keys) == len(hook.secrets)


@dataclass(slots=True)
class _Held:
    """Refusals of one hook that are not on record yet."""

    hook: Hook
    reasons: Counter[Reason] = field(default_factory=Counter)
    first: datetime | None = None
    last: datetime | None = None


class Refusals:
    """Puts refused deliveries on record (HookRefused), however many there are: the first of a hook at once,
    those of the next `PAUSE_SECONDS` as one number, and so on. So a flood costs the log a few events a
    minute for each hook and process. Nothing a sender says is recorded."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._held: dict[str, _Held] = {}
        self._stopping = asyncio.Event()
        self._pauses: set[asyncio.Task[None]] = set()

    async def note(self, hook: Hook, reason: Reason) -> None:
        """A delivery to `hook` was refused. Returns when it is on record, or counted."""
        held = self._held.get(hook.id)
        beginning = held is None
        if held is None:
            held = self._held[hook.id] = _Held(hook)
        held.hook = hook
        held.reasons[reason] += 1
        held.last = self._system.time.now()
        held.first = held.first or held.last
        if beginning:
            try:
                await self._record(held)
            finally:
                pause = asyncio.create_task(self._pause(held), name="hook-refusals")
                self._pauses.add(pause)
                pause.add_done_callback(self._pauses.discard)

    async def drain(self) -> None:
        """Record what was counted and is not on record yet."""
        self._stopping.set()
        await asyncio.gather(*self._pauses, return_exceptions=True)

    async def _pause(self, held: _Held) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), PAUSE_SECONDS)
            if held.reasons:
                try:
                    await self._record(held)
                except OrdinautError as error:
                    logger.warning("hook.refusals_not_recorded", hook=held.hook.name, error=error.message)
                if not self._stopping.is_set():
                    continue
            del self._held[held.hook.id]
            return

    async def _record(self, held: _Held) -> None:
        hook, reasons, first, last = held.hook, held.reasons, held.first, held.last
        assert first is not None and last is not None
        held.reasons, held.first, held.last = Counter(), None, None
        event_id = new_id()
        data = {
            "hook": hook.id, "name": hook.name, "kind": hook.kind, "count": reasons.total(),
            "reasons": dict(sorted(reasons.items())), "from": first.isoformat(), "to": last.isoformat(),
        }  # fmt: skip
        refused = NewEvent("HookRefused", data)
        item = Append(
            event_stream(event_id), 0, [refused], hook.space, actor_of(hook), event_id, actor_of(hook)
        )
        try:
            await self._system.appender.append(item)
        except BaseException:
            held.reasons, held.first, held.last = reasons + held.reasons, first, held.last or last
            raise


def actor_of(hook: Hook) -> str:
    """How events name who comes over a hook; with `/` and the delivery's id behind it, the delivery."""
    return f"hook:{hook.name}"
