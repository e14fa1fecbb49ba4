"""What a refused append teaches: the task has changed, the row is behind, or the instant is taken."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ordinaut.clock.decide import Due, Verdict
from ordinaut.clock.known import KnownTasks
from ordinaut.clock.read import first_events
from ordinaut.domain.errors import VersionConflict
from ordinaut.domain.ids import scheduled_run_id
from ordinaut.domain.run import run_stream
from ordinaut.domain.task import task_stream
from ordinaut.log.append import Connection

STRIKES = 3
"""How often a schedule may have its batch refused before the batch goes on without it."""

Conflict = tuple[Due, Verdict | None, VersionConflict]
"""A refused append: the schedule it was for, and the verdict unless it was to cancel a run."""


@dataclass(slots=True)
class Learned:
    """What the refusals of one round taught.

    By task, `ahead`: where the log says a schedule stands whose row is behind (None: it is over); `taken`:
    its instants whose verdict came from elsewhere; `strikes`: how often it had a batch refused.
    """

    ahead: dict[str, datetime | None] = field(default_factory=dict)
    taken: dict[str, set[datetime]] = field(default_factory=dict)
    strikes: Counter[str] = field(default_factory=Counter)

    def gives_up(self, due: Due) -> bool:
        """Whether the schedule is left to the next round, so that the others of its batch can go on."""
        return self.strikes[due.task_id] >= STRIKES

    async def learn(self, connection: Connection, conflicts: Sequence[Conflict], tasks: KnownTasks) -> None:
        """Look at what was there before; changed tasks are forgotten, to be read again."""
        self.strikes.update({due.task_id for due, _, _ in conflicts})
        met: list[tuple[Due, Verdict]] = []
        for due, verdict, conflict in conflicts:
            if conflict.stream == task_stream(due.task_id):
                tasks.forget(due.task_id)
            elif verdict is not None:
                met.append((due, verdict))
        existing = await first_events(connection, [run_stream(verdict.run_id) for _, verdict in met])
        for due, verdict in met:
            data = existing.get(run_stream(verdict.run_id), {})
            if _moves(data, due):
                self.ahead[due.task_id] = _later(self.ahead.get(due.task_id, verdict.at), data["next"])
            else:
                self.taken.setdefault(due.task_id, set()).add(verdict.at)
        await self._follow(connection, {due.task_id: due for due, _ in met})

    async def _follow(self, connection: Connection, rows: dict[str, Due]) -> None:
        """Follow the verdicts from each to its next, up to the first instant that has none."""
        chased = rows
        while chased:
            streams = {
                key: run_stream(scheduled_run_id(due.task_id, at))
                for key, due in chased.items()
                if (at := self.ahead.get(key)) is not None
            }
            existing = await first_events(connection, list(streams.values()))
            moved: dict[str, Due] = {}
            for key, stream in streams.items():
                data, before = existing.get(stream, {}), self.ahead[key]
                if _moves(data, chased[key]) and (after := _later(before, data["next"])) != before:
                    self.ahead[key] = after
                    moved[key] = chased[key]
            chased = moved


def _moves(data: dict[str, Any], due: Due) -> bool:
    """Whether this verdict was given for the schedule `due`, and so says where it stands."""
    return "next" in data and data["task_version"] >= due.since_version


def _later(known: datetime | None, following: str | None) -> datetime | None:
    if known is None or following is None:
        return None
    return max(known, datetime.fromisoformat(following))
