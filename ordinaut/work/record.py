"""Recording what came of a step, fenced by the run's stream version (I4), through any outage."""

import asyncio
from collections.abc import Sequence

from ordinaut.domain.errors import Unavailable, VersionConflict
from ordinaut.domain.events import NewEvent, reference
from ordinaut.domain.run import Run, run_stream
from ordinaut.log.append import Append, Appended
from ordinaut.log.database import OUTAGE
from ordinaut.log.read import read_stream
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
    item = Append(
        run_stream(run.id),
        run.stream_version,
        events,
        run.space,
        f"worker:{worker}",
        run.correlation,
        reference(run_stream(run.id), run.stream_version),
    )
    in_doubt = False
    while True:
        try:
            appended = await system.appender.append(item)
        except VersionConflict as conflict:
            if in_doubt and (mine := await _recorded(system, run, item)):
                appended = mine
            else:
                raise LeaseLost(str(conflict)) from conflict
        except Unavailable:
            in_doubt = True
            await asyncio.sleep(RETRY_SECONDS)
            continue
        apply(run, events, appended)
        return


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
