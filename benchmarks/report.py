"""The report: ratios and floors first, then absolute figures, then what was set."""

import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.floors import floors, ratio
from benchmarks.suite import Plan, Results, Row
from benchmarks.venvs import PEERS

TITLES = {"ordinaut": "Ordinaut", **{peer.name: peer.title for peer in PEERS}}


def _number(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.2f}"


def _spread(rows: list[Row], key: str) -> str:
    values = sorted(row[key] for row in rows)
    if len(values) == 1:
        return _number(values[0])
    return f"{_number(statistics.median(values))}  ({_number(values[0])} - {_number(values[-1])})"


def show(console: Console, results: Results, about: dict[str, dict[str, str]], plan: Plan) -> None:
    """Prints everything."""
    console.print(_ratios(results))
    console.print(_floors(results))
    console.print(_absolute(results))
    if results.busy:
        console.print(_busy(results, plan))
    if results.post or results.rebuild or results.idle or results.matching:
        console.print(_own(results))
    if results.burst:
        console.print(_burst(results))
    if results.next:
        console.print(_next(results))
    if results.backlog:
        console.print(_backlog(results))
    console.print(_settings(results))
    for title, facts in about.items():
        console.print(f"[bold]{title}[/]: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    console.print(
        f"[bold]Method[/]: medians of {plan.rounds} round(s), Ordinaut and pgqueuer taking turns, other peers"
        f" one round; latency at {plan.rate} jobs/s for {plan.seconds:.0f} s after 2 s of warm-up, at"
        f" {plan.busy_rate:,} for {plan.busy_seconds:.0f} s; each round in a fresh database. Definitions:"
        " benchmarks/peers/harness.py."
    )
    took = ", ".join(f"{part} {seconds:.0f}" for part, seconds in results.took.items())
    console.print(f"[bold]Took[/], in seconds: {took}")
    if float(about["Machine"]["load before"]) > 0.5:
        console.print("[bold red]Busy[/]: other work ran on this machine before; the figures include it.")
    for what, why in results.failed.items():
        console.print(f"[bold red]failed[/] {what}: {why}", markup=True, highlight=False)


def _ratios(results: Results) -> Table:
    table = Table(title="Ordinaut as a multiple of each", title_justify="left")
    for column in ("", "jobs/s (more is better)", "latency p50 (less is better)", "latency p99"):
        table.add_column(column, justify="left" if not column else "right")
    median = results.median
    for name, title in TITLES.items():
        if name == "ordinaut":
            continue
        cells = []
        for part, key in (
            (results.throughput, "throughput"),
            (results.latency, "latency_p50_ms"),
            (results.latency, "latency_p99_ms"),
        ):
            found = ratio(median(part.get("ordinaut"), key), median(part.get(name), key))
            cells.append("-" if found is None else f"{found:.2f} x")
        table.add_row(title, *cells)
    return table


def _floors(results: Results) -> Table:
    table = Table(title="Floors", title_justify="left")
    for column in ("", "measured", "floor", ""):
        table.add_column(column, justify="left" if not column else "right")
    words = {None: "not measured", True: "[green]met[/]", False: "[red]NOT MET[/]"}
    for floor in floors(results):
        sign = "≤" if floor.at_most else "≥"
        limit = f"{sign} {floor.limit:,g}{floor.unit}"
        measured = "-" if floor.value is None else _number(floor.value) + floor.unit
        table.add_row(floor.what, measured, limit, words[floor.met])
    return table


def _absolute(results: Results) -> Table:
    table = Table(title="Absolute figures: median (least - most)", title_justify="left")
    for column in ("", "jobs/s", "latency p50 ms", "latency p99 ms"):
        table.add_column(column, justify="left" if not column else "right")
    for name, title in TITLES.items():
        through, late = results.throughput.get(name, []), results.latency.get(name, [])
        if not through and not late and not any(what.split()[0] == name for what in results.failed):
            continue
        broken = "[red]failed[/]" if any(what.split()[0] == name for what in results.failed) else "-"
        table.add_row(
            title,
            _spread(through, "throughput") if through else broken,
            _spread(late, "latency_p50_ms") if late else broken,
            _spread(late, "latency_p99_ms") if late else broken,
        )
    return table


def _own(results: Results) -> Table:
    table = Table(title="Ordinaut alone: median (least - most)", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    figures = (
        ("POST /v1/tasks per second", results.post, "tasks_per_s"),
        ("bare FastAPI echo per second", results.post, "bare_per_s"),
        ("full rebuild, events per second", results.rebuild, "events_per_s"),
        ("events rebuilt", results.rebuild, "events"),
        ("peak memory of the rebuilding process, MB", results.rebuild, "peak_mb"),
        ("schedules of the idle clock", results.idle, "schedules"),
        ("percent of a core it takes", results.idle, "cpu_percent_many"),
        ("percent of a core with 1,000", results.idle, "cpu_percent_few"),
        ("its resident memory, MB", results.idle, "rss_mb_many"),
        ("resident memory with 1,000, MB", results.idle, "rss_mb_few"),
        ("entries matched with 1,000 tasks, per second and core", results.matching, "entries_per_s"),
        ("the same, every condition evaluated", results.matching, "plain_entries_per_s"),
    )
    for title, rows, key in figures:
        if rows:
            table.add_row(title, _spread(rows, key))
    return table


def _burst(results: Results) -> Table:
    jobs = results.burst[0]["jobs"]
    table = Table(
        title=f"{jobs:,} due at one instant: seconds after it, median (least - most)", title_justify="left"
    )
    for column in ("", "p50", "p99", "last"):
        table.add_column(column, justify="left" if not column else "right")
    for title, prefix in (
        ("Ordinaut: row in due_work", ""),
        ("APScheduler, in memory: first call", "apscheduler_"),
    ):
        table.add_row(title, *(_spread(results.burst, f"{prefix}{key}_s") for key in ("p50", "p99", "max")))
    return table


def _next(results: Results) -> Table:
    table = Table(
        title="next() of a rule from twenty years ago: milliseconds, median and (most)", title_justify="left"
    )
    for column in ("", "plain", "with BY parts", "with COUNT", "reading one with COUNT"):
        table.add_column(column, justify="left" if not column else "right")
    for row in results.next:
        cells = [
            f"{row[f'{name}_p50_ms']:.3f}  ({row[f'{name}_max_ms']:.3f})" for name in ("plain", "by", "count")
        ]
        table.add_row(row["freq"], *cells, f"{row['count_read_ms']:.3f}")
    return table


def _busy(results: Results, plan: Plan) -> Table:
    title = f"Latency at {plan.busy_rate:,} jobs/s: median (least - most)"
    table = Table(title=title, title_justify="left")
    for column in ("", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if not column else "right")
    for name, rows in results.busy.items():
        table.add_row(TITLES[name], *(_spread(rows, f"latency_{key}_ms") for key in ("p50", "p99")))
    return table


def _backlog(results: Results) -> Table:
    table = Table(title="A backlog that waits when intake starts", title_justify="left")
    table.add_column("")
    for row in results.backlog:
        share = f"one in {row['one_in']} starts a run" if row["one_in"] > 1 else "each starts a run"
        mark = f"high-water mark {row['mark']:,}" if row["mark"] else ""
        table.add_column(f"{row['entries']:,} entries,\n{share}\n{mark}".rstrip(), justify="right")
    for title, key in (
        ("entries taken in per second", "entries_per_s"),
        ("processor time of intake for one, µs", "cpu_us_per_entry"),
        ("most resident in the first tenth, MB", "first_mb"),
        ("most resident in all, MB", "most_mb"),
        ("most entries pending", "pending"),
        ("most runs waiting", "waiting"),
    ):
        cells = ("-" if row[key] is None else _number(row[key]) for row in results.backlog)
        table.add_row(title, *cells)
    return table


def _settings(results: Results) -> Table:
    table = Table(title="Versions and settings", title_justify="left", show_lines=True)
    for column in ("", "versions", "settings"):
        table.add_column(column, overflow="fold")
    for name, title in TITLES.items():
        rows = results.throughput.get(name) or results.latency.get(name)
        if rows:
            table.add_row(title, _pairs(rows[0]["versions"]), _pairs(rows[0]["settings"]))
    return table


def _pairs(facts: dict[str, Any]) -> str:
    return "\n".join(f"{key} {value}" for key, value in facts.items())
