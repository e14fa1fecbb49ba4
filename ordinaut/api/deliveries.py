"""POST /v1/hooks/…: what webhooks deliver. No API key is needed; the signature is the proof.

A delivery is published as a CloudEvent: `id` is the sender's id for it, `type` what it says it is, `source`
the path it came to, and `hook` and `kind` are extensions. So triggers see it as any other.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response

from ordinaut.api.bodies import parse_json, read_body
from ordinaut.api.contents import content_of
from ordinaut.api.door import Direct, Door, as_json, door_of
from ordinaut.api.idempotency import event_name
from ordinaut.api.positions import POSITION
from ordinaut.api.problems import BadRequest, SignatureRefused
from ordinaut.domain import ids
from ordinaut.domain.contents import FORM, media_type
from ordinaut.domain.errors import Fault, Invalid, Unavailable
from ordinaut.domain.hook import Hook, require_existing
from ordinaut.domain.jsonvalues import faults_in, text_fault
from ordinaut.domain.signature import TOLERANCE_SECONDS, Reason, refusal
from ordinaut.runtime.hooks import actor_of, keys_of, load_hook
from ordinaut.runtime.publication import Incoming, Origin
from ordinaut.runtime.publish import publish_events

router = APIRouter(prefix="/v1/hooks", tags=["hooks"], route_class=Direct)

LONGEST = 200
"""Characters of a sender's id or type."""

UNTYPED = "webhook"
"""The type of a delivery that says none."""

_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {}}, "*/*": {"schema": {}}}}
}
_SAID: dict[Reason, str] = {
    "missing": "the headers with the signature are missing",
    "malformed": "the headers with the signature cannot be read",
    "asymmetric": "it is signed as `v1a` only, by a private key; the hook's secret verifies `v1`",
    "wrong": "the signature is not one of this body by the hook's secret",
    "old": f"it was signed more than {TOLERANCE_SECONDS} seconds ago",
    "ahead": f"it was signed more than {TOLERANCE_SECONDS} seconds from now",
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a sender has said: its id for it, what kind of thing it is, and the rest."""

    id: str
    type: str
    content: dict[str, Any]
    content_type: str | None


def path_of(hook: Hook, default_space: str) -> str:
    """Where a hook's deliveries are sent."""
    inner = "" if hook.space == default_space else f"{hook.space}/"
    return f"/v1/hooks/{inner}{hook.name}"


@router.post("/{name}", status_code=202, openapi_extra=_BODY)
async def deliver(request: Request) -> Response:
    """Deliver to a webhook; no key is needed, but a signature as the hook's sender makes it.

    202 means that the event and the runs it starts are on disk. A delivery that comes again with its id
    within seven days is the same event.
    """
    return await _deliver(request, door_of(request).system.settings.space)


@router.post("/{space}/{name}", status_code=202, openapi_extra=_BODY)
async def deliver_to_space(request: Request) -> Response:
    """The same for a hook of another space than the default one."""
    return await _deliver(request, request.path_params["space"])


async def _deliver(request: Request, space: str) -> Response:
    door, name = door_of(request), request.path_params["name"]
    async with door.system.pool.acquire() as connection:
        hook = await load_hook(connection, space, name)
    require_existing(hook)
    raw = await read_body(request, door.system.settings.max_body_bytes)
    await _verify(door, hook, request, raw)
    delivery = _read(hook, request, raw)
    # The id begins with the moment the delivery was first seen.
    known = event_name(hook.stream, "hook", hook.id, delivery.id)
    now_ms = int(door.system.time.reached().timestamp() * 1000)
    seen = await door.idempotency.first_seen(hook.space, [known], now_ms)
    event_id = ids.keyed_id(seen[known], hook.space, known)
    incoming = Incoming(hook.stream, _event(hook, delivery, door), event_id)
    actor = actor_of(hook)
    origin = Origin(hook.space, actor, event_id, f"{actor}/{delivery.id}")
    (found,) = await publish_events(door.system, door.triggers, [incoming], origin)
    return as_json({"id": found.id, "runs": found.runs}, 202, {POSITION: str(found.position)})


async def _verify(door: Door, hook: Hook, request: Request, raw: bytes) -> None:
    """Raises `SignatureRefused`, or `Unavailable` where it cannot be told; puts either on record."""
    headers: dict[str, str] = {}
    for header, value in request.headers.items():
        headers[header] = f"{headers[header]}, {value}" if header in headers else value
    keys, complete = keys_of(hook, door.system.settings.secrets_dir)
    reason = refusal(hook.kind, headers, raw, keys, door.system.time.now())
    if reason is None:
        return
    if reason == "wrong" and not complete:
        await door.refusals.note(hook, "secret")
        raise Unavailable("the secret to verify this with is not here at the moment")
    await door.refusals.note(hook, reason)
    raise SignatureRefused(_SAID[reason])


def _read(hook: Hook, request: Request, raw: bytes) -> Delivery:
    """What a verified delivery says. Raises `BadRequest` and `Invalid`."""
    content_type = request.headers.get("content-type")
    if hook.kind == "github" and media_type(content_type or "") == FORM:
        content, content_type = _form(raw), "application/json"
    else:
        content = content_of(raw, content_type)
    said = content["data"] if isinstance(content.get("data"), dict) else {}
    own_id: Any
    kind: Any
    if hook.kind == "github":
        own_id, kind = request.headers.get("x-github-delivery", ""), request.headers.get("x-github-event")
        if not _is_name(own_id):
            raise BadRequest.header("X-GitHub-Delivery", f"1 to {LONGEST} printable ASCII characters")
    elif hook.kind == "stripe":
        own_id, kind = said.get("id"), said.get("type")
        if not _is_name(own_id):
            raise Invalid.at("/id", f"must be the event's id, 1 to {LONGEST} printable ASCII characters")
    else:
        own_id, kind = request.headers["webhook-id"], said.get("type")
    is_type = isinstance(kind, str) and 0 < len(kind) <= LONGEST and kind.isprintable()
    return Delivery(own_id, kind if is_type else UNTYPED, content, content_type)


def _is_name(text: Any) -> bool:
    return isinstance(text, str) and 0 < len(text) <= LONGEST and text.isascii() and text.isprintable()


def _form(raw: bytes) -> dict[str, Any]:
    """The JSON that GitHub sends as the field `payload` of a form."""
    fields = parse_qs(raw.decode(errors="replace"), strict_parsing=False)
    if len(fields.get("payload", [])) != 1:
        raise Invalid.at("", "the form has no field `payload`", "or send the hook application/json")
    return {"data": parse_json(fields["payload"][0].encode())}


def _event(hook: Hook, delivery: Delivery, door: Door) -> dict[str, Any]:
    event = {
        "specversion": "1.0", "id": delivery.id, "type": delivery.type,
        "source": path_of(hook, door.system.settings.space), "hook": hook.name, "kind": hook.kind,
    }  # fmt: skip
    if delivery.content_type is not None and text_fault(delivery.content_type) is None:
        event["datacontenttype"] = delivery.content_type
    event |= delivery.content
    if faults := faults_in(event):  # an event is one level deeper than its data
        raise Invalid.all_of([Fault(fault.pointer.removeprefix("/data"), fault.message) for fault in faults])
    return event
