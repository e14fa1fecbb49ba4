"""Firing: the schedules that are due get their verdicts and move on, in one transaction.

The row locks of `schedules` (SKIP LOCKED) give each schedule to one clock at a time, the expected version
0 of the run's stream gives each instant one verdict (I7), and the required version of the task's stream
makes a decision void that was made by an older state of the task. Any refusal rolls the whole batch back:
what it teaches is kept, and the batch is decided again.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import TypeVar

import structlog

from ordinaut.clock.decide import UNCONCERNED, Decision, Due, Verdict, decide
from ordinaut.clock.known import Known, KnownTasks
from ordinaut.clock.learn import Conflict, Learned
from ordinaut.clock.pace import spread
from ordinaut.clock.read import coming, unfinished_scheduled_runs
from ordinaut.domain.errors import VersionConflict
from ordinaut.domain.run import cancel, fold, run_stream
from ordinaut.domain.schedules.zones import tz_version
from ordinaut.domain.task import task_stream
from ordinaut.log.append import Append, Connection, append
from ordinaut.log.appender import MAX_BATCH_EVENTS
from ordinaut.log.read import read_streams
from ordinaut.log.wake import CANCELED
from ordinaut.runtime.system import System
from projections.schedules import ADVANCE_NOW, lock_due

BATCH = 1000
"""Schedules a transaction, at the most; those it has to leave alone do not count."""

AHEAD = timedelta(seconds=5)
PREPARED = 500
"""Tasks read ahead of time at once: so few that a schedule that comes due meanwhile does not wait."""

DECIDING_SECONDS = 1.0
"""How long a batch is decided for: after a long outage one schedule may take tens of milliseconds, a list of
hard rules seconds."""

IDLE_SECONDS = 5.0
"""After so long without a word PostgreSQL ends a clock's transaction."""

TRIES = 8
ACTOR = "clock"

# A clock that hangs with a transaction open holds the rows, perhaps the head of the log: it loses them.
# A plan that is kept from when `due_work` was empty reads it from end to end, for thousands of tasks at once.
_BEGIN = """
SELECT set_config('idle_in_transaction_session_timeout', $1, true),
       set_config('plan_cache_mode', 'force_custom_plan', true)
"""

_NOTIFY_CANCELED = "SELECT pg_notify($1, run) FROM unnest($2::text[]) AS run"

_FIRST = (datetime.min.replace(tzinfo=UTC), "00000000-0000-0000-0000-000000000000")

_T = TypeVar("_T")

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Fired:
    """What one round did: schedules moved, runs requested, instants skipped."""

    moved: int = 0
    fired: int = 0
    skipped: int = 0


@dataclass(slots=True)
class _Batch:
    """What one transaction is about to do. `owners` says, append by append, what it is for."""

    appends: list[Append] = field(default_factory=list)
    owners: list[tuple[Due, Verdict | None]] = field(default_factory=list)
    moves: list[tuple[str, int, datetime | None, str]] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    left: int = 0

    def outcome(self) -> Fired:
        verdicts = [verdict for _, verdict in self.owners if verdict is not None]
        fired = sum(verdict.fired for verdict in verdicts)
        skipped = sum(verdict.count for verdict in verdicts if not verdict.fired)
        return Fired(len(self.moves), fired, skipped)


_Canceling = tuple[Due, Known, Decision]
"""A decision that ends unfinished runs, and what it is about."""


class _Refused(Exception):
    """Takes the transaction back: somebody was first, or a task is not what it was thought to be."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        super().__init__()
        self.conflicts = conflicts


class Firing:
    """Gives verdicts to what is due, a batch at a time."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._tasks = KnownTasks()
        self._left_alone = 0
        self._prepared = _FIRST
        self._reported: set[tuple[str, int]] = set()

    async def prepare(self) -> bool:
        """Read some of the tasks that are due within `AHEAD` and decide on them as far as is known; False
        when all of them have been.

        Thousands may be due in the same second, and then there is no time to read them.
        """
        now = self._system.time.now()
        after = max(self._prepared, (now, _FIRST[1]))
        async with self._system.pool.acquire() as connection:
            rows = await coming(connection, after, now + AHEAD, PREPARED)
            known = await self._tasks.get(connection, {row["task_id"]: row["since_version"] for row in rows})
        if rows:
            self._prepared = (rows[-1]["next_fire_at"], rows[-1]["task_id"])
        for row in rows:
            if (task := known.get(row["task_id"])) is not None:
                task.look_ahead(Due(row["task_id"], row["next_fire_at"], row["since_version"]))
        return bool(rows)

    async def fire_due(self) -> Fired:
        """One round over at most `BATCH` schedules; `moved` is 0 when there was nothing it could do.

        Left alone are rows another clock has, and rows of a schedule that the log has replaced (the
        projection will remove them). Raises what asking the database raises; nothing was done then, or
        all of it, and doing it again is safe.
        """
        learned = Learned()
        async with self._system.pool.acquire() as connection:
            for _ in range(TRIES):
                try:
                    async with connection.transaction():
                        batch = await self._transact(connection, learned)
                except _Refused as refused:
                    await learned.learn(connection, refused.conflicts, self._tasks)
                else:
                    self._left_alone = batch.left
                    return batch.outcome()
        return Fired()

    async def _transact(self, connection: Connection, learned: Learned) -> _Batch:
        await connection.execute(_BEGIN, f"{IDLE_SECONDS * 1000:.0f}ms")
        now = self._system.time.now()
        # Rows that were left alone are of the oldest and come again: they must not fill the batch.
        rows = await lock_due(connection, now, BATCH, self._left_alone)
        due = [Due(row["task_id"], row["next_fire_at"], row["since_version"]) for row in rows]
        batch = await self._decide(connection, due, now, learned)
        rate = self._system.settings.catch_up_per_second
        await spread(connection, batch.appends, [verdict for _, verdict in batch.owners], now, rate)
        if batch.moves:
            await connection.execute(ADVANCE_NOW, *map(list, zip(*batch.moves, strict=True)))
        if batch.canceled:
            await connection.execute(_NOTIFY_CANCELED, CANCELED, batch.canceled)
        if batch.appends:
            outcomes = await append(connection, batch.appends)
            conflicts = [
                (*owner, outcome)
                for owner, outcome in zip(batch.owners, outcomes, strict=True)
                if isinstance(outcome, VersionConflict)
            ]
            if conflicts:
                raise _Refused(conflicts)
        return batch

    async def _decide(
        self, connection: Connection, rows: list[Due], now: datetime, learned: Learned
    ) -> _Batch:
        tasks = await self._tasks.get(connection, {due.task_id: due.since_version for due in rows})
        wary = [task_id for task_id, known in tasks.items() if known.task.overlap not in UNCONCERNED]
        unfinished = await unfinished_scheduled_runs(connection, wary)
        deciding = partial(self._decide_each, rows, tasks, unfinished, now, learned)
        batch, cancels = await _in_a_thread(connection, deciding)
        await _add_cancels(connection, batch, cancels)
        return batch

    def _decide_each(
        self,
        rows: list[Due],
        tasks: Mapping[str, Known],
        unfinished: Mapping[str, list[str]],
        now: datetime,
        learned: Learned,
    ) -> tuple[_Batch, list[_Canceling]]:
        """As many of the rows as `DECIDING_SECONDS` allow; what they cancel is not in the batch."""
        batch, enough = _Batch(), monotonic() + DECIDING_SECONDS
        cancels: list[_Canceling] = []
        for due in rows:
            if len(batch.appends) >= MAX_BATCH_EVENTS or monotonic() > enough:
                break  # the others are in the next batch
            known = tasks.get(due.task_id)
            decision = None
            if known is not None and known.schedule_since == due.since_version:
                decision = self._decide_one(known, due, now, unfinished.get(due.task_id, []), learned)
            if known is None or decision is None:
                batch.left += 1
                continue
            batch.moves.append((due.task_id, known.task.version, decision.next, tz_version()))
            _add_verdicts(batch, known, due, decision)
            if decision.cancel:
                cancels.append((due, known, decision))
        return batch, cancels

    def _decide_one(
        self, known: Known, due: Due, now: datetime, unfinished: list[str], learned: Learned
    ) -> Decision | None:
        """The decision on one schedule; None when it has to be left alone this time."""
        if learned.gives_up(due):
            return None
        if not (unfinished or learned.strikes) and (ahead := known.decided(due, now)) is not None:
            return ahead
        at: datetime | None = learned.ahead.get(due.task_id, due.at)
        if at is None or at > now:
            return Decision((), (), at)
        try:
            return decide(
                known.task, known.definition, known.rule(),
                Due(due.task_id, at, due.since_version),
                now, unfinished, learned.taken.get(due.task_id, ()),
            )  # fmt: skip
        except Exception as error:
            # One schedule that cannot be read must not keep all others from firing.
            if (due.task_id, known.task.version) not in self._reported:
                self._reported.add((due.task_id, known.task.version))
                logger.exception("clock.cannot_decide", task=known.task.name, error=str(error))
            return None


async def _in_a_thread(connection: Connection, work: Callable[[], _T]) -> _T:
    """What `work` gives. A hard rule may take seconds after a long outage: meanwhile others go on in this
    process, and PostgreSQL hears of it often enough not to end the transaction."""
    working = asyncio.create_task(asyncio.to_thread(work))
    try:
        while not (await asyncio.wait({working}, timeout=IDLE_SECONDS / 4))[0]:
            await connection.execute("SELECT")
        return await working
    finally:
        working.cancel()


def _add_verdicts(batch: _Batch, known: Known, due: Due, decision: Decision) -> None:
    task = known.task
    requires = {task_stream(task.id): task.stream_version}
    for verdict in decision.verdicts:
        item = Append(
            run_stream(verdict.run_id), 0, [verdict.event], task.space, ACTOR, verdict.run_id,
            _because(due, verdict.at), requires,
        )  # fmt: skip
        batch.appends.append(item)
        batch.owners.append((due, verdict))


async def _add_cancels(connection: Connection, batch: _Batch, cancels: list[_Canceling]) -> None:
    """Put the ends of the runs that have to go before everything else in the batch."""
    if not cancels:
        return
    wanted = [run_stream(run_id) for _, _, decision in cancels for run_id in decision.cancel]
    events = await read_streams(connection, wanted)
    appends: list[Append] = []
    owners: list[tuple[Due, Verdict | None]] = []
    for due, known, decision in cancels:
        at = decision.verdicts[-1].at
        for run_id in decision.cancel:
            run = fold(run_id, events.get(run_stream(run_id), []))
            if run.ended or run.stream_version == 0:
                continue
            end = cancel(run, f"the occurrence at {at.isoformat()} takes its place (policy.overlap)")
            item = Append(
                run_stream(run_id), run.stream_version, end, known.task.space, ACTOR, run.correlation,
                _because(due, at),
            )  # fmt: skip
            appends.append(item)
            owners.append((due, None))
            batch.canceled.append(run_id)
    batch.appends[:0] = appends
    batch.owners[:0] = owners


def _because(due: Due, at: datetime) -> str:
    return f"schedule:{due.task_id}@{at.isoformat()}"
