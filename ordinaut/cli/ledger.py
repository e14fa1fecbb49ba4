"""`ordinaut doctor` on schedules: is the clock at work, and has the occurrence ledger a hole?"""

from collections.abc import AsyncIterator
from datetime import datetime

import asyncpg

from ordinaut.cli.finding import Finding
from ordinaut.domain.schedules.ledger import NEWEST
from ordinaut.domain.schedules.zones import tz_version
from ordinaut.runtime.ledger import Checked, check_ledger
from ordinaut.runtime.periods import GRACE
from ordinaut.runtime.refresh import look

MOST_FAULTS = 20
"""How many faults of the ledger are told one by one."""
MOST_REFRESHED = 2000
"""How many schedules that another tz database planned are computed anew, to see whether they would move."""

MEND = "`ordinaut projections rebuild occurrences`; if it is there again, the log lacks it: report it"

_OVERDUE = "SELECT min(next_fire_at) FROM schedules WHERE next_fire_at < now() - $1::interval"


async def findings(connection: asyncpg.Connection) -> AsyncIterator[Finding]:
    """What is wrong, fault by fault, and a summary."""
    overdue: datetime | None = await connection.fetchval(_OVERDUE, GRACE)
    if overdue is None:
        yield Finding("clock", "ok", "nothing is overdue")
    else:
        found = f"a schedule has been due since {overdue.isoformat()}"
        yield Finding("clock", "warn", found, "is the role `clock` running?")
    yield await _tz_database(connection)
    async for finding in _ledger(connection):
        yield finding


async def _tz_database(connection: asyncpg.Connection) -> Finding:
    """Whether instants were planned with another release of the tz database, and would move by this one."""
    now = await connection.fetchval("SELECT clock_timestamp()")
    looked = await look(connection, now, limit=MOST_REFRESHED)
    more = " at least" if looked.after else ""
    if looked.moved:
        names = ", ".join(f"{move.task.space}/{move.task.name}" for move in looked.moved[:3])
        found = f"{len(looked.moved)} tasks{more} were planned with another release, and would move: {names}"
        return Finding("tz database", "warn", found, "`ordinaut schedule refresh`")
    planned = f"; {looked.same}{more} planned with another release would not move" if looked.same else ""
    return Finding("tz database", "ok", tz_version() + planned)


async def _ledger(connection: asyncpg.Connection) -> AsyncIterator[Finding]:
    """Whether each instant of each schedule has its verdict, and each verdict its instant (I8)."""
    checked, faults = Checked(), 0
    async for hole in check_ledger(connection, checked):
        faults += 1
        if faults <= MOST_FAULTS:
            at, version = hole.fault.at.isoformat(), hole.fault.version
            yield Finding("ledger", "fail", f"{hole.task}, version {version}: {at} {hole.fault.what}", MEND)
    if faults > MOST_FAULTS:
        yield Finding("ledger", "fail", f"and {faults - MOST_FAULTS} more", MEND)
    if checked.behind:
        found = f"not checked: the table `occurrences` is {checked.behind} events behind"
        yield Finding("ledger", "warn", found, "is the role `projector` running? Ask again when it is done")
        return
    found = (
        f"{checked.instants} instants of {checked.tasks} tasks have a verdict"
        if not faults
        else (f"{faults} faults in {checked.instants} instants of {checked.tasks} tasks")
    )
    if checked.bounded:
        found += f"; of {checked.bounded} tasks only the newest {NEWEST} were looked at"
    if checked.left:
        found += f"; {checked.left} tasks were not looked at any more"
    yield Finding("ledger", "fail" if faults else "ok", found)
