"""The policies in a few plain lines, as docs/tasks.md tells them: what the tests hold the clock against.

Nothing here is taken from the program. A task's schedule names an instant every `EVERY` seconds from 0 on;
nobody has decided any of them, and now it is `OUTAGES[…]` seconds.
"""

from dataclasses import dataclass
from typing import Any

EVERY = 600
ON_TIME = 60
"""An instant so many seconds old, or less, is on time."""


@dataclass(frozen=True)
class CatchUp:
    """What `policy.catch_up` says, and in numbers: how many missed instants, how old (seconds)."""

    document: Any
    most: int
    oldest: int


NO_BOUND = 10**9
CATCH_UPS = {
    "none": CatchUp("none", 0, NO_BOUND),
    "latest": CatchUp("latest", 1, NO_BOUND),
    "all": CatchUp("all", 1000, NO_BOUND),
    "all_max": CatchUp({"all": {"max": 2}}, 2, NO_BOUND),
    "all_window": CatchUp({"all": {"window": "1h"}}, 1000, 3600),
    "all_max_window": CatchUp({"all": {"max": 3, "window": "1h"}}, 3, 3600),
}
OVERLAPS = ("skip", "queue_one", "queue_all", "cancel_running", "allow")
OUTAGES = {
    "no_outage": 1,
    "just_on_time": 60,
    "one_missed": 61,
    "several_missed": 4 * EVERY + 300,
    "several_missed_and_one_on_time": 4 * EVERY + 30,
    "exactly_the_window": 3600,
    "longer_than_the_window": 5 * 3600 + 300,
    "longer_than_the_window_and_one_on_time": 5 * 3600 + 5,
}


@dataclass(frozen=True)
class Cell:
    """One cell of the table; `unfinished` scheduled runs of earlier instants have not ended."""

    catch_up: str
    overlap: str
    outage: str
    unfinished: int

    def __str__(self) -> str:
        return f"{self.catch_up}-{self.overlap}-{self.outage}-{self.unfinished}"


def expected(cell: Cell) -> tuple[list[tuple[int, str]], int]:
    """What becomes of each instant (in seconds), `fired` or why not; and how many runs are canceled."""
    now = OUTAGES[cell.outage]
    instants = range(0, now + 1, EVERY)
    wanted = _wanted(CATCH_UPS[cell.catch_up], cell.catch_up == "latest", list(instants), now)
    fired = _that_fire(cell.overlap, wanted, cell.unfinished)
    verdicts = [(at, "fired" if at in fired else "overlap" if at in wanted else "missed") for at in instants]
    return verdicts, cell.unfinished if cell.overlap == "cancel_running" and fired else 0


def caught_up(cell: Cell) -> list[int]:
    """Those of the instants that fire which are not on time."""
    now = OUTAGES[cell.outage]
    return [at for at, word in expected(cell)[0] if word == "fired" and now - at > ON_TIME]


def _wanted(catch_up: CatchUp, latest: bool, instants: list[int], now: int) -> list[int]:
    """The instants that are not too late, oldest first."""
    on_time = [at for at in instants if now - at <= ON_TIME]
    missed = [at for at in instants if now - at > ON_TIME]
    if latest and on_time:
        return on_time
    young = [at for at in missed if now - at <= catch_up.oldest]
    return (young[-catch_up.most :] if catch_up.most else []) + on_time


def _that_fire(overlap: str, wanted: list[int], unfinished: int) -> list[int]:
    """Which of the wanted instants have a run, when none of these runs ends meanwhile."""
    if overlap in ("allow", "queue_all"):
        return wanted
    if overlap == "cancel_running":
        return wanted[-1:]  # it would cancel all that came before it
    fired: list[int] = []
    room = {"skip": 1, "queue_one": 2}[overlap]
    for at in wanted:
        if unfinished + len(fired) < room:
            fired.append(at)
    return fired
