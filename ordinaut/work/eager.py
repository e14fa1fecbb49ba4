"""Leasing along with an append: where a run is requested by a process whose worker has hands free, one
transaction requests and leases it.

It is the lease that every worker takes (`lease_due_work`: the same order, limits and fencing), only sooner:
the worker need not be woken, and there is one commit to wait for instead of two. Workers of other processes
are woken as ever. Temporal calls the like of it an eager workflow start.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg

from ordinaut.log.appender import Appender

GIVE_WAY_SECONDS = 0.005
"""The append that leases wakes its own worker, too. To look for more at once would be in the way of the first
steps of what it has leased."""

Rows = Sequence[asyncpg.Record]


class EagerLease:
    """A worker's `Companion` of its process's appends (ordinaut/log/append.py).

    `room` says how many runs to lease now. As long as that is not answered, `reserved` hands are spoken for.
    """

    types = frozenset({"RunRequested"})
    sql = "lease_due_work($15, $16, CASE WHEN a.head_after > 0 THEN $17::int ELSE 0 END, $18)"

    def __init__(self, worker: str, seconds: float, room: Callable[[], int]) -> None:
        self._worker = worker
        self._seconds = float(seconds)
        self._room = room
        self._take: Callable[[Rows], None] | None = None
        self._answered = asyncio.Event()
        self._answered.set()
        self._busy_until = 0.0
        self._failure: Exception | None = None
        self.reserved = 0

    def begin(self, appender: Appender, take: Callable[[Rows], None]) -> None:
        """Lease along with what `appender` appends, unless another worker does; `take` gets the rows."""
        if appender.companion is None:
            self._take, appender.companion = take, self

    def end(self, appender: Appender) -> None:
        """Lease no more."""
        if appender.companion is self:
            appender.companion = None

    def ask(self) -> tuple[Any, ...] | None:
        """The arguments of a lease, or None with no hand free."""
        room = self._room()
        if room <= 0:
            return None
        self.reserved = room
        self._answered.clear()
        return self._worker, self._seconds, room, random.getrandbits(1)

    def answer(self, rows: Rows) -> None:
        """Hand over what was leased."""
        self.reserved = 0
        # A lateral join that found nothing answers with one row of nulls.
        leased = [row for row in rows if row["stream"] is not None]
        try:
            if leased and self._take is not None:
                self._busy_until = time.monotonic() + GIVE_WAY_SECONDS
                self._take(leased)
        except Exception as error:
            # The worker's, who cannot read what it was given; the append stands.
            self._failure = error
        finally:
            self._answered.set()

    async def answered(self) -> None:
        """Wait until nothing is asked any more."""
        await self._answered.wait()

    async def give_way(self) -> None:
        """Wait until what was leased has begun. Raises what handing it over raised."""
        await self._answered.wait()
        if self._failure is not None:
            raise self._failure
        if (left := self._busy_until - time.monotonic()) > 0:
            await asyncio.sleep(left)
