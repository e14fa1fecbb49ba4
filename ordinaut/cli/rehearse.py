"""`ordinaut trigger test`: what a trigger in a file would have done, over HTTP."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from ordinaut.cli.apply import Item, placed, read_items
from ordinaut.cli.client import Client, Refused
from ordinaut.cli.output import brief, note, print_json, table
from ordinaut.domain.errors import Fault, Invalid

_DEFINITION = "/definition"
_OUTCOMES = {"match": "[green]match[/]", "none": "[dim]no match[/]", "error": "[red]error[/]"}
_CHANGES = {
    None: "",
    "newly": "[green]newly[/]",
    "no_longer": "[yellow]no longer[/]",
    "input": "[yellow]another input[/]",
}


def test(file: Path, given: Mapping[str, Any], *, as_json: bool) -> int:
    """Hold entries against the one definition in `file`; the exit code is 0 whatever they came to."""
    item = _only_item(file)
    body = {name: value for name, value in given.items() if value is not None}
    with Client() as client:
        try:
            found = client.post(
                "/v1/triggers/test", body | {"definition": item.document.value}, changes=False
            )
        except Refused as refused:
            if not any(fault.pointer.startswith(_DEFINITION) for fault in refused.faults):
                raise
            faults = [_in_file(item, each) for each in refused.faults]
            raise Invalid("nothing was tested, because of:", faults) from None
    if as_json:
        print_json(found)
        return 0
    _print(found["items"], compared=found["compared_with"] is not None)
    _summarise(found)
    return 0


def _only_item(file: Path) -> Item:
    try:
        items = read_items([file])
    except Invalid as invalid:
        raise Invalid("nothing was tested, because of:", invalid.faults) from None
    if len(items) > 1:
        names = ", ".join(item.name for item in items)
        raise Invalid(f"{file} defines {len(items)} tasks ({names}); one is tested at a time")
    return items[0]


def _in_file(item: Item, fault: Fault) -> Fault:
    if not fault.pointer.startswith(_DEFINITION):
        return fault
    return placed(item.document, Fault(fault.pointer.removeprefix(_DEFINITION), fault.message, fault.hint))


def _print(items: Sequence[Mapping[str, Any]], *, compared: bool) -> None:
    table(
        ("entry", "outcome", "change" if compared else "", "input", "reason"),
        [
            (
                escape(one["id"]), _OUTCOMES[one["outcome"]], _CHANGES[one["change"]],
                brief(one["input"], 80) if one["outcome"] == "match" else "", brief(one["reason"], 120),
            )
            for one in items
        ],
        empty="No entry to show.",
    )  # fmt: skip


def _summarise(found: Mapping[str, Any]) -> None:
    counts = found["counts"]
    if found["left_off"]:
        note(f"… and {found['left_off']} more; --limit shows up to 500, --json whole inputs")
    would = "be collected by" if found["collects"] else "start a run of"
    note(
        f"{counts['match']} of {counts['entries']} entries would {would} {found['task']},"
        f" {counts['none']} do not match, {counts['error']} are errors."
    )
    if found["compared_with"] is None:
        note(f"There is no task {found['task']} yet to compare with.")
    else:
        note(
            f"Beside version {found['compared_with']}, which is in force: {counts['newly']} newly,"
            f" {counts['no_longer']} no longer, {counts['input']} with another input."
        )
