"""The benchmark's report: every part has its place in it, and a floor says what it should."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import backlog_bench, report
from benchmarks.__main__ import BEGIN, END, _put_into
from benchmarks.floors import Floor, floors
from benchmarks.suite import COMPARED, PARTS, Plan, Results, Row
from benchmarks.venvs import PEERS, ROOT

ABOUT = {"Machine": {"load before": "0.00"}, "Servers": {"fsync": "on"}}


class Measured(dict[str, Any]):
    """A row that has every figure."""

    def __missing__(self, key: str) -> float:
        return 1.0


def everything() -> Results:
    about: Row = Measured(versions={"it": "1.0"}, settings={"batch": 1000})
    systems = {name: [about] for name in ("ordinaut", *(peer.name for peer in PEERS))}
    results = Results(**{part: systems if part in COMPARED else [Measured()] for part in PARTS})
    results.burst = [Measured(jobs=10)]
    results.next = [Measured(freq="DAILY")]
    cases = [dataclasses.asdict(case) for case in backlog_bench.CASES]
    results.backlog = [Measured(case, waiting=None if case["mark"] is None else 9) for case in cases]
    results.took = dict.fromkeys(PARTS, 1.0)
    return results


def printed(results: Results) -> str:
    console = Console(record=True, width=200, file=io.StringIO())
    report.show(console, results, ABOUT, Plan())
    return console.export_text()


def test_a_floor_is_met_on_its_own_side_of_the_limit() -> None:
    assert Floor("jobs", 10, 10).met is True
    assert Floor("jobs", 9, 10).met is False
    assert Floor("wait", 10, 10, at_most=True).met is True
    assert Floor("wait", 11, 10, at_most=True).met is False
    assert Floor("wait", None, 10).met is None


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert {floor.met for floor in floors(Results())} == {None}
    assert "not measured" in printed(Results())


def test_what_was_measured_is_all_in_the_report() -> None:
    results = everything()
    assert None not in {floor.met for floor in floors(results)}
    text = printed(results)
    assert "not measured" not in text
    assert "Latency at 1,000 jobs/s" in text
    assert "1,000,000 entries" in text
    assert "high-water mark 10,000" in text
    assert all(floor.what in text for floor in floors(results))


def test_the_report_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    _put_into(page, "new  \nlines\n")
    assert page.read_text() == f"before\n{BEGIN}\n```text\nnew\nlines\n```\n{END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="has no place for the report"):
        _put_into(page, "new")


def test_the_page_has_a_place_for_the_report_and_tells_of_every_part() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert page.count(BEGIN) == page.count(END) == 1
    assert [part for part in PARTS if f"`{part}`" not in page] == []
