"""Errors as answers: RFC 9457 problem details, one shape for everything that can go wrong.

    {"type": "urn:ordinaut:problem:invalid", "title": …, "status": 422, "detail": …,
     "errors": [{"pointer": "/pipeline/0/uses", "detail": …, "hint": …}]}

`pointer` is a JSON Pointer (RFC 6901) into the body that was sent; what is wrong with the query or a
header is named by `parameter` or `header` instead.
"""

import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import asyncpg
import orjson
import structlog
from fastapi import FastAPI, Request, Response
from prometheus_client import Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ordinaut.domain.errors import Fault, OrdinautError, Unavailable
from ordinaut.domain.ids import new_id
from ordinaut.log.append import is_outage
from ordinaut.runtime.metrics import HTTP_REQUESTS, HTTP_SECONDS

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})

logger = structlog.get_logger(__name__)


class BadRequest(OrdinautError):
    """The request cannot be read: no JSON, a header or query parameter that makes no sense."""

    slug = "bad-request"
    title = "The request cannot be read"
    status = 400

    def __init__(self, message: str, faults: Sequence[Fault] = (), *, place: str = "pointer") -> None:
        super().__init__(message, faults)
        self.place = place

    @classmethod
    def query(cls, name: str, message: str, hint: str = "") -> "BadRequest":
        """What is wrong with the query parameter `name`."""
        detail = f"query parameter {name!r}: {message}" + (f" ({hint})" if hint else "")
        return cls(detail, [Fault(name, message, hint)], place="parameter")

    @classmethod
    def header(cls, name: str, message: str, hint: str = "") -> "BadRequest":
        """What is wrong with the header `name`."""
        detail = f"header {name}: {message}" + (f" ({hint})" if hint else "")
        return cls(detail, [Fault(name, message, hint)], place="header")


class TooLarge(OrdinautError):
    """The body has more bytes than the server takes."""

    slug = "too-large"
    title = "The body is too large"
    status = 413


class UnsupportedEncoding(OrdinautError):
    """The body is compressed, which the server does not undo."""

    slug = "unsupported-encoding"
    title = "The body is encoded"
    status = 415


class UnsupportedMediaType(OrdinautError):
    """The body is in a format that is not read here."""

    slug = "unsupported-media-type"
    title = "The body's format is not known"
    status = 415


class SignatureRefused(OrdinautError):
    """A webhook's delivery that is not signed as its hook wants it; nobody is told more than why."""

    slug = "signature-refused"
    title = "The delivery's signature is not accepted"
    status = 401
    challenge = "Webhook-Signature"


class KeyReused(OrdinautError):
    """One Idempotency-Key, two different requests."""

    slug = "idempotency-key-reused"
    title = "Idempotency-Key used for another request"
    status = 422


def problem(error: OrdinautError, extra: Mapping[str, Any] | None = None) -> Response:
    """The error as an answer. `extra` are further members of the problem object."""
    body: dict[str, Any] = {
        "type": f"urn:ordinaut:problem:{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.message,
    }
    if error.faults:
        place = getattr(error, "place", "pointer")
        body["errors"] = [
            {place: fault.pointer, "detail": fault.message, **({"hint": fault.hint} if fault.hint else {})}
            for fault in error.faults
        ]
    headers = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = f'{getattr(error, "challenge", "Bearer")} realm="ordinaut"'
    elif error.status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return Response(orjson.dumps(body | dict(extra or {})), error.status, headers, media_type=CONTENT_TYPE)


_HTTP_TITLES = {404: "not-found", 405: "method-not-allowed"}


async def _http_exception(request: Request, error: Exception) -> Response:
    """What the router itself refuses: paths and methods there are none of."""
    assert isinstance(error, HTTPException)
    refused = OrdinautError(f"{request.method} {request.url.path}: {error.detail}")
    refused.status = error.status_code
    refused.slug = _HTTP_TITLES.get(error.status_code, "error")
    refused.title = str(error.detail)
    if error.status_code == 404:
        refused.message = f"there is nothing at {request.url.path}; /docs lists what there is"
    elif error.status_code == 405:
        allowed = ", ".join(allowed_methods(request))
        refused.message = f"{request.method} does not work on {request.url.path}; allowed: {allowed}"
    answer = problem(refused)
    answer.headers.update(error.headers or {})
    if error.status_code == 405:
        answer.headers["Allow"] = allowed
    return answer


def allowed_methods(request: Request) -> list[str]:
    """The methods of all routes of the path; the router names those of the first one (RFC 9110, 10.2.1)."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    fitting = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    methods = {method for route in fitting for method in route.methods or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


async def _known_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OrdinautError)
    return problem(error)


def add_handlers(app: FastAPI) -> None:
    """Make every refusal of `app` a problem."""
    app.add_exception_handler(OrdinautError, _known_error)
    app.add_exception_handler(HTTPException, _http_exception)


def unexpected(error: Exception, path: str) -> Response:
    """The answer to an error nobody foresaw, or to an outage of PostgreSQL. What happened is in the log
    line whose `problem` is the id in the answer; the answer itself tells nothing of the inside."""
    if is_outage(error):
        logger.warning("api.database_away", error=str(error) or type(error).__name__, path=path)
        return problem(Unavailable("the database does not answer"))
    if isinstance(error, asyncpg.UndefinedTableError | asyncpg.UndefinedFunctionError):
        logger.error("api.schema_missing", error=str(error), path=path)
        return problem(Unavailable("the database is not prepared: run `ordinaut migrate`"))
    number = new_id()
    logger.error("api.unexpected_error", problem=number, path=path, exc_info=error)
    failure = OrdinautError(f"something unexpected happened; the server's log tells what, under {number}")
    failure.slug, failure.title = "internal", "Unexpected error"
    return problem(failure, {"id": number})


@cache
def _meters(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Where such a request is counted and timed. There are as few as series, which stay for good too."""
    return HTTP_REQUESTS.labels(method, route, str(status)), HTTP_SECONDS.labels(route)


class Observe:
    """ASGI middleware, the outermost: counts and times requests, and answers for unforeseen errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            pass  # nobody is there to be told
        except Exception as error:
            if status:  # the answer has begun; the connection can only be cut
                raise
            await unexpected(error, scope["path"])(scope, receive, watched)
        finally:
            # The route's pattern, not the path: paths hold names and ids without number.
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            requests, seconds = _meters(method, route, status)
            requests.inc()
            seconds.observe(time.monotonic() - began)
