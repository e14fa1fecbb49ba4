"""What a body holds, by its Content-Type, as JSON: JSON as it is, text as text, anything else in base64."""

import base64
from typing import Any

from ordinaut.api.bodies import parse_json
from ordinaut.domain.contents import is_json, media_type, text_of


def content_of(raw: bytes, content_type: str | None) -> dict[str, Any]:
    """`{"data": …}`; `{"data_base64": …}` for what is neither JSON nor text; nothing for no bytes.

    Without a Content-Type it is taken for JSON. Bytes that are said to be text and are not stay bytes.
    Raises `BadRequest` and `Invalid` for JSON that is none.
    """
    kind = media_type(content_type or "application/json")
    if not raw.strip() and (is_json(kind) or not raw):
        return {}
    if is_json(kind):
        return {"data": parse_json(raw)}
    text = text_of(raw, content_type or "")
    if text is not None:
        return {"data": text}
    return {"data_base64": base64.b64encode(raw).decode()}
