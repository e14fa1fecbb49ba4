"""What a body holds, by its Content-Type, as JSON: JSON as it is, text as text, anything else in base64."""

import base64
import re
from typing import Any

from ordinaut.api.bodies import parse_json
from ordinaut.domain.jsonvalues import text_fault

FORM = "application/x-www-form-urlencoded"

_CHARSET = re.compile(r';\s*charset="?([^";\s]+)', re.IGNORECASE)
_UTF_8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


def media_type(content_type: str) -> str:
    """A Content-Type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    """Whether content of this media type is JSON (RFC 6838, section 4.2.8, for the suffix)."""
    return kind.endswith(("/json", "+json"))


def content_of(raw: bytes, content_type: str | None) -> dict[str, Any]:
    """`{"data": …}`; `{"data_base64": …}` for what is neither JSON nor text; nothing for no bytes.

    Without a Content-Type it is taken for JSON. Text is what is `text/…`, XML or a form, in UTF-8; bytes
    that are said to be text and are not stay bytes. Raises `BadRequest` and `Invalid` for JSON that is none.
    """
    kind = media_type(content_type or "application/json")
    if not raw.strip() and (is_json(kind) or not raw):
        return {}
    if is_json(kind):
        return {"data": parse_json(raw)}
    charset = _CHARSET.search(content_type or "")
    is_text = kind.startswith("text/") or kind.endswith(("/xml", "+xml")) or kind == FORM
    if is_text and (charset is None or charset[1].lower() in _UTF_8):
        text = raw.decode(errors="surrogateescape")
        if text_fault(text) is None:
            return {"data": text}
    return {"data_base64": base64.b64encode(raw).decode()}
