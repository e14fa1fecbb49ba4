"""/v1/log: what happened, by page, and as it happens (server-sent events)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from ordinaut.api import openapi
from ordinaut.api.door import Direct, Door, caller_of, door_of, query
from ordinaut.api.problems import BadRequest
from ordinaut.api.queries import Query
from ordinaut.domain.events import EVENT_TYPES
from ordinaut.log.database import OUTAGE
from ordinaut.log.read import LogFilter, head, public, read_log
from ordinaut.log.wake import LOG, Wake

router = APIRouter(prefix="/v1/log", tags=["log"], route_class=Direct)

FILTERS = ("stream", "type", "correlation", "actor", "since", "until")
LAST_EVENT_ID = "Last-Event-ID"
HEARTBEAT_SECONDS = 15.0
BATCH = 500
PAUSE_SECONDS = 0.05
"""A follower looks at most this often, however fast the log grows."""


def wanted(request: Request, asked: Query) -> LogFilter:
    """The filter a request names; always within the caller's space."""
    return LogFilter(
        space=caller_of(request).space,
        stream=asked.text("stream"),
        types=asked.texts("type", EVENT_TYPES),
        correlation=asked.text("correlation"),
        actor=asked.text("actor"),
        since=asked.instant("since"),
        until=asked.instant("until"),
    )


@router.get(
    "",
    openapi_extra=openapi.parameters(
        limit="",
        after="A position; the page begins behind it.",
        stream="",
        type="",
        correlation="",
        actor="",
        since="",
        until="",
        order="asc (oldest first, the default) or desc.",
    ),
)
@query()
async def list_log(request: Request) -> dict[str, Any]:
    """The log's events, oldest first unless `order=desc`. `next` is a position, as `after` is."""
    asked = Query(request, (*FILTERS, "limit", "after", "order"), repeatable=("type",))
    limit, after = asked.limit(), asked.position("after", 0)
    newest_first = asked.choice("order", ("asc", "desc")) == "desc"
    async with door_of(request).system.pool.acquire() as connection:
        found = await read_log(
            connection, wanted(request, asked), after=after, limit=limit + 1, newest_first=newest_first
        )
    page = found[:limit]
    return {
        "items": [public(event) for event in page],
        "next": str(page[-1].position) if len(found) > limit else None,
    }


@router.get(
    "/live",
    response_class=StreamingResponse,
    openapi_extra=openapi.parameters(
        after="A position: begin behind it. Without it, at the end of the log.", stream="", type="",
        correlation="", actor="",
    ),
)  # fmt: skip
async def follow_log(request: Request) -> Response:
    """The log as it grows, as server-sent events: `id` is the position, `event` the type, `data` the event.

    A client that reconnects sends `Last-Event-ID` and misses nothing. Lines that begin with a colon are
    heartbeats.
    """
    asked = Query(request, ("stream", "type", "correlation", "actor", "after"), repeatable=("type",))
    door, selection = door_of(request), wanted(request, asked)
    last = request.headers.get(LAST_EVENT_ID)
    if last is not None and not (last.isascii() and last.isdigit() and len(last) < 20):
        raise BadRequest.header(LAST_EVENT_ID, f"{last[:40]!r} is not a position", "the id of the last event")
    if last is not None:
        position = int(last)
    elif asked.text("after") is not None:
        position = asked.position("after", 0)
    else:
        async with door.system.pool.acquire() as connection:
            position = await head(connection)
    return StreamingResponse(
        _follow(door, selection, min(position, 2**63 - 1)),
        media_type="text/event-stream",
        # Proxies keep the stream back otherwise.
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _follow(door: Door, selection: LogFilter, position: int) -> AsyncIterator[bytes]:
    """What is behind `position`, for ever; ends when the process stops. An outage of PostgreSQL is waited
    out."""
    wake = Wake()
    unhear = door.system.notifications.hear(LOG, lambda _: wake.set())
    stopping = asyncio.ensure_future(door.stopping.wait())
    stopping.add_done_callback(lambda _: wake.set())
    loop = asyncio.get_running_loop()
    spoken = loop.time()
    try:
        yield b": following the log\n\n"
        while not door.stopping.is_set():
            try:
                text, reached, more = await _read(door, selection, position)
            except OUTAGE:
                text, reached, more = b"", position, False
            if text:
                yield text
                spoken = loop.time()
            elif loop.time() - spoken >= HEARTBEAT_SECONDS:
                # With the position, so that a reconnect does not search again through what did not match.
                yield b"id: %d\n: heartbeat\n\n" % reached
                spoken = loop.time()
            position = reached
            if not more:
                await wake.wait(door.system.settings.poll_seconds)
                await asyncio.sleep(PAUSE_SECONDS)
    finally:
        stopping.cancel()
        unhear()


async def _read(door: Door, selection: LogFilter, position: int) -> tuple[bytes, int, bool]:
    """The next batch as text, the position reached, and whether there may be more."""
    async with door.system.pool.acquire() as connection:
        # The head first: whatever is behind it when the events are read has its turn next time.
        end = await head(connection)
        if end <= position:
            return b"", position, False
        events = await read_log(connection, selection, after=position, limit=BATCH)
    text = b"".join(
        b"id: %d\nevent: %b\ndata: %b\n\n"
        % (event.position, event.type.encode(), orjson.dumps(public(event)))
        for event in events
    )
    if len(events) == BATCH:
        return text, events[-1].position, True
    return text, max(end, events[-1].position if events else 0), False
