"""Logs: structured, on stderr, one shape for our own lines and for those of the libraries.

`configure_logging` is called once by each process. Secrets are taken out of every line on its way
(invariant I11): values whose key sounds like a secret, passwords in URLs, bearer tokens, API keys, and
the secrets that the step in whose course the line is written was given.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from ordinaut.runtime.secrets import hide_in_line
from ordinaut.runtime.settings import Settings

HIDDEN = "***"

_SECRET_KEY = re.compile(
    r"authorization|api[-_]?key|passw(or)?d|passphrase|secret|token|credential|cookie", re.IGNORECASE
)
_USERINFO = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^\s/?#@:]*:)[^\s/?#]+@", re.IGNORECASE)
_QUERY = re.compile(
    r"(?P<before>[?&](?:sentinel_)?(?:password|passwd|pass|token|api_key|secret)=)[^&\s#]+", re.IGNORECASE
)
_BEARER = re.compile(r"(?P<before>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_API_KEY = re.compile(r"\bord_[A-Za-z0-9_-]{8,}")

_CHATTY = ("uvicorn.access", "httpx", "httpcore", "apscheduler", "asyncio")
"""Libraries whose every-request lines would drown ours: heard from WARNING on."""


def without_password(url: str) -> str:
    """`url` fit for a log line: the password in `user:password@` or in the query becomes ***."""
    return _QUERY.sub(rf"\g<before>{HIDDEN}", _USERINFO.sub(rf"\g<before>{HIDDEN}@", url))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        if "://" in value:
            value = without_password(value)
        return _API_KEY.sub(f"ord_{HIDDEN}", _BEARER.sub(rf"\g<before>{HIDDEN}", value))
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if _SECRET_KEY.search(str(key)) and inner is not None else _clean(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(inner) for inner in value]
    return value


def redact(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: the same event without secrets, at any depth."""
    cleaned: EventDict = {}
    for key, value in event.items():
        if key.startswith("_"):  # structlog's own bookkeeping, removed before rendering
            cleaned[key] = value
        elif _SECRET_KEY.search(key) and value is not None:
            cleaned[key] = HIDDEN
        else:
            cleaned[key] = _clean(value)
    return cleaned


def _shared_processors() -> list[Processor]:
    """What happens to every line before it is rendered, whoever wrote it."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        # Tracebacks become text before `redact`, so that a password in an exception is found too.
        structlog.processors.format_exc_info,
        redact,
    ]


def configure_logging(settings: Settings) -> None:
    """Route structlog and the standard library's loggers to stderr, as `settings` say.

    Calling it again replaces the earlier configuration. Run uvicorn with `log_config=None`, else it
    puts its own handlers back.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared = _shared_processors()
    renderer: Processor
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())

    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer, hide_in_line],
        )
    )
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
