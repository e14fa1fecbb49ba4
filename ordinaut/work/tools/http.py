"""`http.get`, `http.post` and `http.request`: calls to other services.

Every request carries `Idempotency-Key`, the same on every attempt of the step, so that a service
which knows that header does the work once (I9). Errors name the method and the host, never header
values, credentials, paths or queries (I11).
"""

import asyncio
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
import orjson

from ordinaut import __version__
from ordinaut.domain.durations import parse_duration
from ordinaut.work.tools import http_message
from ordinaut.work.tools.base import StepContext, Tool
from ordinaut.work.tools.errors import ToolError, ToolFault

BODY_LIMIT = 10 * 1024 * 1024
"""How much of an answer is read, in bytes after decompression. More fails the step."""

IDLE_SECONDS = 2.0
"""How long an idle connection is kept for the next call. Servers commonly close theirs after 5 s (uvicorn,
Node.js) or more: who keeps one for as long as the server does sends into a connection that is just being
closed, and a POST that fails so cannot be known not to have been carried out."""

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def new_client() -> httpx.AsyncClient:
    """The client for `Services.http`: shared by all runs, so it keeps no cookies of any of them.

    It has no timeouts of its own: the step's bound each call as a whole.
    """
    jar = CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=IDLE_SECONDS)
    return httpx.AsyncClient(cookies=jar, limits=limits, timeout=None)  # noqa: S113


async def _request(given: Mapping[str, Any], ctx: StepContext) -> dict[str, Any]:
    request = _build(given, ctx)
    place = f"{request.method} {http_message.origin(request.url)}"
    seconds = _seconds(given["timeout"]) if "timeout" in given else None
    try:
        async with asyncio.timeout(seconds):
            response = await ctx.services.http.send(
                request, stream=True, auth=None, follow_redirects=given.get("follow_redirects", False)
            )
            try:
                content = await _read(response, place)
            finally:
                await response.aclose()
    except TimeoutError:
        if seconds is None:
            raise
        raise ToolError(f"{place} took longer than {seconds:g} s", retryable=True) from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise _connection_error(place, error) from None
    return _judge(given, request, response, content)


def _judge(
    given: Mapping[str, Any], request: httpx.Request, response: httpx.Response, content: bytes
) -> dict[str, Any]:
    status = response.status_code
    if http_message.succeeded(status, given.get("expect_status", ())):
        return http_message.as_output(response, content)
    place = f"{request.method} {http_message.origin(request.url)}"
    raise ToolError(
        f"{place} answered {status} {response.reason_phrase}".rstrip(),
        retryable=http_message.retryable(status),
        retry_after=http_message.retry_after(response.headers),
        details={"status": status, "body": http_message.excerpt(response, content, request.headers)},
    )


def _build(given: Mapping[str, Any], ctx: StepContext) -> httpx.Request:
    headers = {name.lower(): _scalar(value) for name, value in given.get("headers", {}).items()}
    headers.setdefault("idempotency-key", ctx.idempotency_key)
    headers.setdefault("user-agent", f"ordinaut/{__version__}")
    content: bytes | None = None
    if "json" in given:
        content = orjson.dumps(given["json"])
        headers.setdefault("content-type", "application/json")
    elif "body" in given:
        content = given["body"].encode()
        headers.setdefault("content-type", "text/plain; charset=utf-8")
    return ctx.services.http.build_request(
        given["method"],
        _url(given),
        headers=httpx.Headers(headers, encoding="utf-8"),
        content=content,
        timeout=None,
    )


def _url(given: Mapping[str, Any]) -> httpx.URL:
    try:
        url = httpx.URL(given["url"])
    except (httpx.InvalidURL, ValueError):
        raise ToolFault("/url", "is not a URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ToolFault("/url", "is not an absolute http or https URL")
    query = given.get("query")
    return url.copy_merge_params(query) if query else url


def _seconds(timeout: str | float) -> float:
    if not isinstance(timeout, str):
        return timeout
    try:
        return parse_duration(timeout).total_seconds()
    except ValueError as error:
        raise ToolFault("/timeout", str(error)) from None


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


async def _read(response: httpx.Response, place: str) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > BODY_LIMIT:
            raise ToolError(f"{place} answered with more than {BODY_LIMIT} bytes", retryable=False)
    return bytes(content)


def _connection_error(place: str, error: Exception) -> ToolError:
    # The library's own words may repeat a header or the URL; only those of the network layer do not.
    kind = type(error).__name__
    passing = isinstance(error, httpx.TimeoutException | httpx.NetworkError | httpx.RemoteProtocolError)
    told = f"{kind}: {error}" if isinstance(error, httpx.NetworkError) and str(error) else kind
    return ToolError(f"{place}: {told}", retryable=passing, details={"kind": kind})


_SCALAR = {"type": ["string", "number", "boolean"]}
_COMMON: dict[str, Any] = {
    "url": {
        "description": "an absolute http or https URL",
        "type": "string",
        "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://",
    },
    "headers": {
        "type": "object",
        "propertyNames": {
            "description": "header names are letters, digits and hyphens",
            "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+(?![\\s\\S])",
        },
        "additionalProperties": {
            "type": ["string", "number", "boolean"],
            "pattern": "^[^\\r\\n\\u0000]*(?![\\s\\S])",
            "description": "a header value is one line",
        },
    },
    "query": {
        "type": "object",
        "additionalProperties": {
            "description": "a text, a number, true or false, or a list of these",
            "anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}],
        },
    },
    "timeout": {
        "description": "for the whole call: seconds, or a duration such as 10s",
        "type": ["number", "string"],
        "exclusiveMinimum": 0,
    },
    "expect_status": {
        "description": "which statuses succeed, instead of all 2xx and 3xx",
        "type": "array",
        "minItems": 1,
        "items": {"type": "integer", "minimum": 100, "maximum": 599},
    },
    "follow_redirects": {"type": "boolean", "default": False},
}
_BODY: dict[str, Any] = {"json": {}, "body": {"type": "string"}}
_OUTPUT = {
    "type": "object",
    "properties": {
        "status": {"type": "integer"},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
        "body": {},
        "encoding": {"const": "base64"},
    },
    "required": ["status", "headers", "body"],
    "additionalProperties": False,
}
_SAMPLE = {"status": 200, "headers": {"content-type": "application/json"}, "body": {}}


def _input(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**_COMMON, **properties},
        "required": ["url", *required],
        "additionalProperties": False,
        "allOf": [{"description": "give json or body, not both", "not": {"required": ["json", "body"]}}],
    }


async def _get(given: Mapping[str, Any], ctx: StepContext) -> dict[str, Any]:
    return await _request({**given, "method": "GET"}, ctx)


async def _post(given: Mapping[str, Any], ctx: StepContext) -> dict[str, Any]:
    return await _request({**given, "method": "POST"}, ctx)


GET = Tool("http.get", "Sends GET and gives status, headers and body.", _input({}), _OUTPUT, _get, _SAMPLE)
POST = Tool("http.post", "Sends POST with `json` or `body`.", _input(_BODY), _OUTPUT, _post, _SAMPLE)
REQUEST = Tool(
    "http.request",
    "Sends a request with any method.",
    _input({**_BODY, "method": {"enum": _METHODS}}, "method"),
    _OUTPUT,
    _request,
    _SAMPLE,
)
