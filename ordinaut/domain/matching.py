"""Which tasks a stream entry starts: reading the entry, then holding it against the triggers.

An *envelope* is what `where` and `input` of a trigger see: `{data, stream, id, time}`, and `event`
with the attributes when the entry is a CloudEvent (https://github.com/cloudevents/spec, version 1.0).
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from ordinaut.domain.contents import is_json, media_type, text_of
from ordinaut.domain.expressions import Expression, ExpressionError, Template, truthy
from ordinaut.domain.jsonvalues import MAX_DEPTH, faults_in

MAX_ENTRY = 1024 * 1024
"""The largest entry, in bytes over all its fields."""

_LAST_MILLISECOND = 253_402_300_799_999
"""The last one of the year 9999."""

_LONG_NUMBER = re.compile(rb"[0-9]{19}")


class BadEntry(ValueError):
    """An entry that cannot be read; the message says why."""


@dataclass(slots=True)  # not frozen: see ordinaut/domain/events.py
class Payload:
    """What an entry holds: its data, and the other attributes when it is a CloudEvent."""

    data: Any
    event: dict[str, Any] | None = None


def parse_entry(fields: Mapping[bytes, bytes], *, max_bytes: int = MAX_ENTRY) -> Payload:
    """Read the fields of a stream entry.

    - one field `data`: JSON; a CloudEvent in it (structured mode) is opened;
    - fields `ce_specversion`, `ce_type`, …: a CloudEvent in binary mode, its data in the field `data`, in
      `data_base64`, or in the other fields;
    - anything else: an object of the fields, each a text.

    A CloudEvent's data is JSON where its datacontenttype says so (or says nothing, but for `data_base64`),
    text where that says so and it is, else its bytes in base64: the same as over HTTP.

    Raises BadEntry with the reason.
    """
    size = sum(map(len, fields)) + sum(map(len, fields.values()))
    if size > max_bytes:
        raise BadEntry(f"the entry has {size} bytes; at most {max_bytes} are allowed")
    if not fields:
        raise BadEntry("the entry has no fields")
    if len(fields) == 1 and b"data" in fields:
        return _open_cloud_event(_json(fields[b"data"]))
    if b"ce_specversion" in fields:
        return _binary_cloud_event(fields)
    return Payload({_text(name, "a field name"): _text(value, name) for name, value in fields.items()})


def payload_of(data: Any) -> Payload:
    """What JSON data that came another way (POST /v1/events) holds; opens a CloudEvent as
    `parse_entry` does, or leaves it as it is where it cannot be opened. Raises BadEntry when it cannot be
    stored."""
    if faults := faults_in(data):
        raise BadEntry(str(faults[0]))
    try:
        return _open_cloud_event(data)
    except BadEntry:
        return Payload(data)


def entry_time(entry_id: str) -> str:
    """The instant in a stream entry's id (`<milliseconds>-<sequence>`), RFC 3339 in UTC.

    Anybody may choose ids; one beyond the year 9999 is read as its last millisecond. Raises
    BadEntry for what is not such an id.
    """
    time = _instant(entry_id.partition("-")[0])
    if time is None:
        raise BadEntry(f"{entry_id!r} is not the id of a stream entry")
    return time


# Entries come in the order of time. What was last is mostly there again: the second, and where there are many
# entries the millisecond, too.
@lru_cache(64)
def _instant(since_epoch: str) -> str | None:
    """That millisecond; None where it is no number."""
    if not (since_epoch.isascii() and since_epoch.isdigit()):
        return None
    milliseconds = min(int(since_epoch), _LAST_MILLISECOND)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03}+00:00"


@lru_cache(64)
def _second(since_epoch: int) -> str:
    """That second, without a zone."""
    return datetime.fromtimestamp(since_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def envelope(payload: Payload, *, stream: str, entry_id: str, time: str | None = None) -> dict[str, Any]:
    """What `where` and `input` see. `time` (RFC 3339) is taken from the entry's id when not given."""
    seen = {
        "data": payload.data,
        "stream": stream,
        "id": entry_id,
        "time": entry_time(entry_id) if time is None else time,
    }
    if payload.event is not None:
        seen["event"] = payload.event
    return seen


@dataclass(frozen=True, slots=True)
class Trigger:
    """A task that listens to a stream. `task` is its id; no `where` is always, no `input` is the data."""

    task: str
    name: str
    space: str
    stream: str
    where: Expression | None = None
    input: Template | None = None


@dataclass(slots=True)
class Match:
    """The entry starts a run of the trigger's task, with this input."""

    trigger: Trigger
    input: Any


@dataclass(slots=True)
class Mismatch:
    """The trigger's `where` or `input` could not be evaluated on the entry; `error` says why."""

    trigger: Trigger
    error: str


def match(trigger: Trigger, seen: Mapping[str, Any]) -> Match | Mismatch | None:
    """What an entry (as its envelope) starts: None when the trigger's `where` is not true, a Mismatch
    when the trigger fails on this entry."""
    try:
        if trigger.where is not None and not truthy(trigger.where.evaluate(seen)):
            return None
        return Match(trigger, seen["data"] if trigger.input is None else trigger.input.render(seen))
    except ExpressionError as error:
        return Mismatch(trigger, str(error))


# --- reading --------------------------------------------------------------------------------------


def _text(value: bytes, name: bytes | str) -> str:
    where = name if isinstance(name, str) else f"the field {name.decode(errors='replace')!r}"
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise BadEntry(f"{where} is not UTF-8: byte {error.start + 1}: {error.reason}") from error
    if "\x00" in text:
        raise BadEntry(f"{where} contains the character NUL, which cannot be stored")
    return text


def _json(raw: bytes, name: str = "the field 'data'") -> Any:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        _text(raw, name)
        if "depth" in error.msg:
            raise BadEntry(f"{name} is nested too deeply; at most {MAX_DEPTH} levels are allowed") from error
        raise BadEntry(f"{name} is not JSON: {error}") from error
    # Looking into every value is slow; these say where it is needed at all.
    if _LONG_NUMBER.search(raw):
        # orjson reads integers beyond 64 bits as floats, which would lose digits without a word.
        value = json.loads(raw)
    elif b"\\u0000" not in raw and raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return value
    if faults := faults_in(value):
        raise BadEntry(f"{name} cannot be stored: {faults[0]}")
    return value


def _open_cloud_event(value: Any) -> Payload:
    if not (isinstance(value, dict) and "specversion" in value):
        return Payload(value)
    if not all(isinstance(value.get(key), str) for key in _CLOUD_EVENT):
        return Payload(value)
    attributes = {key: item for key, item in value.items() if key not in ("data", "data_base64")}
    encoded = value.get("data_base64")
    if encoded is None:
        return Payload(value.get("data"), attributes)
    if "data" in value:
        raise BadEntry("the CloudEvent has both `data` and `data_base64`; one of the two")
    return Payload(_from_base64(encoded, value.get("datacontenttype")), attributes)


_CLOUD_EVENT = ("specversion", "type", "source")


def _binary_cloud_event(fields: Mapping[bytes, bytes]) -> Payload:
    attributes = {
        _text(name[3:], "a field name"): _text(value, name)
        for name, value in fields.items()
        if name.startswith(b"ce_")
    }
    others = {name: value for name, value in fields.items() if not name.startswith(b"ce_")}
    content_type = attributes.get("datacontenttype")
    if others.keys() == {b"data"}:
        content = _content(others[b"data"], content_type or "application/json", "the field 'data'")
        return Payload(content, attributes)
    if others.keys() == {b"data_base64"}:
        encoded = _text(others[b"data_base64"], b"data_base64")
        return Payload(_from_base64(encoded, content_type), attributes)
    texts = {_text(name, "a field name"): _text(value, name) for name, value in others.items()}
    return Payload(texts or None, attributes)


def _from_base64(encoded: Any, content_type: Any) -> Any:
    """What `data_base64` holds; bytes of which nothing is said stay in base64."""
    try:
        raw = base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else None
    except (binascii.Error, ValueError):
        raw = None
    if raw is None:
        raise BadEntry("'data_base64' is not base64 (RFC 4648, section 4)")
    return (
        _content(raw, content_type, "what 'data_base64' holds") if isinstance(content_type, str) else encoded
    )


def _content(raw: bytes, content_type: str, name: str) -> Any:
    """Data by its media type: JSON, text, or else base64."""
    if is_json(media_type(content_type)):
        return _json(raw, name) if raw.strip() else None
    text = text_of(raw, content_type)
    return base64.b64encode(raw).decode() if text is None else text
