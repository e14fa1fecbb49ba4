"""What bytes are by their Content-Type: JSON, text, or neither."""

import re

FORM = "application/x-www-form-urlencoded"

_CHARSET = re.compile(r';\s*charset="?([^";\s]+)', re.IGNORECASE)
_UTF_8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


def media_type(content_type: str) -> str:
    """A Content-Type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    """Whether content of this media type is JSON (RFC 6838, section 4.2.8, for the suffix)."""
    return kind.endswith(("/json", "+json"))


def text_of(raw: bytes, content_type: str) -> str | None:
    """The text that these bytes are: `text/…`, XML or a form, in UTF-8 and without NUL. None for all others,
    and for bytes that are said to be text and are not."""
    kind = media_type(content_type)
    if not (kind.startswith("text/") or kind.endswith(("/xml", "+xml")) or kind == FORM):
        return None
    charset = _CHARSET.search(content_type)
    if charset is not None and charset[1].lower() not in _UTF_8:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text else text
