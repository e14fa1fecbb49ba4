"""Applying task definitions from files: all are read and checked first, then compared with what is
there, then sent. One bad file, and none is sent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ordinaut.cli.client import Client, Refused, segment
from ordinaut.cli.yaml_source import BadSource, Document, load_documents
from ordinaut.domain.definition import diff_definitions, parse_definition
from ordinaut.domain.errors import Fault, Invalid, OrdinautError

SUFFIXES = (".yaml", ".yml", ".json")
FIELDS = ("title", "labels", "schedule", "params", "pipeline", "policy")


class NotApplied(OrdinautError):
    """Something failed while applying; the message says what was applied by then and what was not."""

    slug = "not-applied"
    title = "Not everything was applied"


@dataclass(frozen=True, slots=True)
class Item:
    """One definition of a file, checked."""

    name: str
    document: Document


@dataclass(frozen=True, slots=True)
class Change:
    """What applying an item does. `differences` are (JSON Pointer, old value, new value)."""

    item: Item
    action: Literal["create", "change", "nothing"]
    differences: list[tuple[str, Any, Any]]


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The files named, and of each directory those in it that hold definitions, by name."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES and each.is_file())
            if not inside:
                raise Invalid(f"{path} holds no file that ends in {', '.join(SUFFIXES)}")
            found += inside
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def read_items(files: Iterable[Path]) -> list[Item]:
    """Every definition in the files. Raises `Invalid` with every fault of every file, each one's
    message beginning with `file:line: `."""
    faults: list[Fault] = []
    items: list[Item] = []
    places: dict[str, str] = {}
    for file in files:
        try:
            documents = load_documents(file)
        except BadSource as bad:
            faults.append(Fault("", bad.message))
            continue
        for document in documents:
            try:
                name = parse_definition(document.value, created_at=datetime.now(UTC), known_tools=None).name
            except Invalid as invalid:
                faults += [placed(document, fault) for fault in invalid.faults]
                continue
            place = document.locate("/name")
            if name in places:
                faults.append(Fault("", f"{place}: {name!r} is defined twice (first at {places[name]})"))
            places.setdefault(name, place)
            items.append(Item(name, document))
    if faults:
        raise Invalid("nothing was applied, because of:", faults)
    return items


def check_on_server(client: Client, items: Sequence[Item]) -> None:
    """Let the server check every definition (it knows its tools). Raises `Invalid` as `read_items`."""
    faults: list[Fault] = []
    for item in items:
        try:
            client.put(_path(item.name), item.document.value, dry_run="true")
        except Refused as refused:
            if refused.code != 422:
                raise
            found = refused.faults or [Fault("", refused.message)]
            faults += [placed(item.document, fault) for fault in found]
    if faults:
        raise Invalid("nothing was applied, because of:", faults)


def plan(client: Client, items: Sequence[Item]) -> list[Change]:
    """What applying the items would do, compared with the tasks that are there."""
    return [_change(client, item) for item in items]


def carry_out(client: Client, changes: Sequence[Change]) -> None:
    """Send every change, in order. Raises `NotApplied` at the first that fails."""
    wanted = [change.item for change in changes if change.action != "nothing"]
    for index, item in enumerate(wanted):
        try:
            client.put(_path(item.name), item.document.value)
        except OrdinautError as error:
            done = ", ".join(each.name for each in wanted[:index]) or "none"
            left = ", ".join(each.name for each in wanted[index:])
            faults = [placed(item.document, fault) for fault in error.faults]
            message = f"{item.name}: {error.message}. Applied: {done}. Not applied: {left}."
            raise NotApplied(message, faults) from error


def placed(document: Document, fault: Fault) -> Fault:
    """The fault with `file:line` in front of everything."""
    return Fault("", f"{document.locate(fault.pointer)}: {fault}")


def _path(name: str) -> str:
    return f"/v1/tasks/{segment(name)}"


def _change(client: Client, item: Item) -> Change:
    try:
        there = client.get(_path(item.name))
    except Refused as refused:
        if refused.code != 404:
            raise
        return Change(item, "create", [])
    if there["status"] == "retired":
        return Change(item, "create", [])
    differences = diff_definitions(_kept(there), _as_it_would_be(item, there))
    return Change(item, "change" if differences else "nothing", differences)


def _kept(task: Mapping[str, Any]) -> dict[str, Any]:
    return {field: task[field] for field in FIELDS}


def _as_it_would_be(item: Item, there: Mapping[str, Any]) -> dict[str, Any]:
    """The item's normalised form, with the start that the task's schedule was given when it was created."""
    created_at = datetime.fromisoformat(there["created_at"])
    return parse_definition(item.document.value, created_at=created_at, known_tools=None).normalised()
