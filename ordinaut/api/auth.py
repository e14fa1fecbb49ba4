"""Who asks: `Authorization: Bearer KEY` on everything under /v1.

/health, /metrics and /docs are open: probes and scrapers have no keys, and they tell nothing of any
task, run or event. A webhook's deliveries are signed instead (deliveries.py), and whether events are
expected may be asked without a key (handshake.py).
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ordinaut.api.problems import problem
from ordinaut.domain.errors import Forbidden, OrdinautError, Unauthorized
from ordinaut.runtime.keys import Caller, Keys

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_PURE = frozenset({"/v1/schedules/preview", "/v1/triggers/test"})
"""POSTs that change nothing: a reader may send them."""


_DELIVERIES = "/v1/hooks/"
_EVENTS = frozenset({"/v1/events", "/v1/events:batch"})


def needs_no_key(method: str, path: str) -> bool:
    """Whether the request is a webhook's, which proves itself by a signature, or asks whether events or
    deliveries may be sent."""
    if path.startswith(_DELIVERIES):
        return method in ("POST", "OPTIONS")
    return method == "OPTIONS" and path in _EVENTS


class Authenticate:
    """ASGI middleware: finds the caller of every request under /v1, or answers 401 or 403.

    Behind it `scope["caller"]` is the `Caller`.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its caller, or answer it."""
        keyed = scope["type"] == "http" and scope["path"].startswith("/v1")
        if keyed and not needs_no_key(scope["method"], scope["path"]):
            try:
                scope["caller"] = await self._caller(scope)
            except OrdinautError as error:
                await problem(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        given = Headers(scope=scope).getlist("authorization")
        if not given:
            raise Unauthorized("a key is needed: send the header `Authorization: Bearer KEY`")
        scheme, _, key = given[0].strip().partition(" ")
        key = key.strip()
        if len(given) > 1 or scheme.lower() != "bearer" or not 0 < len(key) <= 512:
            raise Unauthorized("the header must read `Authorization: Bearer KEY`")
        caller = await self._keys.caller(key)
        if caller is None:
            raise Unauthorized("this key is not known here, or was revoked")
        if caller.role == "reader" and scope["method"] not in _READS and scope["path"] not in _PURE:
            raise Forbidden(
                f"the key of {caller.agent!r} may only read; this needs an operator's or admin's key"
            )
        return caller
