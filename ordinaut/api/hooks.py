"""/v1/hooks: which webhooks there are. What they deliver is in deliveries.py."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request

from ordinaut.api import openapi
from ordinaut.api.bodies import text_field
from ordinaut.api.deliveries import path_of
from ordinaut.api.deliveries import router as deliveries
from ordinaut.api.door import Answer, Command, Direct, Door, caller_of, command, door_of, query, recorded
from ordinaut.api.queries import Query, to_cursor
from ordinaut.domain import hook as decisions
from ordinaut.domain.errors import Fault, Forbidden, Invalid, NotFound
from ordinaut.domain.events import NewEvent
from ordinaut.domain.hook import KINDS, MOST_SECRETS, Hook, evolve, hook_stream, require_existing
from ordinaut.runtime.hooks import all_hooks, load_hook, read_key
from ordinaut.runtime.publish import stream_fault
from ordinaut.runtime.secrets import VARIABLE

router = APIRouter(prefix="/v1/hooks", tags=["hooks"], route_class=Direct)

_FIELDS = {
    "kind": {"type": "string", "enum": list(KINDS)},
    "stream": openapi.TEXT | {"description": "Where the deliveries are events."},
    "secrets": {
        "type": "array", "minItems": 1, "maxItems": MOST_SECRETS, "items": openapi.TEXT,
        "description": "Names of secrets of the API, two while one is replaced. Never values.",
    },
    "reason": openapi.TEXT,
}  # fmt: skip
_REQUIRED = ("kind", "stream", "secrets")


@router.get("", openapi_extra=openapi.parameters(limit="", after=""))
@query()
async def list_hooks(request: Request) -> dict[str, Any]:
    """The webhooks of the key's space, in the order of their names; always fresh."""
    asked = Query(request, ("limit", "after"))
    limit, after = asked.limit(), asked.cursor() or ""
    door = door_of(request)
    async with door.system.pool.acquire() as connection:
        found = await all_hooks(connection, caller_of(request).space)
    page = [hook for hook in found if hook.name > after][: limit + 1]
    more = len(page) > limit
    items = [_as_answer(door, hook) for hook in page[:limit]]
    return {"items": items, "next": to_cursor(page[limit - 1].name) if more else None}


@router.get("/{name}")
@query()
async def get_hook(request: Request) -> dict[str, Any]:
    """One webhook, and who set it last and why; always fresh."""
    Query(request, ())
    door = door_of(request)
    hook = await _load(door, caller_of(request).space, request.path_params["name"])
    require_existing(hook)
    return _as_answer(door, hook)


@router.put("/{name}", openapi_extra=openapi.body(_FIELDS, required=_REQUIRED))
@command
async def put_hook(command: Command) -> Answer:
    """Let whoever signs with the secret deliver events to a stream, for an admin: 201 when the hook is new,
    200 when it was changed or is so already.

    `secrets` are names of secrets that the API has (ORDINAUT_SECRET_<NAME>, or files), not values.
    """
    _require_admin(command)
    body = command.body(tuple(_FIELDS), _REQUIRED)
    stream, reason = text_field(body, "stream"), text_field(body, "reason")
    if fault := stream_fault(stream or ""):
        raise Invalid.at("/stream", fault)
    secrets = body["secrets"]
    if not isinstance(secrets, list):
        raise Invalid.at("/secrets", "must be a list of names")

    def decide(hook: Hook) -> list[NewEvent]:
        events = decisions.define(hook, body["kind"], stream or "", secrets, reason)
        if events:
            _require_secrets(command, body)
        return events

    before, hook, position = await _change(command, decide)
    answer = _as_answer(command.door, hook)
    return Answer(200 if before else 201, answer, position, {"Location": f"/v1/hooks/{hook.name}"})


@router.delete("/{name}")
@command
async def delete_hook(command: Command) -> Answer:
    """Take a webhook away, for an admin; its deliveries are 404 from then on. `?reason=` goes on record."""
    _require_admin(command)
    reason = Query(command.request, ("reason",)).text("reason")
    _, hook, position = await _change(command, lambda hook: decisions.remove(hook, reason))
    return Answer(200, _as_answer(command.door, hook), position)


async def _change(
    command: Command, decide: Callable[[Hook], list[NewEvent]]
) -> tuple[bool, Hook, int | None]:
    """Decide by the hook as it is, and append: whether it was there, the hook, and the position."""
    name = command.request.path_params["name"]
    hook = await _load(command.door, command.space, name)
    before, events = hook.exists, decide(hook)
    if not events:
        return before, hook, None
    item = command.append(hook_stream(command.space, name), hook.version, events)
    appended = await command.system.appender.append(item)
    for event in recorded(item, appended):
        evolve(hook, event)
    return before, hook, appended.position


def _require_admin(command: Command) -> None:
    if command.caller.role != "admin":
        raise Forbidden(
            f"the key of {command.caller.agent!r} is a {command.caller.role}'s; this needs an admin's"
        )


def _require_secrets(command: Command, body: Mapping[str, Any]) -> None:
    """The secrets are there and can be used, so that a hook's first delivery is not what tells. And no value
    that was given for a name gets into the log: it would need to be the name of a secret, too."""
    faults = []
    for number, name in enumerate(body["secrets"]):
        pointer = f"/secrets/{number}"
        try:
            read_key(body["kind"], name, command.system.settings.secrets_dir)
        except NotFound:
            # Without the name, which may be the secret itself.
            hint = f"set {VARIABLE}<NAME> for the API, or put a file into ORDINAUT_SECRETS_DIR"
            faults.append(Fault(pointer, "the API knows no secret of this name, or cannot read it", hint))
        except ValueError as error:
            faults.append(Fault(pointer, f"the secret {error}", "as the sender shows it: whsec_…"))
    if faults:
        raise Invalid.all_of(faults)


async def _load(door: Door, space: str, name: str) -> Hook:
    async with door.system.pool.acquire() as connection:
        return await load_hook(connection, space, name)


def _as_answer(door: Door, hook: Hook) -> dict[str, Any]:
    return {
        "name": hook.name,
        "space": hook.space,
        "kind": hook.kind,
        "stream": hook.stream,
        "secrets": list(hook.secrets),
        "path": path_of(hook, door.system.settings.space),
        "version": hook.version,
        "reason": hook.reason,
        "changed_at": hook.changed_at.isoformat() if hook.changed_at else None,
        "changed_by": hook.changed_by,
    }


router.routes.extend(deliveries.routes)
