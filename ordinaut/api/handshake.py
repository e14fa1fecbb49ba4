"""OPTIONS where events and webhooks' deliveries are sent: the handshake that some senders insist on.

HTTP 1.1 Web Hooks for Event Delivery 1.0.2 (https://github.com/cloudevents/spec), section 4: a sender asks
whether notifications are expected at a URL before it sends any. It is asked without a key and proves nothing:
each delivery still needs its key or its signature.
"""

import re

from fastapi import APIRouter, Request, Response

from ordinaut.api.door import Direct, door_of
from ordinaut.api.problems import BadRequest, allowed_methods
from ordinaut.domain.hook import require_existing
from ordinaut.runtime.hooks import load_hook

router = APIRouter(prefix="/v1", tags=["events"], route_class=Direct)

ORIGIN, ALLOWED_ORIGIN, ALLOWED_RATE = (
    "WebHook-Request-Origin",
    "WebHook-Allowed-Origin",
    "WebHook-Allowed-Rate",
)
NO_LIMIT = "*"

# A DNS expression; not every sender keeps to that. It is sent back, so no more than one word of ASCII.
_ORIGIN = re.compile(r"[\x21-\x7e]{1,253}")


@router.options("/events")
@router.options("/events:batch")
async def may_send_events(request: Request) -> Response:
    """Whether events may be sent here, as CloudEvents' web hooks ask before they do: yes, from every origin
    and at any rate. No key is needed to ask."""
    return _granted(request)


@router.options("/hooks/{name}")
async def may_deliver(request: Request) -> Response:
    """Whether deliveries are expected at a webhook: yes, where there is one. No key is needed to ask."""
    return await _of_hook(request, door_of(request).system.settings.space)


@router.options("/hooks/{space}/{name}")
async def may_deliver_to_space(request: Request) -> Response:
    """The same for a hook of another space than the default one."""
    return await _of_hook(request, request.path_params["space"])


async def _of_hook(request: Request, space: str) -> Response:
    async with door_of(request).system.pool.acquire() as connection:
        require_existing(await load_hook(connection, space, request.path_params["name"]))
    return _granted(request)


def _granted(request: Request) -> Response:
    headers = {"Allow": ", ".join(allowed_methods(request))}
    origin = request.headers.get(ORIGIN)
    if origin is not None:
        if not _ORIGIN.fullmatch(origin):
            raise BadRequest.header(ORIGIN, "the sender's DNS name, at most 253 characters")
        headers |= {ALLOWED_ORIGIN: origin, ALLOWED_RATE: NO_LIMIT}
    return Response(None, 200, headers)
