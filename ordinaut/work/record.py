"""Recording what came of a step, fenced by the run's stream version (I4), through any outage."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

from prometheus_client import Histogram

from ordinaut.domain.errors import Unavailable, VersionConflict
from ordinaut.domain.events import NewEvent, reference
from ordinaut.domain.run import Run, run_stream
from ordinaut.log.append import Append, Appended, Outcome
from ordinaut.log.database import OUTAGE
from ordinaut.log.read import read_stream
from ordinaut.runtime.metrics import RUN_SECONDS, RUNS
from ordinaut.runtime.system import System
from ordinaut.work.lease import apply

RETRY_SECONDS = 0.2


class LeaseLost(Exception):
    """The run is not this worker's any more; nothing of what it did since counts."""


async def record(system: System, worker: str, run: Run, events: Sequence[NewEvent]) -> None:
    """Append `events` to the run's stream and fold them into `run`; returns when they are on disk.

    Raises `LeaseLost` when somebody else appended first (a takeover, a cancellation). While the
    database is away it waits; where the answer to an append was lost, the log is asked whether it
    stands before anything is said again.
    """
    (failure,) = await record_all(system, worker, [(run, events)])
    if failure is not None:
        raise failure


async def record_all(
    system: System, worker: str, said: Sequence[tuple[Run, Sequence[NewEvent]]]
) -> list[BaseException | None]:
    """`record` for several runs at once; answers with what it would raise for each, or None."""
    items = [_append(worker, run, events) for run, events in said]
    failures: list[BaseException | None] = [None] * len(items)
    late: list[int] = []
    for n, outcome in enumerate(outcomes := await system.appender.attempt_all(items)):
        if isinstance(outcome, Appended):
            apply(said[n][0], said[n][1], outcome.at)
        else:
            late.append(n)
    if late:
        insisting = [_insist(system, said[n][0], items[n], outcomes[n]) for n in late]
        answers = await asyncio.gather(*insisting, return_exceptions=True)
        for n, answer in zip(late, answers, strict=True):
            failures[n] = answer
    return failures


@cache
def _seconds(state: str) -> Histogram:
    return RUN_SECONDS.labels(state)


def measure(runs: Iterable[Run]) -> None:
    """Count those of the runs that have ended, and how long they took."""
    ended = Counter[str]()
    for run in runs:
        if run.ended and run.started_at and run.finished_at:
            ended[run.state] += 1
            _seconds(run.state).observe((run.finished_at - run.started_at).total_seconds())
    for state, count in ended.items():
        RUNS.labels(state).inc(count)


def _append(worker: str, run: Run, events: Sequence[NewEvent]) -> Append:
    stream = run_stream(run.id)
    return Append(
        stream,
        run.stream_version,
        events,
        run.space,
        f"worker:{worker}",
        run.correlation,
        reference(stream, run.stream_version),
    )


async def _insist(system: System, run: Run, item: Append, outcome: Outcome | Exception) -> None:
    """Go on where the first try did not stand, until it is known to stand or never to (raises)."""
    in_doubt = False
    while not isinstance(outcome, Appended):
        if isinstance(outcome, VersionConflict):
            mine = await _recorded(system, run, item) if in_doubt else None
            if mine is None:
                raise LeaseLost(str(outcome)) from outcome
            outcome = mine
        elif isinstance(outcome, Unavailable):
            in_doubt = True
            await asyncio.sleep(RETRY_SECONDS)
            (outcome,) = await system.appender.attempt_all([item])
        else:
            raise outcome
    apply(run, item.events, outcome.at)


async def _recorded(system: System, run: Run, item: Append) -> Appended | None:
    """Whether the log holds exactly this append at the version it was meant for."""
    while True:
        try:
            async with system.pool.acquire() as connection:
                found = await read_stream(connection, item.stream, after=item.expected)
        except OUTAGE:
            await asyncio.sleep(RETRY_SECONDS)
            continue
        break
    ours = found[: len(item.events)]
    if [(e.type, e.actor) for e in ours] != [(e.type, item.actor) for e in item.events]:
        return None
    if len(found) > len(ours):
        return None
    return Appended(ours[-1].position, ours[-1].version, ours[-1].at)
