"""Leasing: runs that are due become this worker's, and their log says so, in one transaction."""

import random
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files

import asyncpg

from ordinaut.domain.errors import VersionConflict
from ordinaut.domain.events import Event, NewEvent, reference
from ordinaut.domain.run import Run, evolve, fold, run_stream, start
from ordinaut.log.append import Append, Appended, Connection, append
from ordinaut.log.read import read_streams
from projections.due_work import FINISH_NOW, PUT_OFF_NOW

_SQL = files("ordinaut.work")
LEASE_DUE_WORK = (_SQL / "lease_due_work.sql").read_text()
LEASE_LIMITED_WORK = (_SQL / "lease_limited_work.sql").read_text()
MAY_LEASE_LIMITED = (_SQL / "may_lease_limited.sql").read_text()
RENEW_LEASES = (_SQL / "renew_leases.sql").read_text()
NEXT_RUN_AT = (_SQL / "next_run_at.sql").read_text()


@dataclass(frozen=True, slots=True)
class Leased:
    """What a round of leasing gave: runs to carry out, and how many were parked instead."""

    runs: list[Run]
    parked: int


async def lease_due_work(pool: asyncpg.Pool, worker: str, limit: int, seconds: float) -> Leased:
    """Lease at most `limit` runs for `seconds` and record RunStarted for each (I4: with the version its
    stream was read at, so that a run canceled meanwhile is not started).

    Runs whose attempts are spent are parked; rows that the log says are done with, or not due yet,
    are put right. Raises `VersionConflict` when a run's stream moved in between: nothing was leased
    then, and the next round sees why.
    """
    async with pool.acquire() as connection, connection.transaction():
        ids = await _lease(connection, worker, limit, seconds)
        if not ids:
            return Leased([], 0)
        events = await read_streams(connection, [run_stream(run_id) for run_id in ids])
        now: datetime = await connection.fetchval("SELECT now()")
        started: list[tuple[Run, NewEvent]] = []
        over: list[str] = []
        later: list[Run] = []
        for run_id in ids:
            run = fold(run_id, events[run_stream(run_id)])
            if run.ended:
                over.append(run_id)
            elif run.run_at is not None and run.run_at > now:
                later.append(run)
            else:
                started.append((run, start(run, worker)))
        parked = [run.id for run, event in started if event.type == "RunParked"]
        if over or parked:
            await connection.execute(FINISH_NOW, over + parked)
        if later:
            rows = [(run.id, run.run_at, run.stream_version) for run in later]
            await connection.execute(PUT_OFF_NOW, *map(list, zip(*rows, strict=True)))
        await _record(connection, worker, started)
    return Leased([run for run, event in started if event.type == "RunStarted"], len(parked))


async def _lease(connection: Connection, worker: str, limit: int, seconds: float) -> list[str]:
    ids: list[str] = []

    async def take(statement: str, at_most: int) -> None:
        if at_most > 0:
            ids.extend([row[0] for row in await connection.fetch(statement, worker, seconds, at_most)])

    limited = bool(await connection.fetchval(MAY_LEASE_LIMITED))
    # Half to those with a limit, so that neither kind keeps the other waiting; whom half of an odd
    # number favours is left to chance, or a worker with room for one would never see the other kind.
    share = (limit + random.getrandbits(1)) // 2 if limited else 0
    await take(LEASE_LIMITED_WORK, share)
    all_of_share = len(ids) == share
    await take(LEASE_DUE_WORK, limit - len(ids))
    if limited and all_of_share:
        await take(LEASE_LIMITED_WORK, limit - len(ids))
    return ids


async def _record(connection: Connection, worker: str, started: list[tuple[Run, NewEvent]]) -> None:
    if not started:
        return
    appends = [
        Append(
            run_stream(run.id),
            run.stream_version,
            [event],
            run.space,
            f"worker:{worker}",
            run.correlation,
            reference(run_stream(run.id), run.stream_version),
        )
        for run, event in started
    ]
    for (run, event), outcome in zip(started, await append(connection, appends), strict=True):
        if isinstance(outcome, VersionConflict):
            raise outcome
        apply(run, [event], outcome)


def apply(run: Run, events: list[NewEvent], appended: Appended) -> None:
    """Fold what was just appended to the run's stream into the run."""
    for version, event in enumerate(events, run.stream_version + 1):
        evolve(
            run,
            Event(
                appended.position,
                run.space,
                run_stream(run.id),
                version,
                event.type,
                1,
                appended.at,
                "",
                run.correlation,
                None,
                dict(event.data),
            ),
        )
