"""What a trigger would have done with entries that are there already, beside what it does now."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from ordinaut.domain.backfill import MOST_INSTANTS
from ordinaut.domain.errors import Invalid
from ordinaut.domain.trigger import LOG
from ordinaut.runtime.judging import Judged, judge
from ordinaut.runtime.past_entries import PastEntry, read_entries, source_of, written_at
from ordinaut.runtime.reach import Hearing, Reach
from ordinaut.runtime.rehearsed_windows import RehearsedWindows
from ordinaut.runtime.system import System

MOST_ENTRIES = MOST_INSTANTS
"""How many entries are looked at, at the most."""

MOST_LISTED_BYTES = 4 * 1024 * 1024
"""Of the inputs, as JSON, that are listed; what is behind them is only counted."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A trigger to try: what the task would hear, and (None: there is no such task) what it hears now."""

    wanted: Hearing
    now: Hearing | None = None

    @property
    def collects(self) -> str | None:
        """The kind of pattern by which the trigger collects entries; None: each starts a run of its own."""
        return self.wanted.pattern.kind if self.wanted.pattern is not None else None


class Rehearsal:
    """What came of it: exact `counts`, and as `items` the entries it was about, oldest first, as the API
    shows them; for `left_off` more there was no room. `windows` are there where entries are collected.
    `first` and `last` are the entries looked at: source, id and the instant it was written.
    """

    def __init__(self, trial: Trial, *, limit: int, everything: bool) -> None:
        self.counts: Counter[str] = Counter()
        self.items: list[dict[str, Any]] = []
        self.left_off = 0
        self.windows: RehearsedWindows | None = None
        self.first: tuple[str, str, datetime] | None = None
        self.last: tuple[str, str, datetime] | None = None
        self._trial, self._limit, self._everything = trial, limit, everything
        self._size = 0
        self._windows_now: RehearsedWindows | None = None
        if trial.wanted.pattern is not None:
            self.windows = RehearsedWindows(limit=limit, most_bytes=MOST_LISTED_BYTES)
        if trial.now is not None and trial.now.pattern is not None:
            self._windows_now = RehearsedWindows(limit=0, most_bytes=0)

    def take(self, system: System, entries: Sequence[PastEntry]) -> None:
        """Hold entries against the trigger, as it is wanted and as it is."""
        for entry in entries:
            # Whoever chooses ids may choose instants that are to come.
            at = min(written_at(entry), system.time.now())
            source = source_of(entry).removeprefix(LOG)
            wanted = judge(system, entry, self._trial.wanted)
            now = judge(system, entry, self._trial.now) if self._trial.now is not None else None
            self.last = source, wanted.id, at
            self.first = self.first or self.last
            for windows, judged in ((self.windows, wanted), (self._windows_now, now)):
                if windows is not None and judged is not None:
                    windows.take({"source": source, "id": judged.id}, judged, at)
            self._note(source, wanted, now)

    def end(self, now: datetime) -> None:
        """Let time pass up to `now`."""
        for name, judged, windows in (
            ("runs", "match", self.windows),
            ("runs_now", "match_now", self._windows_now),
        ):
            if windows is not None:
                windows.end(now)
            self.counts[name] = self.counts[judged] if windows is None else windows.counts["runs"]

    def _note(self, source: str, wanted: Judged, now: Judged | None) -> None:
        change = _change(wanted, now)
        self.counts.update(("entries", wanted.outcome, *([change] if change else [])))
        self.counts["match_now"] += now is not None and now.outcome == "match"
        if wanted.outcome == "none" and change is None and not self._everything:
            return
        self._size += len(orjson.dumps(wanted.input))
        if len(self.items) == self._limit or self._size > MOST_LISTED_BYTES:
            self.left_off += 1
            return
        alone = self.windows is None and wanted.outcome == "match"
        self.items.append(
            {
                "source": source,
                "id": wanted.id,
                "outcome": wanted.outcome,
                "reason": wanted.reason,
                "input": wanted.input,
                "run": wanted.run if alone else None,
                "now": now.outcome if now else None,
                "change": change,
            }
        )


async def rehearse(
    system: System, space: str, reach: Reach, trial: Trial, *, limit: int, everything: bool = False
) -> Rehearsal:
    """Hold the entries in reach against a trigger and change nothing.

    At most `limit` entries are listed: those it matches, fails on or treats differently than now;
    `everything`: also the others. Of windows at most `limit`, too. Those that are due by now have ended.
    Raises Invalid for what is wrong with `reach`, and when there are more than `MOST_ENTRIES`; Unavailable
    when Redis does not answer.
    """
    done = Rehearsal(trial, limit=limit, everything=everything)
    async for entries in read_entries(system, space, reach):
        if done.counts["entries"] + len(entries) > MOST_ENTRIES:
            behind = f"there are more behind {done.last[1]}; " if done.last is not None else ""
            hint = f"{behind}take them in parts, or the newest with `last`"
            raise Invalid.at("/to", f"there are more than {MOST_ENTRIES} entries up to then", hint)
        # In a thread: expressions over large entries take their time.
        await asyncio.to_thread(done.take, system, entries)
    await asyncio.to_thread(done.end, system.time.now())
    return done


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
