"""JSON values as this system stores them: what PostgreSQL's `jsonb` and orjson both hold.

Python values can be more than that (NaN, 100-digit integers, NUL in text, lone surrogates), so
whatever comes from outside is checked once, here, and trusted from then on.
"""

import math
from datetime import datetime
from typing import Any

import orjson

from ordinaut.domain.errors import Fault

MAX_DEPTH = 64
"""How deep objects and lists may nest; every recursion over a checked value is bounded by it."""

_INTEGERS = range(-(2**63), 2**64)


def escape(key: str | int) -> str:
    """One reference token of a JSON Pointer (RFC 6901, section 3)."""
    return str(key).replace("~", "~0").replace("/", "~1")


def kind_of(value: Any) -> str:
    """What kind of JSON value it is, in words for people."""
    kinds = {
        type(None): "null",
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return kinds.get(type(value), type(value).__name__)


def text_fault(text: str) -> str | None:
    """Why `text` cannot be stored, or None when it can."""
    if "\x00" in text:
        return "text must not contain the character NUL (\\u0000)"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "text must not contain half a surrogate pair"
    return None


def rfc3339(at: datetime) -> str:
    """What `at.isoformat()` is for an instant in UTC, in a third of the time: each step has two."""
    return orjson.dumps(at).decode()[1:-1]


def faults_in(value: Any, pointer: str = "", depth: int = 0) -> list[Fault]:
    """Everything in `value` that is not storable JSON, each with its JSON Pointer below `pointer`.

    Stops descending at `MAX_DEPTH`, so it is safe on values nested to any depth.
    """
    # Nearly everything is well; only what is not needs its pointers.
    return [] if _storable(value, depth) else _faults_in(value, pointer, depth)


def _storable(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind is str:
        return text_fault(value) is None
    if (kind is dict or kind is list) and depth >= MAX_DEPTH:
        return False
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or text_fault(key) is not None or not _storable(item, depth + 1):
                return False
        return True
    if kind is list:
        return all(_storable(item, depth + 1) for item in value)
    if kind is int:
        return value in _INTEGERS
    if kind is float:
        return math.isfinite(value)
    return value is None or kind is bool


def _faults_in(value: Any, pointer: str, depth: int) -> list[Fault]:
    if isinstance(value, str):
        fault = text_fault(value)
        return [Fault(pointer, fault)] if fault else []
    if value is None or isinstance(value, bool):
        return []
    if isinstance(value, int):
        return (
            [] if value in _INTEGERS else [Fault(pointer, "the integer does not fit in 64 bits", "use text")]
        )
    if isinstance(value, float):
        return [] if math.isfinite(value) else [Fault(pointer, "JSON has no infinite numbers and no NaN")]
    if not isinstance(value, dict | list | tuple):
        return [Fault(pointer, f"{type(value).__name__} is not a JSON value")]
    if depth >= MAX_DEPTH:
        return [Fault(pointer, f"nested too deeply; at most {MAX_DEPTH} levels are allowed")]
    faults: list[Fault] = []
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                faults.append(Fault(pointer, f"the key {key!r} is not text", "quote it"))
            elif fault := text_fault(key):
                faults.append(Fault(pointer, f"in a key: {fault}"))
            else:
                faults += _faults_in(item, f"{pointer}/{escape(key)}", depth + 1)
    else:
        for index, item in enumerate(value):
            faults += _faults_in(item, f"{pointer}/{index}", depth + 1)
    return faults
