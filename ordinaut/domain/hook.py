"""Webhooks: who may deliver to a stream without an API key, and by which signature.

Of a secret only its name is in the log (I11); the value is looked up where a delivery is verified.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from ordinaut.domain import ids
from ordinaut.domain.definition_model import NAME_PATTERN
from ordinaut.domain.definition_secrets import NAME as SECRET_NAME
from ordinaut.domain.errors import Fault, Invalid, NotFound
from ordinaut.domain.events import Event, NewEvent

Kind = Literal["standard", "github", "stripe"]
KINDS: tuple[str, ...] = get_args(Kind)
MOST_SECRETS = 2
"""The one in use and, while it is being replaced, the other."""

_NAME = re.compile(NAME_PATTERN)


def hook_id(space: str, name: str) -> str:
    """A hook's id: it follows from its name, as a task's does."""
    return ids.cause_id(0, "hook", space, name)


def hook_stream(space: str, name: str) -> str:
    """The stream that holds a hook's events."""
    return f"hook-{hook_id(space, name)}"


@dataclass(slots=True)
class Hook:
    """A hook as its events up to `version` make it; one that `exists` not was never there or was removed.

    Deliveries whose signature is of the kind `kind` and made with one of `secrets` (names) are events on
    `stream`. `changed_by` is the actor of the last change, `reason` what they said for it.
    """

    space: str
    name: str
    exists: bool = False
    kind: str = ""
    stream: str = ""
    secrets: tuple[str, ...] = ()
    version: int = 0
    changed_at: datetime | None = None
    changed_by: str | None = None
    reason: str | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return hook_id(self.space, self.name)


def evolve(hook: Hook, event: Event) -> None:
    """Fold one event into the hook, in place."""
    if event.type == "HookDefined":
        hook.exists = True
        hook.kind, hook.stream = event.data["kind"], event.data["stream"]
        hook.secrets = tuple(event.data["secrets"])
    elif event.type == "HookRemoved":
        hook.exists = False
    hook.changed_at, hook.changed_by = event.at, event.actor
    hook.reason = event.data.get("reason")
    hook.version = event.version


def fold(space: str, name: str, events: Iterable[Event]) -> Hook:
    """The hook that these events of its stream make."""
    hook = Hook(space, name)
    for event in events:
        evolve(hook, event)
    return hook


def define(
    hook: Hook, kind: object, stream: str, secrets: Sequence[object], reason: str | None
) -> list[NewEvent]:
    """Let the hook be so; nothing when it is. `stream` was checked. Raises Invalid naming every fault."""
    faults: list[Fault] = []
    if not _NAME.fullmatch(hook.name):
        hint = "a to z, 0 to 9, '.', '_' and '-', at most 128, the first a letter or a digit"
        faults.append(Fault("", f"{hook.name[:80]!r} is not a name for a hook", hint))
    if kind not in KINDS:
        faults.append(Fault("/kind", f"{str(kind)[:60]!r} is not known", f"one of {', '.join(KINDS)}"))
    if not 1 <= len(secrets) <= MOST_SECRETS or len(set(map(str, secrets))) < len(secrets):
        hint = "the name of one, or of two while one replaces the other"
        faults.append(Fault("/secrets", "must be one or two different names", hint))
    for number, secret in enumerate(secrets):
        if not (isinstance(secret, str) and SECRET_NAME.fullmatch(secret)):
            # Not shown: it may be the secret itself.
            hint = "the secret's name: letters, digits, '_' and '-'; its value is kept elsewhere"
            faults.append(Fault(f"/secrets/{number}", "is not a name for a secret", hint))
    if faults:
        raise Invalid.all_of(faults)
    if hook.exists and (hook.kind, hook.stream, hook.secrets) == (kind, stream, tuple(secrets)):
        return []
    data = {"name": hook.name, "kind": kind, "stream": stream, "secrets": list(secrets), "reason": reason}
    return [NewEvent("HookDefined", data)]


def remove(hook: Hook, reason: str | None) -> list[NewEvent]:
    """Take the hook away. Raises NotFound."""
    require_existing(hook)
    return [NewEvent("HookRemoved", {"name": hook.name, "reason": reason})]


def require_existing(hook: Hook) -> None:
    """Raise NotFound for a hook that is not there."""
    if not hook.exists:
        raise NotFound(f"there is no hook {hook.name[:80]!r}")
