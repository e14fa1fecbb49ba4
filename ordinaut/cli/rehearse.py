"""`ordinaut trigger test`: what a trigger in a file would have done, over HTTP."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from ordinaut.cli import rehearsed
from ordinaut.cli.apply import Item, placed, read_items
from ordinaut.cli.client import Client, Refused
from ordinaut.cli.output import brief, instant, note, print_json, table
from ordinaut.domain.errors import Fault, Invalid
from ordinaut.runtime.listening import ANY

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
    _print(found, everything=bool(given.get("all")))
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


def _print(found: Mapping[str, Any], *, everything: bool) -> None:
    windows = found["windows"]
    items = found["items"]
    if windows is not None:
        rehearsed.print_windows(windows["items"], several=_several(found))
        # What is collected stands in its window; that all of it is new, nobody needs to see entry by entry.
        alike = {None, "newly"} if found["counts"].get("newly") == found["counts"]["match"] else {None}
        items = [
            one for one in items if everything or one["outcome"] == "error" or one["change"] not in alike
        ]
    if windows is None or items:
        _print_entries(items, several=_several(found), compared=found["compared_with"] is not None)


def _several(found: Mapping[str, Any]) -> bool:
    """Whether entries of more than one stream may have been looked at."""
    source, *others = found["sources"]
    return bool(others) or ANY in source.get("stream", "")


def _print_entries(items: Sequence[Mapping[str, Any]], *, several: bool, compared: bool) -> None:
    columns = ("entry", "outcome", *(("change",) if compared else ()), "input", "reason")
    rows = []
    for one in items:
        row = [escape(one["id"]), _OUTCOMES[one["outcome"]]]
        if compared:
            row.append(_CHANGES[one["change"]])
        row.append(brief(one["input"], 80) if one["outcome"] == "match" else "")
        row.append(brief(one["reason"], 120))
        rows.append([escape(one["source"]), *row] if several else row)
    table(("of", *columns) if several else columns, rows, empty="No entry to show.")


def _summarise(found: Mapping[str, Any]) -> None:
    counts = found["counts"]
    if left_off := found["left_off"] + (found["windows"] or {"left_off": 0})["left_off"]:
        note(f"… and {left_off} more; --limit shows up to 500, --json whole inputs")
    if found["from_time"]:
        names = " and ".join(source.get("stream") or source["event"] for source in found["sources"])
        note(f"Looked at {names}, {instant(found['from_time'])} to {instant(found['to_time'])}.")
    would = "be collected by" if found["collects"] else "start a run of"
    note(
        f"{counts['match']} of {counts['entries']} entries would {would} {found['task']},"
        f" {counts['none']} do not match, {counts['error']} are errors."
    )
    if found["collects"]:
        note(
            f"{_many(counts['windows'], 'window')} would have ended and"
            f" {counts['open']} would be open: {_many(counts['runs'], 'run')},"
            f" {_many(counts['dropped'], 'entry', 'entries')} left out."
        )
        note("That is as if each entry had been read the moment it was written, and no other had come.")
    if found["compared_with"] is None:
        note(f"There is no task {found['task']} yet to compare with.")
        return
    beside = f"Beside version {found['compared_with']}, which is in force"
    other = counts["runs"] != counts["runs_now"]
    runs = f"; {_many(counts['runs'], 'run')} instead of {counts['runs_now']}" if other else ""
    note(
        f"{beside}: {counts['newly']} newly, {counts['no_longer']} no longer,"
        f" {counts['input']} with another input{runs}."
    )


def _many(number: int, what: str, many: str = "") -> str:
    return f"{number} {what if number == 1 else many or what + 's'}"
