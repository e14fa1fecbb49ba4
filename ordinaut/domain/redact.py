"""Keeping secrets out of events (I11): what a step was given is recorded without them.

A secret is known by the name it goes under. Names are compared without case, `-` and `_`. In a URL
(RFC 3986) that is the name of a query parameter, and what stands before the `@` is one in any case.
A `Blotter` knows secrets by their value, and finds them wherever they come back.
"""

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote_plus

MARK = "[redacted]"

SHORTEST = 6
"""Shorter values are not looked for: they stand in too much that is no secret."""

_SHORTEST_BEGINNING = 4
"""The beginning of a secret is taken for one, where a text was cut, from so many characters on."""

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
_PARAMETER = re.compile(r"(?<=[?&])([^\s=&#]+)=([^\s&#]+)")


def _parameter(found: re.Match[str]) -> str:
    return f"{found[1]}={MARK}" if is_secret_name(unquote_plus(found[1])) else found[0]


def _redacted_text(text: str) -> str:
    clean = _PARAMETER.sub(_parameter, _USERINFO.sub(f"{MARK}@", text))
    return text if clean == text else clean


_PLAIN_USER = re.compile(r"(?<!http)(?<!https)://[^\s/?#@:]+@", re.IGNORECASE)


def secrets_in_urls(text: str) -> list[str]:
    """The parts of the URLs in `text` that are secret: what stands before an `@`, and parameters under
    secret names. A user without a password (`ssh://git@host`) is none, but for http and https."""
    users = _USERINFO.findall(_PLAIN_USER.sub("://", text))
    return [
        *users,
        *(found[2] for found in _PARAMETER.finditer(text) if is_secret_name(unquote_plus(found[1]))),
    ]


def redacted(value: Any) -> Any:
    """`value` with what secret names hold replaced by a mark; the same object when nothing is."""
    if isinstance(value, dict):
        changed = {
            name: clean
            for name, member in value.items()
            if (clean := MARK if is_secret_name(name) else redacted(member)) is not member
        }
        return value | changed if changed else value
    if isinstance(value, list):
        items = [redacted(item) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if isinstance(value, str) and "://" in value:
        return _redacted_text(value)
    return value


class Blotter:
    """Replaces given secrets by a mark, wherever they stand in a text or a JSON value.

    It knows them as they are, percent-encoded as in a URL, and as they are written within JSON. Values
    shorter than `SHORTEST` are left alone.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if len(secret) >= SHORTEST for form in _forms(secret)}
        # One that holds another goes first, so that nothing of it is left.
        self._forms = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if forms else None

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return self._pattern is not None

    def text(self, text: str) -> str:
        """`text` with the mark in the place of every secret."""
        return text if self._pattern is None else self._pattern.sub(MARK, text)

    def error(self, text: str) -> str:
        """The same for what may have been cut: a secret's beginning at the end of it goes as well."""
        clean = self.text(text)
        for form in self._forms:
            for length in range(min(len(form) - 1, len(clean)), _SHORTEST_BEGINNING - 1, -1):
                if clean.endswith(form[:length]):
                    return clean[:-length] + MARK
        return clean

    def value(self, value: Any, *, cut: bool = False) -> Any:
        """A JSON value with the mark in the place of every secret, in names and numbers too; with `cut`,
        texts in it are errors that may have been cut."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self.error(value) if cut else self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self.value(member, cut=cut) for name, member in value.items()}
        if isinstance(value, list):
            return [self.value(item, cut=cut) for item in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return MARK if self._pattern.fullmatch(str(value)) else value
        return value


def _forms(secret: str) -> set[str]:
    return {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    }


NO_SECRETS = Blotter()
"""Finds nothing."""
