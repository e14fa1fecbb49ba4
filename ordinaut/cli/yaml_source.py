"""Definitions from YAML and JSON files, with the line each value came from.

YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema) and not 1.1's, because of what
1.1 makes of `on:` (true), `12:30` (750), `010` (8) and `2026-01-01` (a date): here they are texts, and
`010` is ten. Anchors, aliases, tags and repeated keys are refused.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ordinaut.domain.errors import Invalid
from ordinaut.domain.jsonvalues import MAX_DEPTH, escape

MAX_BYTES = 4 * 1024 * 1024
"""The largest file."""


class BadSource(Invalid):
    """A file that cannot be read as YAML or JSON; `place` is `file:line`, as far as it is known."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{place}: {message}")
        self.place = place


@dataclass(frozen=True)
class Document:
    """One document of a file: its value (JSON values only), and where its parts stand."""

    name: str
    value: Any
    lines: dict[str, int] = field(repr=False)

    def locate(self, pointer: str) -> str:
        """`file:line` of what a JSON Pointer names; of what holds it, when it is not there."""
        while pointer not in self.lines and pointer:
            pointer = pointer.rpartition("/")[0]
        return f"{self.name}:{self.lines.get(pointer, 1)}"


def load_documents(source: Path | str, name: str | None = None) -> list[Document]:
    """Every document in a file (a Path), or in a text (a str), in order; empty ones are left out.

    `name` is what messages call it; a Path has its own. A name ending in `.json` is read as JSON.
    Raises BadSource.
    """
    shown = name or (str(source) if isinstance(source, Path) else "<text>")
    text = _read(source, shown) if isinstance(source, Path) else source
    if len(text) > MAX_BYTES:
        raise BadSource(shown, f"the file is larger than {MAX_BYTES} bytes")
    documents = [_from_json(text, shown)] if shown.endswith(".json") else list(_from_yaml(text, shown))
    if not documents:
        raise BadSource(shown, "there is no document in it")
    return documents


def _read(path: Path, shown: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadSource(shown, f"cannot be read: {error.strerror}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadSource(f"{shown}:{line}", f"is not UTF-8: {error.reason}") from error


# --- YAML -----------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Resolves plain texts as YAML 1.2's core schema does, and composes without anchors."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 the base class declares it so

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise yaml.MarkedYAMLError(
                problem=f"anchors and aliases are not allowed ({sign}{event.anchor}); write it out",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


_CORE = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
for _kind, (_pattern, _first) in _CORE.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})\Z"), _first)


def _from_yaml(text: str, shown: str) -> Iterator[Document]:
    try:
        for node in yaml.compose_all(text, Loader=_Loader):
            lines: dict[str, int] = {}
            value = _value(node, "", 0, lines, shown)
            if value is not None:
                yield Document(shown, value, lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{shown}:{mark.line + 1}" if mark else shown
        raise BadSource(place, f"is not good YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise BadSource(shown, f"is not good YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise BadSource(shown, f"nests deeper than {MAX_DEPTH} levels") from error


def _value(node: Node, pointer: str, depth: int, lines: dict[str, int], shown: str) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(pointer, line)
    if depth > MAX_DEPTH:
        raise BadSource(f"{shown}:{line}", f"nests deeper than {MAX_DEPTH} levels")
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if isinstance(node, ScalarNode) and kind in _SCALARS:
        try:
            return _SCALARS[kind](node.value)
        except ValueError as error:
            raise BadSource(f"{shown}:{line}", f"{node.value[:40]!r} is not of the type {kind}") from error
    if isinstance(node, SequenceNode) and kind == "seq":
        return [
            _value(item, f"{pointer}/{index}", depth + 1, lines, shown)
            for index, item in enumerate(node.value)
        ]
    if not (isinstance(node, MappingNode) and kind == "map"):
        raise BadSource(f"{shown}:{line}", f"the tag {node.tag} is not allowed")
    mapping: dict[str, Any] = {}
    for key_node, item in node.value:
        place = f"{shown}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, ScalarNode):
            raise BadSource(place, "a key must be text")
        # A key is what is written: `on`, `1` and `null` are all texts there.
        key = key_node.value
        if key in mapping:
            first = lines[f"{pointer}/{escape(key)}"]
            raise BadSource(place, f"the key {key!r} is there twice (first in line {first})")
        lines[f"{pointer}/{escape(key)}"] = key_node.start_mark.line + 1
        mapping[key] = _value(item, f"{pointer}/{escape(key)}", depth + 1, lines, shown)
    return mapping


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: dict[str, Any] = {
    "str": str,
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": _integer,
    "float": _float,
}


# --- JSON -----------------------------------------------------------------------------------------


def _from_json(text: str, shown: str) -> Document:
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise BadSource(f"{shown}:{error.lineno}", f"is not JSON: {error.msg}") from error
    except _RepeatedKeyError as error:
        line = _second_line(text, error.key)
        raise BadSource(f"{shown}:{line}", f"the key {error.key!r} is there twice") from error
    except (ValueError, RecursionError) as error:
        raise BadSource(shown, f"is not JSON: {error}") from error
    lines: dict[str, int] = {"": 1}
    # JSON is YAML but for tabs between its tokens; within texts it has none. Values are JSON's own.
    try:
        node = yaml.compose(text.replace("\t", " "), Loader=_Loader)
    except yaml.YAMLError:
        # A few characters are good in JSON and not in YAML; then only the file is named, not the line.
        node = None
    if node is not None:
        _value(node, "", 0, lines, shown)
    return Document(shown, value, lines)


class _RepeatedKeyError(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise _RepeatedKeyError(key)
        mapping[key] = value
    return mapping


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON value")


def _second_line(text: str, key: str) -> int:
    written = json.dumps(key, ensure_ascii=False)
    found = [index for index, line in enumerate(text.splitlines(), 1) for _ in range(line.count(written))]
    return found[1] if len(found) > 1 else 1
