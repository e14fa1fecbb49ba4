"""/v1/events: the door for events over HTTP; the same as a stream entry, but durable when answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter

from ordinaut.api import cloudevents, openapi
from ordinaut.api.bodies import check_fields, parse_json, text_field
from ordinaut.api.door import Answer, Command, Direct, command
from ordinaut.api.idempotency import event_name
from ordinaut.api.problems import BadRequest
from ordinaut.api.queries import Query
from ordinaut.domain import ids
from ordinaut.domain.errors import Fault, Invalid
from ordinaut.log.appender import MAX_PART
from ordinaut.runtime.publication import Incoming, Origin
from ordinaut.runtime.publish import Accepted, publish_events, stream_fault

router = APIRouter(prefix="/v1", tags=["events"], route_class=Direct)

MOST = MAX_PART
"""Events in one request."""

_EVENT = {"stream": openapi.TEXT, "data": openapi.ANY, "id": openapi.TEXT}
_BATCH = {"events": {"type": "array", "maxItems": MOST, "items": {"type": "object", "properties": _EVENT}}}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An event that is to be published. `own` is the sender's name for it, if it has one."""

    stream: str
    data: Any
    own: tuple[str, ...] | None


@router.post("/events", status_code=202, openapi_extra=openapi.body(_EVENT, required=("stream",)))
@command
async def post_event(command: Command) -> Answer:
    """Publish an event: every task that listens to `stream`, and whose `where` holds, gets a run.

    `id` is the sender's own name for the event, at most 200 characters: an event that comes again with
    the same stream and id within seven days is the same event, and starts nothing.

    CloudEvents 1.0 are taken in structured, binary and batched mode: `source` and `id` are the name, and
    the stream is the query parameter `stream`, or without one the attribute `type`.
    """
    mode = cloudevents.mode(command.request.headers)
    if mode == "batch":
        return await _batch_of_cloud_events(command)
    if mode == "plain":
        wanted = _plain(command.body(tuple(_EVENT), required=("stream",)))
    else:
        wanted = _cloud_event(command, mode)
    (found,) = await _publish(command, [wanted])
    return Answer(202, _shown(found), found.position)


@router.post("/events:batch", status_code=202, openapi_extra=openapi.body(_BATCH, required=("events",)))
@command
async def post_events(command: Command) -> Answer:
    """Publish up to 1,000 events at once, all of them or, if one is not valid, none.

    Each is as in `POST /v1/events`, and the answer has theirs in the same order. A batch of CloudEvents
    (`application/cloudevents-batch+json`) is taken here, too.
    """
    if cloudevents.mode(command.request.headers) == "batch":
        return await _batch_of_cloud_events(command)
    sent = command.body(("events",), required=("events",))["events"]
    if not isinstance(sent, list):
        raise Invalid.at("/events", "must be a list of events")
    _bounded(sent, "/events")
    wanted: list[_Wanted] = []
    faults: list[Fault] = []
    for number, one in enumerate(sent):
        try:
            wanted.append(_plain(one))
        except Invalid as error:
            faults += [fault.under(f"/events/{number}") for fault in error.faults]
    return await _published(command, wanted, faults)


async def _batch_of_cloud_events(command: Command) -> Answer:
    sent = parse_json(command.raw)
    if not isinstance(sent, list):
        raise Invalid.at("", "the body is no list", f"{cloudevents.BATCH} is a list of events")
    _bounded(sent, "")
    stream = _stream_asked_for(command)
    wanted: list[_Wanted] = []
    faults: list[Fault] = []
    for number, document in enumerate(sent):
        event, wrong = cloudevents.from_document(document)
        if one := _of_cloud_event(event, stream, wrong):
            wanted.append(one)
        faults += [fault.under(f"/{number}") for fault in wrong]
    return await _published(command, wanted, faults)


def _bounded(sent: Sequence[Any], pointer: str) -> None:
    if len(sent) > MOST:
        raise Invalid.at(pointer, f"has {len(sent)} events", f"at most {MOST}")


async def _published(command: Command, wanted: Sequence[_Wanted], faults: Sequence[Fault]) -> Answer:
    if faults:
        raise Invalid.all_of(faults)
    found = await _publish(command, wanted)
    position = max((one.position for one in found), default=None)
    return Answer(202, {"events": [_shown(one) for one in found]}, position)


def _shown(found: Accepted) -> dict[str, Any]:
    return {"id": found.id, "runs": found.runs}


def _plain(body: Any) -> _Wanted:
    """The event in `{"stream": …, "data": …, "id": …}`. Raises Invalid."""
    if not isinstance(body, dict):
        raise Invalid.at("", "is no event", 'an object such as {"stream": "orders", "data": …}')
    check_fields(body, tuple(_EVENT), ("stream",))
    stream, own_id = text_field(body, "stream"), text_field(body, "id", longest=200)
    if stream is None:
        raise Invalid.at("/stream", "must be text, not null")
    if fault := stream_fault(stream):
        raise Invalid.at("/stream", fault)
    return _Wanted(stream, body.get("data"), None if own_id is None else (own_id,))


def _cloud_event(command: Command, mode: str) -> _Wanted:
    stream = _stream_asked_for(command)
    faults: list[Fault] = []
    if mode == "binary":
        event = cloudevents.from_headers(command.request.headers, command.raw)
    else:
        event, faults = cloudevents.from_document(parse_json(command.raw))
    wanted = _of_cloud_event(event, stream, faults)
    if wanted is None and mode == "binary":
        raise BadRequest.header("ce-type", faults[0].message, faults[0].hint)
    if wanted is None:
        raise Invalid.all_of(faults)
    return wanted


def _of_cloud_event(event: dict[str, Any], stream: str | None, faults: list[Fault]) -> _Wanted | None:
    """What is published for a CloudEvent: itself. None when it has faults; a type that cannot be the stream
    becomes one."""
    if faults:
        return None
    if stream is None and (fault := stream_fault(event["type"])):
        faults.append(
            Fault("/type", fault, "the type is the stream unless the query parameter `stream` names it")
        )
        return None
    return _Wanted(stream or event["type"], event, (event["source"], event["id"]))


def _stream_asked_for(command: Command) -> str | None:
    stream = Query(command.request, ("stream",)).text("stream")
    if stream is not None and (fault := stream_fault(stream)):
        raise BadRequest.query("stream", fault)
    return stream


async def _publish(command: Command, wanted: Sequence[_Wanted]) -> list[Accepted]:
    # An event's id begins with its time; the moment the sender's name for it was first seen is remembered.
    names = [None if one.own is None else event_name(one.stream, *one.own) for one in wanted]
    known = [name for name in names if name is not None]
    seen = await command.door.idempotency.first_seen(command.space, known, command.seed_ms)
    incoming = []
    for number, (one, name) in enumerate(zip(wanted, names, strict=True)):
        if name is not None:
            event_id = ids.keyed_id(seen[name], command.space, name)
        else:
            event_id = command.fresh_id(*([str(number)] if len(wanted) > 1 else []))
        incoming.append(Incoming(one.stream, one.data, event_id))
    origin = Origin(command.space, command.caller.actor, command.correlation, command.causation)
    return await publish_events(command.system, command.door.triggers, incoming, origin)
