"""What a trigger would have done with entries that are in a stream already, beside what it does now."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from ordinaut.domain.backfill import MOST_INSTANTS
from ordinaut.domain.errors import Invalid
from ordinaut.runtime.judging import Judged, judge
from ordinaut.runtime.listening import Listening
from ordinaut.runtime.past_entries import PastEntry, read_entries
from ordinaut.runtime.reach import Reach
from ordinaut.runtime.system import System

MOST_ENTRIES = MOST_INSTANTS
"""How many entries are looked at, at the most."""

MOST_LISTED_BYTES = 4 * 1024 * 1024
"""Of the inputs, as JSON, that are listed; what is behind them is only counted."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A trigger to try: the task that listens as it would be, and as it is `now`. `compared` says that it is
    there; it may listen to something else (`now` is None)."""

    wanted: Listening
    now: Listening | None = None
    compared: bool = False

    @property
    def collects(self) -> str | None:
        """The kind of pattern by which the trigger collects entries; None: each starts a run of its own."""
        on = self.wanted[0].definition.on
        return on.pattern.kind if on is not None and on.pattern is not None else None


@dataclass(slots=True)
class Rehearsal:
    """What came of it: exact `counts`, and as `items` the entries it was about, oldest first, as the API
    shows them; for `left_off` more there was no room. `first` and `last` are the ids looked at."""

    counts: Counter[str] = field(default_factory=Counter)
    items: list[dict[str, Any]] = field(default_factory=list)
    left_off: int = 0
    first: str | None = None
    last: str | None = None


async def rehearse(
    system: System, space: str, reach: Reach, trial: Trial, *, limit: int, everything: bool = False
) -> Rehearsal:
    """Hold the entries in reach against a trigger and change nothing.

    At most `limit` entries are listed: those it matches, fails on or treats differently than now;
    `everything`: also the others. Raises Invalid for what is wrong with `reach`, and when there are more than
    `MOST_ENTRIES`; Unavailable when Redis does not answer.
    """
    done = Rehearsal()
    size = 0
    async for entries in read_entries(system, space, reach):
        if done.counts["entries"] + len(entries) > MOST_ENTRIES:
            hint = f"there are more behind {done.last}; take them in parts, or the newest with `last`"
            raise Invalid.at("/to", f"there are more than {MOST_ENTRIES} entries up to then", hint)
        # In a thread: expressions over large entries take their time.
        for wanted, now in await asyncio.to_thread(_judge_all, system, entries, trial):
            change = _change(wanted, now)
            done.first, done.last = done.first or wanted.id, wanted.id
            done.counts.update(("entries", wanted.outcome, *([change] if change else [])))
            if wanted.outcome == "none" and change is None and not everything:
                continue
            size += len(orjson.dumps(wanted.input))
            if len(done.items) == limit or size > MOST_LISTED_BYTES:
                done.left_off += 1
                continue
            done.items.append(_public(wanted, now, change, alone=trial.collects is None))
    return done


def _judge_all(
    system: System, entries: Sequence[PastEntry], trial: Trial
) -> list[tuple[Judged, Judged | None]]:
    return [(judge(system, one, trial.wanted), _now(system, one, trial)) for one in entries]


def _now(system: System, entry: PastEntry, trial: Trial) -> Judged | None:
    if not trial.compared:
        return None
    if trial.now is None:
        return Judged("", "", "none")
    return judge(system, entry, trial.now)


def _change(wanted: Judged, now: Judged | None) -> str | None:
    """What is different for an entry: it would be matched `newly`, `no_longer`, or give another `input`."""
    if now is None or (wanted.outcome != "match" and now.outcome != "match"):
        return None
    if wanted.outcome != now.outcome:
        return "newly" if wanted.outcome == "match" else "no_longer"
    return None if _same(wanted.input, now.input) else "input"


def _same(one: Any, other: Any) -> bool:
    # As JSON: in Python true equals 1.
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)


def _public(wanted: Judged, now: Judged | None, change: str | None, *, alone: bool) -> dict[str, Any]:
    return {
        "id": wanted.id,
        "outcome": wanted.outcome,
        "reason": wanted.reason,
        "input": wanted.input,
        "run": wanted.run if alone and wanted.outcome == "match" else None,
        "now": now.outcome if now else None,
        "change": change,
    }
