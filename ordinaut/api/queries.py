"""Query strings: every parameter known and well formed; cursors; lists."""

import base64
import binascii
from collections.abc import Collection
from datetime import datetime

from fastapi import Request

from ordinaut.api.bodies import INSTANT_HINT, instant
from ordinaut.api.problems import BadRequest
from ordinaut.domain.definition_model import close_match
from ordinaut.domain.jsonvalues import text_fault

LIMIT = 50
MOST = 500
_LARGEST = 2**63 - 1


class Query:
    """The query parameters of one request. An unknown one is refused: a mistyped filter would otherwise
    show everything. Empty ones count as absent."""

    def __init__(self, request: Request, known: Collection[str], repeatable: Collection[str] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in request.query_params.multi_items():
            if name not in known:
                raise BadRequest.query(name, "there is no such parameter", close_match(name, known))
            if fault := text_fault(value):
                raise BadRequest.query(name, fault)
            if value:
                self._values.setdefault(name, []).append(value)
        for name, values in self._values.items():
            if len(values) > 1 and name not in repeatable:
                raise BadRequest.query(name, "given more than once")

    def text(self, name: str) -> str | None:
        """One value; None when absent."""
        values = self._values.get(name)
        return values[0] if values else None

    def texts(self, name: str, allowed: Collection[str] | None = None) -> list[str] | None:
        """All values, whether repeated or separated by commas; None when absent."""
        values = self._values.get(name)
        if values is None:
            return None
        parts = [part for value in values for part in value.split(",") if part]
        for part in parts:
            if allowed is not None and part not in allowed:
                raise BadRequest.query(
                    name, f"{part[:60]!r} is not known", f"one of {', '.join(sorted(allowed))}"
                )
        return parts

    def choice(self, name: str, allowed: Collection[str]) -> str | None:
        """One value out of `allowed`; None when absent."""
        value = self.text(name)
        if value is not None and value not in allowed:
            raise BadRequest.query(name, f"{value[:60]!r} is not known", f"one of {', '.join(allowed)}")
        return value

    def flag(self, name: str) -> bool:
        """`true` or `false`; False when absent."""
        return self.choice(name, ("true", "false")) == "true"

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number within bounds."""
        value = self.text(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 20 and least <= int(value) <= most):
            raise BadRequest.query(name, f"{value[:60]!r} is not a number from {least} to {most}")
        return int(value)

    def limit(self) -> int:
        """How many items a page holds at most."""
        return self.number("limit", LIMIT, least=1, most=MOST)

    def position(self, name: str, default: int) -> int:
        """A position in the log."""
        return self.number(name, default, least=0, most=_LARGEST)

    def instant(self, name: str) -> datetime | None:
        """An instant, in UTC; None when absent."""
        value = self.text(name)
        if value is None:
            return None
        try:
            # A '+' in a query string is a space to whoever decodes it.
            return instant(value.replace(" ", "+"))
        except ValueError as error:
            raise BadRequest.query(name, str(error), f"{INSTANT_HINT} (write + as %2B)") from None

    def cursor(self) -> str | None:
        """What `after` stands for: the `next` of the page before; None on the first page."""
        value = self.text("after")
        if value is None:
            return None
        try:
            padded = value + "=" * (-len(value) % 4)
            decoded = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
            if text_fault(decoded):
                raise ValueError(decoded)
            return decoded
        except (binascii.Error, ValueError):
            raise BadRequest.query("after", "is not a cursor", "the `next` of the page before") from None

    def cursor_position(self, default: int) -> int:
        """`cursor` where it stands for a position."""
        value = self.cursor()
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 20):
            raise BadRequest.query("after", "is not a cursor of this list", "the `next` of the page before")
        return min(int(value), _LARGEST)


def to_cursor(value: object) -> str:
    """The opaque form of where a page ended."""
    return base64.urlsafe_b64encode(str(value).encode()).decode().rstrip("=")
