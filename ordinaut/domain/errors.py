"""What can be wrong, said so that a person can mend it.

Every error names *what* is wrong, *where* (a JSON Pointer, RFC 6901, into what was sent) and, where
it is known, *what would be right*. The API renders them as RFC 9457 problem+json; the CLI prints
them with file and line.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with what was sent.

    `pointer` is a JSON Pointer ("" is the whole document), `message` a sentence without a period at
    the end, `hint` what would be right ("" when nothing better than the message can be said).
    """

    pointer: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.pointer}: " if self.pointer else ""
        return f"{place}{self.message}" + (f" ({self.hint})" if self.hint else "")

    def under(self, prefix: str) -> "Fault":
        """The same fault, seen from a document that holds this one at `prefix`."""
        return Fault(prefix + self.pointer, self.message, self.hint)


class OrdinautError(Exception):
    """Base of every error that is somebody's to mend. `slug` and `status` are its public identity."""

    slug = "error"
    title = "Something is wrong"
    status = 500

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.faults = tuple(faults)


class Invalid(OrdinautError):
    """What was sent cannot be accepted; `faults` names every place."""

    slug = "invalid"
    title = "Not valid"
    status = 422

    @classmethod
    def at(cls, pointer: str, message: str, hint: str = "") -> "Invalid":
        """One fault at one place."""
        fault = Fault(pointer, message, hint)
        return cls(str(fault), [fault])

    @classmethod
    def all_of(cls, faults: Sequence[Fault]) -> "Invalid":
        """Every fault found, in the order of the document."""
        return cls("; ".join(str(fault) for fault in faults), faults)


class NotFound(OrdinautError):
    """Nothing has that name or id, in this space."""

    slug = "not-found"
    title = "Not found"
    status = 404


class AlreadyExists(OrdinautError):
    """The name is taken."""

    slug = "already-exists"
    title = "Already exists"
    status = 409


class NotPossible(OrdinautError):
    """The thing exists, but its state does not allow the command (a retired task cannot run)."""

    slug = "not-possible"
    title = "Not possible now"
    status = 409


class VersionConflict(OrdinautError):
    """Somebody else appended to the stream first; nothing was changed (invariant I4)."""

    slug = "version-conflict"
    title = "Somebody was first"
    status = 409

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        super().__init__(f"stream {stream} is at version {actual}, not at {expected}")
        self.stream = stream
        self.expected = expected
        self.actual = actual


class Unauthorized(OrdinautError):
    """No key, or one that is not known or no longer valid."""

    slug = "unauthorized"
    title = "Key missing or wrong"
    status = 401


class Forbidden(OrdinautError):
    """The key is good, but not for this."""

    slug = "forbidden"
    title = "Not allowed"
    status = 403


class Unavailable(OrdinautError):
    """A part this needs does not answer at the moment; trying again later is right."""

    slug = "unavailable"
    title = "Not available at the moment"
    status = 503
