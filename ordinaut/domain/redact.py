"""Keeping secrets out of events (I11): what a step was given is recorded without them.

A secret is known by the name it goes under. Names are compared without case, `-` and `_`. In a URL
(RFC 3986) that is the name of a query parameter, and what stands before the `@` is one in any case.
"""

import re
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus

MARK = "[redacted]"

SECRET_NAMES = frozenset(
    {
        "authorization",
        "proxyauthorization",
        "cookie",
        "setcookie",
        "password",
        "passwd",
        "secret",
        "clientsecret",
        "token",
        "accesstoken",
        "refreshtoken",
        "idtoken",
        "apikey",
        "xapikey",
        "xauthtoken",
        "privatekey",
        "credentials",
    }
)


@lru_cache(4096)
def is_secret_name(name: str) -> bool:
    """Whether the value under this name is nobody's business."""
    return name.replace("-", "").replace("_", "").lower() in SECRET_NAMES


_USERINFO = re.compile(r"(?<=://)[^\s/?#@]+@")
_PARAMETER = re.compile(r"(?<=[?&])([^\s=&#]+)=[^\s&#]+")


def _parameter(found: re.Match[str]) -> str:
    return f"{found[1]}={MARK}" if is_secret_name(unquote_plus(found[1])) else found[0]


def _redacted_text(text: str) -> str:
    clean = _PARAMETER.sub(_parameter, _USERINFO.sub(f"{MARK}@", text))
    return text if clean == text else clean


def redacted(value: Any) -> Any:
    """`value` with what secret names hold replaced by a mark; the same object when nothing is."""
    if isinstance(value, dict):
        copy = {name: MARK if is_secret_name(name) else redacted(member) for name, member in value.items()}
        return copy if any(copy[name] is not value[name] for name in value) else value
    if isinstance(value, list):
        items = [redacted(item) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if isinstance(value, str) and "://" in value:
        return _redacted_text(value)
    return value
