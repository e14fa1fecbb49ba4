"""Bodies: read within a limit, as JSON that can be stored, with every field known."""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import Request

from ordinaut.api.problems import BadRequest, TooLarge, UnsupportedEncoding
from ordinaut.domain.definition_model import close_match
from ordinaut.domain.errors import Fault, Invalid
from ordinaut.domain.jsonvalues import escape, faults_in, kind_of

_TOO_DEEP = "the body is nested too deeply, or has a number of thousands of digits"
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        twice = Counter(name for name, _ in members).most_common(1)[0][0]
        raise Invalid.at("", f"the key {twice[:60]!r} stands twice in one object", "leave one of them out")
    return found


def _kept_all(raw: bytes, value: Any) -> bool:
    """Whether `value`, read from `raw`, surely has every key that stands there: each comes with a colon, and
    without escapes a text has as many of them when it is written anew."""
    try:
        return b"\\" not in raw and raw.count(b":") == orjson.dumps(value).count(b":")
    except orjson.JSONEncodeError:
        return False  # it nests more deeply than orjson writes


_KEYS_ONCE = json.JSONDecoder(object_pairs_hook=_once)


async def read_body(request: Request, limit: int) -> bytes:
    """The body's bytes. Raises `TooLarge` as soon as there are more than `limit`, without reading on."""
    headers = request.headers
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedEncoding("send the body as it is, without Content-Encoding")
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body has more than the {limit} bytes that are allowed")


def parse_json(raw: bytes, *, check: bool = True) -> Any:
    """The JSON value in a body (UTF-8), and unless `check` is false (somebody else does) storable.

    Raises `BadRequest` with line and column, `Invalid` for what JSON allows and the log cannot hold
    (NUL characters, halves of surrogate pairs, integers beyond 64 bits, deep nesting), and for a key that
    an object has twice (RFC 8259, section 4: what that means is anybody's guess).
    """
    try:
        # orjson reads integers beyond 64 bits as floats, which would lose digits without a word.
        value = None if _LONG_NUMBER.search(raw) else orjson.loads(raw)
        # It takes the last of two equal keys; to see both, the text is read once more where one may be lost.
        if value is None or not _kept_all(raw, value):
            read_again = _KEYS_ONCE.decode(raw.decode())
            value = read_again if value is None else value
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:  # orjson's is one, too
        try:
            raw.decode()
        except UnicodeDecodeError as wrong:
            raise BadRequest(f"the body is not UTF-8: {wrong.reason} at byte {wrong.start}") from None
        if "depth" in error.msg:
            raise BadRequest(_TOO_DEEP) from None
        place = f"line {error.lineno} column {error.colno}"
        raise BadRequest(f"the body is not JSON: {error.msg} at {place}") from None
    except (RecursionError, ValueError):
        raise BadRequest(_TOO_DEEP) from None
    if check and (faults := faults_in(value)):
        raise Invalid.all_of(faults)
    return value


def parse_object(raw: bytes, *, check: bool = True) -> dict[str, Any]:
    """The JSON object in a body; no body at all is the empty object."""
    if not raw.strip():
        return {}
    value = parse_json(raw, check=check)
    if not isinstance(value, dict):
        raise Invalid.at("", f"the body is {kind_of(value)}", "it must be a JSON object")
    return value


def check_fields(body: Mapping[str, Any], known: Collection[str], required: Collection[str] = ()) -> None:
    """Raise `Invalid` naming every field that is not among `known`, and every one that is missing."""
    faults = [
        Fault(f"/{escape(name)}", f"there is no field {name!r}", close_match(name, known))
        for name in body
        if name not in known
    ]
    faults += [Fault(f"/{name}", f"the field {name!r} is missing") for name in required if name not in body]
    if faults:
        raise Invalid.all_of(faults)


def text_field(body: Mapping[str, Any], name: str, *, longest: int = 1000) -> str | None:
    """The text in a field, None when it is absent or null."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Invalid.at(f"/{name}", f"must be text, not {kind_of(value)}")
    if len(value) > longest:
        raise Invalid.at(f"/{name}", f"has {len(value)} characters", f"at most {longest}")
    return value


def flag_field(body: Mapping[str, Any], name: str) -> bool:
    """The boolean in a field, False when it is absent."""
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise Invalid.at(f"/{name}", f"must be true or false, not {kind_of(value)}")
    return value


def instant(text: str) -> datetime:
    """An instant written in RFC 3339 (section 5.6), in UTC. Raises ValueError without an offset."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:60]!r} is not an instant") from None
    if at.tzinfo is None:
        raise ValueError(f"{text[:60]!r} has no offset from UTC")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text[:60]!r} is out of range") from None


INSTANT_HINT = "RFC 3339 with offset, such as 2026-05-04T08:30:00Z or 2026-05-04T08:30:00+03:00"


def instant_field(body: Mapping[str, Any], name: str) -> datetime | None:
    """The instant in a field, in UTC; None when it is absent or null."""
    text = text_field(body, name)
    if text is None:
        return None
    try:
        return instant(text)
    except ValueError as error:
        raise Invalid.at(f"/{name}", str(error), INSTANT_HINT) from None
