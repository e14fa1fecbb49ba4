"""What the windows of a task that collects events would have held, and the runs they would have come to.

It is as if each entry had been read the moment it was written, and nothing else had come. The windows and
what becomes of them are those of intake (domain/windows.py, domain/playback.py).
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from ordinaut.domain.patterns import Held, Pattern, Start, input_of
from ordinaut.domain.playback import Playback, Played
from ordinaut.runtime.judging import Judged

MOST_KEPT_BYTES = 64 * 1024 * 1024
"""Of the inputs, as JSON, that wait in windows for the run they are part of."""

SHOWN = 100
"""Of how many of its entries a window tells, and a run; of more, the first."""


@dataclass(slots=True)
class _Entry:
    """An entry that a window holds: what the API calls it, and EventCollected; None: there was no room."""

    about: Mapping[str, str]
    collected: Mapping[str, Any] | None
    size: int


class RehearsedWindows:
    """The windows, fed with one entry after another.

    `counts` are exact: `windows` that ended, `open` ones, `runs`, and entries that were `dropped`. `items`
    are the windows as the API shows them, in the order they ended, then the open ones; at most `limit`, and
    with inputs of `most_bytes` together. For `left_off` more there was no room.
    """

    def __init__(self, *, limit: int, most_bytes: int) -> None:
        self.counts: Counter[str] = Counter()
        self.items: list[dict[str, Any]] = []
        self.left_off = 0
        self._limit, self._left = limit, most_bytes
        self._playback = Playback()
        self._entries: dict[int, _Entry] = {}
        self._number = 0
        self._kept = 0

    def take(self, about: Mapping[str, str], judged: Judged, written_at: datetime) -> None:
        """Take in an entry that was written at an instant; one that is not collected changes nothing."""
        data = judged.collected
        if data is None:
            return
        self._number += 1
        # As the database counts them: with a blank behind each colon and comma.
        size = len(json.dumps(data["input"], ensure_ascii=False).encode())
        keep = self._lists and self._kept + size <= MOST_KEPT_BYTES
        self._entries[self._number] = _Entry(about, data if keep else None, size if keep else 0)
        self._kept += size if keep else 0
        held, pattern = Held.from_data(self._number, data, size), Pattern.from_data(data["pattern"])
        self._note(self._playback.collect(data["key"], pattern, held, written_at))

    def end(self, now: datetime) -> None:
        """Let time pass up to `now`."""
        self._note(self._playback.end(now))

    @property
    def _lists(self) -> bool:
        return len(self.items) < self._limit and self._left > 0

    def _note(self, played: Iterable[Played]) -> None:
        for one in played:
            runs = [outcome for outcome in one.outcomes if isinstance(outcome, Start)]
            self.counts["open" if one.reason is None else "windows"] += 1
            self.counts["runs"] += len(runs)
            self.counts["dropped"] += len(one.outcomes) - len(runs)
            entries = {held.position: self._entries.pop(held.position) for held in one.held}
            self._kept -= sum(entry.size for entry in entries.values())
            shown = self._public(one, runs, entries) if self._lists else None
            if shown is None:
                self.left_off += 1
            else:
                self.items.append(shown)

    def _public(
        self, one: Played, runs: Sequence[Start], entries: Mapping[int, _Entry]
    ) -> dict[str, Any] | None:
        """The window as the API shows it; None when there is no room for it."""
        collected = {at: entry.collected for at, entry in entries.items() if entry.collected is not None}
        if len(collected) < len(entries):
            return None
        about = {at: entry.about for at, entry in entries.items()}
        shown = [_run(run, input_of(run, collected), about) for run in runs]
        size = sum(len(orjson.dumps(run["input"])) for run in shown)
        if size > self._left:
            self._left = 0
            return None
        self._left -= size
        dropped = [outcome for outcome in one.outcomes if not isinstance(outcome, Start)]
        return {
            "key": one.key,
            "pattern": one.pattern.kind,
            "from": _iso(one.held[0].at),
            "to": _iso(one.held[-1].at),
            "count": len(one.held),
            "reason": one.reason,
            "ended_at": _iso(one.at) if one.reason is not None else None,
            "due_at": _iso(one.at) if one.reason is None else None,
            "entries": [about[held.position] for held in one.held[:SHOWN]],
            "runs": shown,
            "dropped": [{**about[each.event.position], "reason": each.reason} for each in dropped[:SHOWN]],
            "dropped_count": len(dropped),
        }


def _run(run: Start, payload: Any, about: Mapping[int, Mapping[str, str]]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "count": len(run.events),
        "entries": [about[held.position] for held in run.events[:SHOWN]],
        "input": payload,
    }
    if run.parts:
        shown["parts"] = {name: about[held.position] for name, held in run.parts}
    return shown


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()
