"""/v1/events: the door for events over HTTP; the same as a stream entry, but durable when answered."""

import hashlib

from fastapi import APIRouter

from ordinaut.api import openapi
from ordinaut.api.bodies import text_field
from ordinaut.api.door import Answer, Command, Direct, command
from ordinaut.domain import ids
from ordinaut.domain.errors import Invalid
from ordinaut.runtime.publish import publish_event

router = APIRouter(prefix="/v1/events", tags=["events"], route_class=Direct)


@router.post(
    "",
    status_code=202,
    openapi_extra=openapi.body(
        {"stream": openapi.TEXT, "data": openapi.ANY, "id": openapi.TEXT}, required=("stream",)
    ),
)
@command
async def post_event(command: Command) -> Answer:
    """Publish an event: every task that listens to `stream`, and whose `where` holds, gets a run.

    `id` is the sender's own name for the event, at most 200 characters: an event that comes again with
    the same stream and id within seven days is the same event, and starts nothing.
    """
    body = command.body(("stream", "data", "id"), required=("stream",))
    stream, own_id = text_field(body, "stream"), text_field(body, "id", longest=200)
    if stream is None:
        raise Invalid.at("/stream", "must be text, not null")
    event_id = command.fresh_id() if own_id is None else await _known_id(command, stream, own_id)
    found = await publish_event(
        command.system,
        command.door.triggers,
        space=command.space,
        stream=stream,
        data=body.get("data"),
        event_id=event_id,
        actor=command.caller.actor,
        correlation=command.correlation,
        causation=command.causation,
        depth=0,
    )
    return Answer(202, {"id": found["id"], "runs": found["runs"]}, found["position"])


async def _known_id(command: Command, stream: str, own_id: str) -> str:
    # An event's id begins with its time; the moment the sender's id was first seen is remembered where
    # Idempotency-Keys are, under a key no header can have (it has spaces).
    # Nor may one pair of stream and id read like another: both may have spaces.
    name = f"event {len(stream)} {stream} {own_id}"
    same = hashlib.sha256(name.encode()).digest()
    kept = await command.door.idempotency.begin(command.space, name, same, command.seed_ms)
    return ids.keyed_id(kept.seed_ms, command.space, name)
