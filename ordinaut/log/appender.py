"""Group commit: an `Appender` keeps one batch in flight, and everything that arrives meanwhile goes into the
next one, so batches grow with load and a lone append never waits for company.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg

from ordinaut.domain.errors import Unavailable, VersionConflict
from ordinaut.log.append import (
    Append,
    Appended,
    Companion,
    Connection,
    Outcome,
    append,
    append_with,
    is_outage,
)

MAX_BATCH_EVENTS = 5000

MAX_PART = 1000
"""Appends of one caller that go into a batch together or not at all."""


@dataclass(slots=True)
class _Waiting:
    """Appends of one caller that may go in one batch, and who waits for their outcomes, in order."""

    appends: Sequence[Append]
    written: set[str]
    required: set[str]
    future: "asyncio.Future[list[Outcome | Exception]]"


class Appender:
    """Group commit for one process: append from anywhere, one batch in flight at a time. `companion` is what
    is asked along with it, by somebody of the same process."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.companion: Companion | None = None
        self._pool = pool
        self._queue: deque[_Waiting] = deque()
        self._flusher: asyncio.Task[None] | None = None

    async def append(self, item: Append) -> Appended:
        """Append and wait until it is on PostgreSQL's disk (I1).

        Raises `VersionConflict` when somebody was first (nothing was changed) and `Unavailable` when
        the database did not say whether it was appended; trying the same again is then safe, because
        the expected version lets it in at most once.
        """
        (outcome,) = await self._submit([item], {item.stream}, set(_required(item)))
        if isinstance(outcome, Appended):
            return outcome
        raise outcome

    async def append_all(self, items: Sequence[Append]) -> list[Outcome]:
        """Append many at once and wait for all; conflicts are among the outcomes, not raised."""
        outcomes: list[Outcome] = []
        for outcome in await self.attempt_all(items):
            if not isinstance(outcome, Outcome):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    def attempt_all(self, items: Sequence[Append]) -> Awaitable[list[Outcome | Exception]]:
        """The same, with whatever `append` would raise for an item in its place. They are queued now, not
        when the answer is awaited."""
        # Whole lists, because a future for each append would cost more than its place in the batch.
        return _answers([self._submit(*part) for part in _parts(items)])

    def _submit(
        self, appends: Sequence[Append], written: set[str], required: set[str]
    ) -> "asyncio.Future[list[Outcome | Exception]]":
        future: asyncio.Future[list[Outcome | Exception]] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(appends, written, required, future))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush(), name="group-commit")
        return future

    async def _flush(self) -> None:
        try:
            while self._queue:
                batch = self._take()
                items = [item for waiting in batch for item in waiting.appends]
                try:
                    outcomes: list[Outcome | Exception] = [*await self._commit(items, self.companion)]
                except Exception as error:
                    outcomes = await self._one_by_one(items, error)
                first = 0
                for waiting in batch:
                    upto = first + len(waiting.appends)
                    if not waiting.future.done():  # else who waited for it has gone away
                        waiting.future.set_result(outcomes[first:upto])
                    first = upto
        finally:
            self._flusher = None

    def _take(self) -> list[_Waiting]:
        """The next batch, in order of arrival.

        All of a batch is checked against the log as it was before it. So what appends to a stream that
        another of the batch appends to, or requires it at a version, waits for the next batch: nothing
        stands behind an event in the log that was decided without it. Requiring a stream not to exist
        is not requiring a version: an event and what comes of it may be submitted together, each on
        the condition that the event is new.
        """
        batch: list[_Waiting] = []
        later: list[_Waiting] = []
        written: set[str] = set()
        required_later: set[str] = set()
        events = 0
        while self._queue and events < MAX_BATCH_EVENTS:
            waiting = self._queue.popleft()
            free = written.isdisjoint(waiting.written) and required_later.isdisjoint(waiting.written)
            if free and written.isdisjoint(waiting.required):
                events += sum(len(item.events) for item in waiting.appends)
                batch.append(waiting)
            else:
                required_later |= waiting.required
                later.append(waiting)
            written |= waiting.written
        self._queue.extendleft(reversed(later))
        return batch

    async def _one_by_one(self, items: list[Append], error: Exception) -> list[Outcome | Exception]:
        # What cannot be sent (a number JSON cannot hold) or is refused by the server (a value jsonb cannot
        # hold) fails the whole batch. Each is tried alone, so that one caller's bad data is not
        # everybody's. With the connection gone nobody knows whether the batch stands: those callers are
        # told so.
        if len(items) == 1 or is_outage(error):
            return [_told(error)] * len(items)
        outcomes: list[Outcome | Exception] = []
        for item in items:
            try:
                outcomes += await self._commit([item])
            except Exception as its_error:
                outcomes.append(_told(its_error))
        return outcomes

    async def _commit(self, items: list[Append], companion: Companion | None = None) -> list[Outcome]:
        """One transaction: effects, then the append. A conflict takes its effects back with it."""
        async with self._pool.acquire() as connection:
            if not any(item.effects for item in items):
                return await append_with(connection, items, companion)
            refused: dict[int, VersionConflict] = {}
            while True:
                kept = [n for n in range(len(items)) if n not in refused]
                transaction = connection.transaction()
                await transaction.start()
                try:
                    await _carry_out([items[n] for n in kept], connection)
                    outcomes = dict(
                        zip(kept, await append(connection, [items[n] for n in kept]), strict=True)
                    )
                    lost = {n: o for n, o in outcomes.items() if isinstance(o, VersionConflict)}
                    if not any(items[n].effects for n in lost):
                        await transaction.commit()
                        return [refused[n] if n in refused else outcomes[n] for n in range(len(items))]
                    await transaction.rollback()
                    refused |= lost
                except BaseException:
                    with suppress(asyncpg.InterfaceError, asyncpg.PostgresError, OSError):
                        await transaction.rollback()
                    raise


async def _carry_out(items: Sequence[Append], connection: Connection) -> None:
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for item in items:
        for sql, row in item.effects.items():
            rows.setdefault(sql, []).append(row)
    for sql, arguments in rows.items():
        await connection.execute(sql, *[list(column) for column in zip(*arguments, strict=True)])


async def _answers(parts: Sequence["asyncio.Future[list[Outcome | Exception]]"]) -> list[Outcome | Exception]:
    return [outcome for part in parts for outcome in await part]


def _required(item: Append) -> list[str]:
    """The streams that must be at a version other than 0 (see `Appender._take`)."""
    return [stream for stream, version in item.requires.items() if version]


def _parts(items: Sequence[Append]) -> Iterator[tuple[list[Append], set[str], set[str]]]:
    """The list, cut wherever an append must not be in one batch with those before it, or a batch is full; of
    each part the streams it appends to, and those it requires."""
    part: list[Append] = []
    written: set[str] = set()
    required: set[str] = set()
    for item in items:
        needs = _required(item)
        if len(part) >= MAX_PART or item.stream in written or not written.isdisjoint(needs):
            yield part, written, required
            part, written, required = [], set(), set()
        part.append(item)
        written.add(item.stream)
        required.update(needs)
    if part:
        yield part, written, required


def _told(error: Exception) -> Exception:
    told: Exception
    if isinstance(error, asyncpg.TransactionRollbackError):
        told = Unavailable("another transaction was in the way and nothing was recorded; try again")
    elif is_outage(error):
        told = Unavailable("the database does not answer; it is not known whether this was recorded")
    else:
        return error
    told.__cause__ = error
    return told
