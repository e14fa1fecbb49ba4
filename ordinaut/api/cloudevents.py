"""CloudEvents 1.0.2 over HTTP: structured, binary and batched content mode.

https://github.com/cloudevents/spec: the HTTP protocol binding (sections named below), the JSON event format
and the core specification. Whatever the mode, what comes of it is one object as the JSON format has it: the
attributes, and `data` or `data_base64`.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from starlette.datastructures import Headers

from ordinaut.api.bodies import INSTANT_HINT, instant
from ordinaut.api.contents import content_of
from ordinaut.api.problems import BadRequest, UnsupportedMediaType
from ordinaut.domain.contents import media_type
from ordinaut.domain.errors import Fault, OrdinautError
from ordinaut.domain.jsonvalues import escape, faults_in

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"

REQUIRED = ("specversion", "id", "source", "type")
TEXTS = (*REQUIRED, "subject", "datacontenttype", "dataschema", "time")
"""The attributes of the core specification; all are text and none is empty."""

VERSION = "1.0"

_PREFIX = "ce-"
_NAME = re.compile(r"[a-z0-9]+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+\s*(;.*)?", re.DOTALL)
_INTEGERS = range(-(2**31), 2**31)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PERCENT = re.compile(r"%([0-9A-Fa-f]{2})?")

Mode = Literal["plain", "structured", "binary", "batch"]


def mode(headers: Headers) -> Mode:
    """How a request holds CloudEvents (section 3); `plain`: not at all. Raises `UnsupportedMediaType` for a
    format other than JSON."""
    kind = media_type(headers.get("content-type", ""))
    if kind == STRUCTURED:
        return "structured"
    if kind == BATCH:
        return "batch"
    if kind.startswith("application/cloudevents"):
        raise UnsupportedMediaType(f"CloudEvents are read as {STRUCTURED} and {BATCH}, not as {kind[:80]}")
    return "binary" if any(_PREFIX + name in headers for name in REQUIRED) else "plain"


def headers_of(headers: Headers) -> bytes:
    """What of the headers belongs to the events themselves; empty for a request that has none there."""
    found = sorted((name, value) for name, value in headers.raw if name.startswith(_PREFIX.encode()))
    if found:
        found.append((b"content-type", headers.get("content-type", "").encode("latin-1")))
    return b"".join(name + b": " + value + b"\n" for name, value in found)


def from_headers(headers: Headers, raw: bytes) -> dict[str, Any]:
    """The event of a request in binary mode (section 3.1). Raises `BadRequest` naming every header at fault,
    and what `content_of` does."""
    event: dict[str, Any] = {}
    faults: list[Fault] = []
    for raw_name, value in headers.raw:
        header = raw_name.decode("latin-1")
        if not header.startswith(_PREFIX):
            continue
        name = header.removeprefix(_PREFIX)
        if name == "datacontenttype":
            faults.append(Fault(header, "must not be there", "Content-Type says it"))
        elif not _NAME.fullmatch(name) or name == "data":
            faults.append(Fault(header, *_BAD_NAME))
        elif name in event:
            faults.append(Fault(header, "is there twice"))
        else:
            try:
                event[name] = decode_value(value.decode("latin-1"))
            except ValueError as error:
                faults.append(Fault(header, str(error), "percent-encoded UTF-8 (HTTP binding, 3.1.3.2)"))
                event[name] = "?"
    content_type = headers.get("content-type")
    if content_type is not None:
        event["datacontenttype"] = content_type
    for fault in _attribute_faults(event):
        name = fault.pointer.removeprefix("/")
        header = "Content-Type" if name == "datacontenttype" else _PREFIX + name
        faults.append(Fault(header, fault.message, fault.hint))
    if faults:
        detail = "; ".join(f"header {fault}" for fault in faults)
        raise BadRequest(detail, faults, place="header")
    return event | content_of(raw, content_type)


def decode_value(text: str) -> str:
    """The attribute in a header's value: quotes undone, then one round of percent-decoding (section
    3.1.3.2). Raises ValueError."""
    text = text.strip()
    if text.startswith('"'):
        quoted = _QUOTED.fullmatch(text)
        if quoted is None:
            raise ValueError("has a quote that does not end")
        text = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
    if not text.isascii():
        raise ValueError("has characters beyond ASCII that are not percent-encoded")
    if "%" not in text:
        return text
    raw, last = b"", 0
    for found in _PERCENT.finditer(text):
        if found[1] is None:
            raise ValueError("has a % without two hexadecimal digits behind it")
        raw += text[last : found.start()].encode() + bytes.fromhex(found[1])
        last = found.end()
    try:
        return (raw + text[last:].encode()).decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 when percent-decoded") from None


def from_document(document: Any) -> tuple[dict[str, Any], list[Fault]]:
    """The event in a JSON document (storable: see domain/jsonvalues.py), and what is wrong with it; the
    pointers are into the document. Members that are null are left out, as the format has it (section 2.2);
    `data` may be null."""
    if not isinstance(document, dict):
        return {}, [Fault("", "is no JSON object", "a CloudEvent as an object")]
    members = dict(document)
    content = {name: members.pop(name) for name in ("data", "data_base64") if name in members}
    event = {name: value for name, value in members.items() if value is not None}
    if content.get("data_base64", "") is None:
        del content["data_base64"]
    faults = _attribute_faults(event)
    if "data_base64" in content:
        if "data" in content:
            faults.append(Fault("/data_base64", "stands beside `data`", "one of the two"))
        else:
            content, more = _opened(content["data_base64"], event.get("datacontenttype"))
            faults += more
    return event | content, faults


def _opened(encoded: Any, content_type: Any) -> tuple[dict[str, Any], list[Fault]]:
    """What `data_base64` holds. Only JSON and text are more than bytes, by the datacontenttype."""
    place = "/data_base64"
    try:
        raw = base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else None
    except (binascii.Error, ValueError):
        raw = None
    if raw is None:
        return {}, [Fault(place, "is not base64 (RFC 4648, section 4)")]
    if not isinstance(content_type, str):
        return {"data_base64": encoded}, []
    try:
        content = content_of(raw, content_type)
    except OrdinautError as error:
        return {}, [Fault(place, f"is not the {content_type[:80]} it is said to be: {error.message}")]
    return content, [Fault(place, f"in {fault}") for fault in faults_in(content, depth=1)]


_BAD_NAME = ("is no name for an attribute", "a to z and 0 to 9 only; `data` is none")


def _attribute_faults(event: Mapping[str, Any]) -> list[Fault]:
    faults = [
        Fault(f"/{name}", f"the attribute {name!r} is missing") for name in REQUIRED if name not in event
    ]
    for name, value in event.items():
        pointer = f"/{escape(name)}"
        if not _NAME.fullmatch(name):
            faults.append(Fault(pointer, *_BAD_NAME))
        elif name in TEXTS and not (isinstance(value, str) and value):
            faults.append(Fault(pointer, "must be text, and not empty"))
        else:
            faults += [Fault(pointer, *wrong) for wrong in _wrong(name, value)]
    return faults


def _wrong(name: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, str):
        if _CONTROL.search(value):
            yield "has control characters", ""
    elif not isinstance(value, bool) and not (isinstance(value, int) and value in _INTEGERS):
        yield "is no attribute", "text, true, false or a whole number of 32 bits"
    if name == "specversion" and value != VERSION:
        yield f"{str(value)[:40]!r} is not supported", f"{VERSION!r}"
    elif name == "datacontenttype" and not _MEDIA_TYPE.fullmatch(value):
        yield "is not a media type", "such as application/json"
    elif name == "time":
        try:
            instant(value)
        except ValueError as error:
            yield str(error), INSTANT_HINT
