"""Recording a batch of entries: decide, append, and decide again what has changed meanwhile."""

from collections.abc import Mapping, Sequence
from functools import partial

import asyncpg
import orjson
import structlog

from ordinaut.domain.errors import Unavailable, VersionConflict
from ordinaut.intake.source import Source
from ordinaut.log.append import Append, Appended, Outcome
from ordinaut.log.database import OUTAGE
from ordinaut.runtime.entries import Entry, History, decide, reject
from ordinaut.runtime.listening import Listener
from ordinaut.runtime.lives import with_what_others_took
from ordinaut.runtime.metrics import ENTRIES
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex

REFUSED = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, orjson.JSONEncodeError)
"""What is raised for a value that cannot be stored; trying it again would not help."""

AWAY = (Unavailable, asyncpg.InternalClientError, *OUTAGE)
"""What is raised while PostgreSQL is away; the second by asyncpg, on a connection that the server has just
ended."""

DeadLetter = dict[bytes, bytes]

Waiting = dict[tuple[str, str], Entry]
"""Entries to be decided, by stream and id."""

logger = structlog.get_logger(__name__)


class Recorder:
    """Puts the verdicts on entries into the log. `received`, `matched` and `rejected` count them."""

    def __init__(self, system: System, index: TriggerIndex) -> None:
        self._system = system
        self._index = index
        self.received = 0
        self.matched = 0
        self.rejected = 0

    async def record(self, entries: Sequence[Entry], sources: Mapping[str, Source]) -> list[DeadLetter]:
        """Record what `entries` mean; returns the copies for `ordinaut:dead` of what was rejected.

        When it returns, every verdict is on PostgreSQL's disk, whether it was put there now or before.
        Raises one of `AWAY`; calling it again with the same entries is then right.
        """
        dead: dict[str, DeadLetter] = {}
        matched, waiting = await self._record_at_once(entries, sources)
        while waiting:
            # After the entries were read: whatever was acknowledged before they were added is in the index.
            await self._index.refresh()
            decided = self._decide(list(waiting.values()), sources)
            dead |= {append.stream: letter for _, append, letter in decided if letter is not None}
            waiting, clashes = {}, []
            outcomes = await self._system.appender.attempt_all([append for _, append, _ in decided])
            refused: list[tuple[Entry, Append, DeadLetter]] = []
            for (entry, append, letter), outcome in zip(decided, outcomes, strict=True):
                if isinstance(outcome, Appended):
                    matched += letter is None
                elif has_verdict(append, outcome):
                    clashes.append((entry, append.stream))
                elif isinstance(outcome, VersionConflict):
                    # On the task's stream: the task has just changed.
                    waiting[entry.stream, entry.id] = entry
                elif isinstance(outcome, REFUSED):
                    refused.append((entry, *self._refusal(entry, append, outcome)))
                else:
                    raise outcome
            others = await with_what_others_took(self._system.pool, clashes)
            waiting |= others
            for entry, stream in clashes:
                if (entry.stream, entry.id) in others:
                    dead.pop(stream, None)  # it comes again under an id of its own
            dead |= {append.stream: letter for _, append, letter in refused}
            await self._append_refusals([(entry, append) for entry, append, _ in refused])
        self._count(len(entries), matched, len(dead))
        return list(dead.values())

    async def reject_all(
        self, entries: Sequence[Entry], sources: Mapping[str, Source], histories: Mapping[str, History]
    ) -> list[DeadLetter]:
        """Reject entries that were delivered too often, in each space that listens; returns the copies for
        `ordinaut:dead`. `histories` are theirs by entry id. Raises one of `AWAY`; see `record`."""
        await self._index.refresh()
        dead: list[DeadLetter] = []
        waiting: Waiting = {(entry.stream, entry.id): entry for entry in entries}
        while waiting:
            refusals = [
                (entry, *refusal)
                for entry in waiting.values()
                for refusal in self._too_often(entry, sources, histories[entry.id])
            ]
            clashes = await self._append_refusals([(entry, append) for entry, append, _ in refusals])
            waiting = await with_what_others_took(self._system.pool, clashes)
            dead += [letter for entry, _, letter in refusals if (entry.stream, entry.id) not in waiting]
        self._count(len(entries), 0, len(dead))
        return dead

    def _too_often(
        self, entry: Entry, sources: Mapping[str, Source], history: History
    ) -> list[tuple[Append, DeadLetter]]:
        listeners: Sequence[Listener] = self._index.listening(entry.stream)
        source = sources.get(entry.stream)
        if source is not None:
            listeners = source.of_age(entry, listeners)
        reason = (
            f"it was delivered {history.deliveries} times, and each time the process that had it ended"
            " or hung before it was done"
        )
        logger.error("intake.entry_rejected", stream=entry.stream, id=entry.id, **history.public())
        spaces = {each.task.space for each in listeners} or {self._system.settings.space}
        return [reject(entry, reason, space=space, history=history) for space in sorted(spaces)]

    def _count(self, received: int, matched: int, rejected: int) -> None:
        self.received += received
        self.matched += matched
        self.rejected += rejected
        for outcome, count in (("received", received), ("matched", matched), ("rejected", rejected)):
            ENTRIES.labels(outcome).inc(count)

    async def _record_at_once(
        self, entries: Sequence[Entry], sources: Mapping[str, Source]
    ) -> tuple[int, Waiting]:
        """Record what need not wait for news of the tasks, and be told with it whether there is any.

        What is known of a task is nearly always still so, and its verdict is appended only if it is.
        Returns how many verdicts were, and the entries to decide with the news: all of them when there
        is any; else those with a rejection (it is appended whatever became of the task) or a conflict, and
        those that met a verdict on another entry of their id.
        """
        known = self._index.changes
        decided = self._decide(entries, sources)
        verdicts = [append for _, append, letter in decided if letter is None]
        outcomes = await self._system.appender.attempt_all(verdicts)
        appended = [outcome for outcome in outcomes if isinstance(outcome, Appended)]
        matched = len(appended)
        if not appended or appended[-1].tasks_at > self._index.position:
            await self._index.refresh()
        if self._index.changes != known:
            return matched, {(entry.stream, entry.id): entry for entry in entries}
        if matched == len(decided):
            return matched, {}
        settled = {
            append.stream: isinstance(outcome, Appended)
            for append, outcome in zip(verdicts, outcomes, strict=True)
            if has_verdict(append, outcome)
        }
        waiting: Waiting = {}
        clashes: list[tuple[Entry, str]] = []
        for entry, append, _ in decided:
            if append.stream not in settled:
                waiting[entry.stream, entry.id] = entry
            elif not settled[append.stream]:
                clashes.append((entry, append.stream))
        return matched, waiting | await with_what_others_took(self._system.pool, clashes)

    def _decide(
        self, entries: Sequence[Entry], sources: Mapping[str, Source]
    ) -> list[tuple[Entry, Append, DeadLetter | None]]:
        now = self._system.time.now()
        space = self._system.settings.space
        listening = {stream: self._index.listening(stream) for stream in {entry.stream for entry in entries}}
        decided: list[tuple[Entry, Append, DeadLetter | None]] = []
        for entry in entries:
            source = sources.get(entry.stream)
            of_age = partial(source.of_age, entry) if source is not None and source.has_old else None
            for append, letter in decide(entry, listening[entry.stream], of_age, now=now, space=space):
                decided.append((entry, append, letter))
        return decided

    def _refusal(self, entry: Entry, append: Append, error: Exception) -> tuple[Append, DeadLetter]:
        task_id = append.events[0].data.get("task")
        listener = next((one for one in self._index.listening(entry.stream) if one.task.id == task_id), None)
        task = listener.task if listener else None
        return reject(entry, f"it cannot be stored: {error}", space=append.space, task=task)

    async def _append_refusals(self, refusals: Sequence[tuple[Entry, Append]]) -> list[tuple[Entry, str]]:
        """Append rejections; returns those entries that had one already, and in which stream."""
        clashes: list[tuple[Entry, str]] = []
        outcomes = await self._system.appender.attempt_all([append for _, append in refusals])
        for (entry, append), outcome in zip(refusals, outcomes, strict=True):
            if isinstance(outcome, REFUSED):
                logger.error("intake.rejection_refused", stream=append.stream, reason=str(outcome))
            elif isinstance(outcome, VersionConflict):
                clashes.append((entry, append.stream))
            elif isinstance(outcome, Exception):
                raise outcome
        return clashes


def has_verdict(append: Append, outcome: Outcome | Exception) -> bool:
    """Whether the entry has its verdict now: this one, or (its own stream exists) that of another time."""
    if isinstance(outcome, VersionConflict):
        return outcome.stream == append.stream
    return isinstance(outcome, Appended)
