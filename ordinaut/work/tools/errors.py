"""How a tool says that it did not work."""

from typing import Any


class ToolError(Exception):
    """A step's tool did not do its work.

    `retryable` says whether the same call may succeed later (a timeout, a 503) or cannot (a 404, bad
    input). `retry_after` is how many seconds the other side asked to be left alone, if it did.
    `details` is JSON for whoever looks at the failed step. All three end up in the log, so none may
    hold a secret: no header values, no credentials.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool,
        details: dict[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.message = storable(message)
        super().__init__(self.message)
        self.retryable = retryable
        self.details = details or {}
        self.retry_after = retry_after

    def as_json(self) -> dict[str, Any]:
        """The error as events hold it: message, retryable and, where there are any, details."""
        told: dict[str, Any] = {"message": self.message, "retryable": self.retryable}
        return told | ({"details": self.details} if self.details else {})


class ToolFault(ToolError):
    """What a step hands to its tool, or gets from it, does not have the declared shape.

    `pointer` is a JSON Pointer (RFC 6901) into `place`, which is "input" or "output".
    """

    def __init__(
        self, pointer: str, message: str, *, place: str = "input", hint: str = "", retryable: bool = False
    ) -> None:
        where = f"{place} at {pointer}" if pointer else place
        super().__init__(
            f"{where}: {message}" + (f" ({hint})" if hint else ""),
            retryable=retryable,
            details={"place": place, "pointer": storable(pointer)},
        )
        self.pointer = pointer
        self.place = place


def storable(text: str) -> str:
    """`text` without what PostgreSQL's jsonb cannot hold: NUL and lone surrogates become U+FFFD."""
    return text.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")
