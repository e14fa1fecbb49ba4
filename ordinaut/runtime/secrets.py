"""The values of `${secrets.NAME}` and of webhooks' secrets: where they are looked for, and how they are kept
out of log lines.

The environment comes first (`ORDINAUT_SECRET_<NAME>`, in upper case and with `_` for `-`), then the
directory `ORDINAUT_SECRETS_DIR` with one file a secret, as Docker and Kubernetes mount them. Both are
read when a step (or a delivery) needs them, so a file that is replaced counts from the next one on.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ordinaut.domain.errors import NotFound
from ordinaut.domain.jsonvalues import text_fault
from ordinaut.domain.redact import NO_SECRETS, Blotter

VARIABLE = "ORDINAUT_SECRET_"

_in_use: ContextVar[Blotter] = ContextVar("secrets_in_use", default=NO_SECRETS)


def variable(name: str) -> str:
    """The environment variable that may hold the secret `name`."""
    return VARIABLE + name.upper().replace("-", "_")


def read_secrets(names: Iterable[str], directory: Path | None) -> dict[str, str]:
    """The values of these secrets, by name; `directory` is where files are looked for (None: nowhere).

    A line break at the end of a file does not belong to the secret. Raises `NotFound` that says which
    secret is missing, empty or unreadable, and where it was looked for; never a value.
    """
    return {name: _read(name, directory) for name in sorted(names)}


def _read(name: str, directory: Path | None) -> str:
    # Names hold no separators and no dots (the definition's check), so a file stays in the directory.
    file = directory / name if directory is not None else None
    value, place = os.environ.get(variable(name), ""), variable(name)
    if not value and file is not None:
        value, place = _content(name, file), str(file)
    if not value:
        place = f"write the file {file}" if file is not None else "put a file into ORDINAUT_SECRETS_DIR"
        raise NotFound(f"there is no secret {name!r}: set {variable(name)} where it is needed, or {place}")
    if text_fault(value):
        raise NotFound(f"the secret {name!r} in {place} is not text in UTF-8")
    return value


def _content(name: str, file: Path) -> str:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise NotFound(f"the secret {name!r} cannot be read from {file}: {error.strerror}") from None
    return content.decode(errors="surrogateescape").removesuffix("\n").removesuffix("\r")


def hidden_in_logs(blotter: Blotter) -> AbstractContextManager[None]:
    """While the block runs, in its task and the threads it starts, no log line holds these secrets."""
    return _hiding(blotter) if blotter else _HIDING_NOTHING


_HIDING_NOTHING = nullcontext()


@contextmanager
def _hiding(blotter: Blotter) -> Iterator[None]:
    token = _in_use.set(blotter)
    try:
        yield
    finally:
        _in_use.reset(token)


def hide_in_line(_logger: Any, _method: str, line: Any) -> str:
    """A structlog processor for the finished line: without the secrets in use where it is written."""
    return _in_use.get().text(str(line))
