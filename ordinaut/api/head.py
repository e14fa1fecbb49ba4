"""HEAD, wherever GET is: the same answer without its body (RFC 9110, section 9.3.2)."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _Answered(Exception):
    """The headers are out, and nothing else is wanted."""


class Head:
    """ASGI middleware: carries a HEAD out as a GET up to the answer's headers, and drops what would follow.

    A body is not even made: that of a live stream would have no end.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        inner = {**scope, "method": "GET"}

        async def only_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                raise _Answered

        try:
            await self._app(inner, receive, only_headers)
        except _Answered:
            pass
        finally:
            scope["route"] = inner.get("route")  # for who counts requests by route
