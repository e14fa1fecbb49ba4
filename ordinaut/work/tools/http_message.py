"""How an HTTP answer becomes a step's output, and which answers are failures.

RFC 9110 for status codes and Retry-After; what may be shown of a request is decided here too.
"""

import base64
import re
from collections.abc import Collection
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

RETRYABLE_STATUSES = frozenset({408, 425, 429})
"""Besides all 5xx: the request was fine, the moment was not."""

RETRY_AFTER_LIMIT = 86_400.0
"""The longest wait an answer may ask for, in seconds."""

_EXCERPT = 500
_SHORTEST_SECRET = 6
_PUBLIC_REQUEST_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "user-agent",
    }
)


def succeeded(status: int, expected: Collection[int]) -> bool:
    """Whether `status` is one of `expected` or, when that is empty, 2xx or 3xx."""
    return status in expected if expected else 200 <= status < 400


def retryable(status: int) -> bool:
    """Whether the same request may get another answer later."""
    return status in RETRYABLE_STATUSES or status >= 500


def retry_after(headers: httpx.Headers) -> float | None:
    """The seconds that `Retry-After` (RFC 9110, section 10.2.3) asks to wait, at most a day.

    A date is measured against the answer's own `Date`, so that only the other side's clock counts.
    None when there is no such header, or none that can be read.
    """
    told = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,12}", told):
        return min(float(told), RETRY_AFTER_LIMIT)
    try:
        wait = parsedate_to_datetime(told) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return min(max(wait.total_seconds(), 0.0), RETRY_AFTER_LIMIT)


def as_output(response: httpx.Response, content: bytes) -> dict[str, Any]:
    """The step's output: `{status, headers, body}`, header names in lower case.

    `body` is the parsed JSON when the answer says that it is JSON and it is; else its text. What is
    not text is base64, and then `encoding` is "base64". `Set-Cookie` is left out: it is a session's
    secret, and the output is kept in the log (I11).
    """
    headers = {name.lower(): value for name, value in response.headers.items() if name != "set-cookie"}
    output: dict[str, Any] = {"status": response.status_code, "headers": headers}
    text = _text(response, content)
    if text is None:
        return output | {"body": base64.b64encode(content).decode(), "encoding": "base64"}
    return output | {"body": _parsed(text) if _is_json(headers.get("content-type", "")) else text}


def excerpt(response: httpx.Response, content: bytes, sent: httpx.Headers) -> str:
    """The beginning of an answer's text, for an error; what the request's headers held is blotted out."""
    text = _text(response, content) or ""
    hidden = [value for name, value in sent.items() if name not in _PUBLIC_REQUEST_HEADERS]
    secrets = {part for value in hidden for part in (value, *value.split()) if len(part) >= _SHORTEST_SECRET}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text[:_EXCERPT]


def origin(url: httpx.URL) -> str:
    """`https://host:port` alone: credentials, path and query of a URL may each be a secret."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _parsed(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # Servers that say JSON and send "OK" are common, and the request has been done.
        return text


def _text(response: httpx.Response, content: bytes) -> str | None:
    for charset in (response.charset_encoding or "utf-8", "utf-8"):
        try:
            text = content.decode(charset)
        except (UnicodeDecodeError, LookupError):
            continue
        return None if "\0" in text else text.removeprefix("\ufeff")
    return None
