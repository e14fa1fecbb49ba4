"""What a process says when it cannot listen where it should."""

import errno
from typing import Self

from ordinaut.domain.errors import OrdinautError


class PortTaken(OrdinautError):
    """A server cannot listen where it should."""

    slug = "port-taken"
    title = "The address cannot be used"

    @classmethod
    def by(cls, error: OSError, what: str, host: str, port: int, setting: str) -> Self:
        """What the system's answer `error` means: `what` is to be served there (with its article),
        `setting` names what sets the port."""
        where = f"{host}:{port}"
        if error.errno != errno.EADDRINUSE:
            return cls(f"{what} cannot be served on {where}: {error.strerror or error}")
        return cls(
            f"{what} cannot be served on {where}: another program listens there; stop it, or set {setting} "
            "to a free port"
        )
