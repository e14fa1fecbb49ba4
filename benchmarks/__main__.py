"""`python -m benchmarks`: measures Ordinaut beside other job queues on this machine and says what it found.

Exit codes: 0 measured (and every measured floor met), 1 something failed or a floor is not met, 2 misused.
"""

import argparse
import dataclasses
import json
import signal
import sys
from pathlib import Path

import uvloop
from rich.console import Console

from benchmarks import machine, report, servers
from benchmarks.floors import floors as floors_of
from benchmarks.suite import PARTS, QUICK, Plan, Results, Suite
from benchmarks.venvs import PEERS, ROOT

BEGIN, END = "<!-- report: begin -->", "<!-- report: end -->"
WIDTH = 110


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures Ordinaut's speed.")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of everything, one round; for trying things"
    )
    names = [*PARTS, "ordinaut", *(peer.name for peer in PEERS)]
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="NAME",
        help=f"only this part or system; repeat it for more ({', '.join(names)})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures there as well")
    parser.add_argument(
        "--into", type=Path, metavar="FILE", help="put the report into FILE, between its two report marks"
    )
    parser.add_argument("--rounds", type=int, help="rounds of what floors compare (default 3)")
    return parser.parse_args()


def _put_into(file: Path, text: str) -> None:
    """Replaces what stands between the two marks in `file` by `text`, as it was printed."""
    before, found, rest = file.read_text().partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise SystemExit(f"{file} has no place for the report: it needs the lines {BEGIN} and {END}")
    lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
    file.write_text(f"{before}{BEGIN}\n```text\n{lines}\n```\n{END}{after}")


async def _measure(
    running: servers.Servers, plan: Plan, parts: list[str], systems: list[str], console: Console
) -> Results:
    await running.begin()
    suite = Suite(running, plan, lambda line: console.print(f"[dim]{line}[/]", highlight=False))
    return await suite.run(parts, systems)


def main() -> int:
    """Runs the benchmark as the command line says."""
    arguments = _arguments()
    # As when interrupted from the keyboard: what was started ends first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    only = arguments.only or []
    parts = [part for part in PARTS if part in only] or list(PARTS)
    all_systems = ["ordinaut", *(peer.name for peer in PEERS)]
    systems = [system for system in all_systems if system in only] or all_systems
    plan = QUICK if arguments.quick else Plan()
    if arguments.rounds:
        plan = dataclasses.replace(plan, rounds=arguments.rounds)
    console = Console(stderr=True)
    described = machine.describe()
    with servers.running(ROOT / ".bench" / "servers") as running:
        results = uvloop.run(_measure(running, plan, parts, systems, console))
    about = {"Machine": described, "Servers": running.settings}
    printed = Console(width=None if sys.stdout.isatty() else WIDTH, record=True)
    report.show(printed, results, about, plan)
    if arguments.into:
        _put_into(arguments.into, printed.export_text())
    floors = floors_of(results)
    if arguments.json:
        told = {**about, "plan": dataclasses.asdict(plan), "results": dataclasses.asdict(results)}
        told["floors"] = [{**dataclasses.asdict(floor), "met": floor.met} for floor in floors]
        arguments.json.write_text(json.dumps(told, indent=2) + "\n")
    return 1 if results.failed or any(floor.met is False for floor in floors) else 0


if __name__ == "__main__":
    sys.exit(main())
