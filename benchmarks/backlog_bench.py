"""A stream with a long backlog when intake starts: how fast it is taken in, and in how much memory.

Two of them. In the first, one entry in a hundred starts a run, and nothing runs but intake: what it keeps of
every entry would add up. In the second, each entry starts a run, and there are more than the queue may hold
(its high-water mark): the other roles run as well, and intake takes in what the workers make room for.

The stream is filled by a script that calls XADD in Redis, behind the consumer group that accepting the task
made: intake was stopped for a while. The group and the process are looked at from outside, every `LOOK`
seconds.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import asyncpg
import psutil
import redis.asyncio

from benchmarks import serving
from benchmarks.post_bench import running
from ordinaut.domain import ids, task
from ordinaut.domain.definition import parse_definition
from ordinaut.intake.reads import BATCH
from ordinaut.log.append import Append
from ordinaut.log.appender import Appender
from ordinaut.runtime.streams import ensure_group
from projections import due_work

STREAM = "bench"
FILL = 10_000
LOOK = 0.1
GIVE_UP = 300.0
MOST_PENDING = 3 * BATCH
"""Entries may be pending of the batch that is recorded, of the next one that has been read, and of one whose
acknowledgement is on its way."""


_XADD = """
for n = ARGV[1], ARGV[2] do
  local data = string.format('{"n":%d,"kind":%d,"customer":{"name":"Ana"}}', n, n % ARGV[3])
  redis.call('XADD', KEYS[1], '*', 'data', data)
end
"""

_RUNS = """
SELECT count(*) AS runs, count(DISTINCT n) AS entries, count(*) FILTER (WHERE n % $1::int = 0) AS wanted
  FROM (SELECT (data #>> '{input,n}')::int AS n FROM events WHERE type = 'RunRequested') AS run
"""


@dataclass(frozen=True)
class Case:
    """`entries` wait, one in `one_in` starts a run. `mark` is the high-water mark of the queue (None: the
    default, which is not reached); `roles` are the processes beside intake."""

    entries: int
    one_in: int
    mark: int | None = None
    roles: tuple[str, ...] = ()

    @property
    def runs(self) -> int:
        """How many runs there must be in the end."""
        return len(range(0, self.entries, self.one_in))


CASES = (
    Case(1_000_000, one_in=100),
    Case(100_000, one_in=1, mark=10_000, roles=("relay projector clock", "worker")),
)
QUICK_CASES = (
    Case(100_000, one_in=100),
    Case(20_000, one_in=1, mark=5_000, roles=("relay projector clock", "worker")),
)


@dataclass
class Seen:
    """What a watch over intake saw.

    Megabytes resident: the most until a tenth of the entries was delivered, the most in all. Of entries
    pending and of runs waiting, the most. When entries had begun to be acknowledged, and how many were by
    then; when the last one was, and how many processor seconds intake had taken, its start included.
    """

    first_mb: float = 0.0
    most_mb: float = 0.0
    pending: int = 0
    waiting: int = 0
    begun: float | None = None
    begun_with: int = 0
    ended: float = 0.0
    cpu_seconds: float = 0.0


async def _listen(connection: asyncpg.Connection, database: str, case: Case) -> None:
    """Create the task, as the API does."""
    on: dict[str, Any] = {"stream": STREAM}
    if case.one_in > 1:
        # A comparison: no index answers it, so it is evaluated for each entry.
        on["where"] = "data.kind < `1`"
    document = {"name": "bench", "on": on, "pipeline": [{"id": "noop", "uses": "debug.echo"}]}
    now = await connection.fetchval("SELECT clock_timestamp()")
    definition = parse_definition(document, created_at=now, known_tools=None)
    empty = task.Task(ids.task_id("default", "bench"))
    events = task.create(empty, "bench", definition.normalised(), [], "", created_at=now)
    async with asyncpg.create_pool(database, min_size=1, max_size=2) as pool:
        stream = task.task_stream(empty.id)
        await Appender(pool).append(Append(stream, 0, events, "default", "key:bench", "bench"))


async def _fill(client: redis.asyncio.Redis, case: Case) -> None:
    await ensure_group(client, STREAM, "0")
    add = client.register_script(_XADD)
    for first in range(0, case.entries, FILL):
        last = min(first + FILL, case.entries) - 1
        await add(keys=[STREAM], args=[first, last, case.one_in])


async def _group(client: redis.asyncio.Redis) -> tuple[int, int]:
    """(entries delivered, of these not acknowledged)."""
    (group,) = await client.xinfo_groups(STREAM)
    return int(group["entries-read"] or 0), int(group["pending"])


async def _watched(pid: int, client: redis.asyncio.Redis, connection: asyncpg.Connection, case: Case) -> Seen:
    process, seen = psutil.Process(pid), Seen()
    deadline = time.monotonic() + GIVE_UP
    while True:
        memory = process.memory_info().rss / 1e6
        delivered, pending = await _group(client)
        now = time.monotonic()
        if delivered > pending and seen.begun is None:
            seen.begun, seen.begun_with = now, delivered - pending
        if delivered <= case.entries / 10:
            seen.first_mb = max(seen.first_mb, memory)
        seen.most_mb = max(seen.most_mb, memory)
        seen.pending = max(seen.pending, pending)
        if case.mark is not None:
            seen.waiting = max(seen.waiting, await due_work.waiting(connection, 10 * case.mark))
        if delivered == case.entries and not pending:
            seen.ended, seen.cpu_seconds = now, sum(process.cpu_times()[:2])
            return seen
        if now > deadline:
            raise RuntimeError(f"{delivered:,} of {case.entries:,} entries, {pending} pending")
        await asyncio.sleep(LOOK)


async def _right(connection: asyncpg.Connection, case: Case) -> None:
    """Raises RuntimeError unless each entry that had to start a run started one, and no other did."""
    found = await connection.fetchrow(_RUNS, case.one_in)
    assert found is not None
    if set(found.values()) != {case.runs}:
        raise RuntimeError(f"{dict(found)} where {case.runs} runs were to be requested, one for each entry")


async def _done(connection: asyncpg.Connection, case: Case) -> None:
    query = "SELECT count(*) FROM events WHERE type = 'RunSucceeded'"
    deadline = time.monotonic() + GIVE_UP
    while (count := await connection.fetchval(query)) < case.runs:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{count} of {case.runs} runs succeeded")
        await asyncio.sleep(0.5)


async def measured(case: Case, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """One backlog, in the fresh database and the emptied Redis that `serving.environment` names."""
    tell(f"backlog: {case.entries:,} entries, one in {case.one_in} starts a run")
    await asyncio.to_thread(serving.prepare)
    environment = serving.environment(0)
    if case.mark is not None:
        environment["ORDINAUT_QUEUE_HIGH_WATER"] = str(case.mark)
    database = environment["ORDINAUT_DATABASE_URL"]
    connection = await asyncpg.connect(database)
    client = redis.asyncio.Redis.from_url(environment["ORDINAUT_REDIS_URL"])
    try:
        await _listen(connection, database, case)
        await _fill(client, case)
        with ExitStack() as stack:
            for roles in case.roles:
                stack.enter_context(running([*serving.program(), "serve", *roles.split()], environment))
            pid = stack.enter_context(running([*serving.program(), "serve", "intake"], environment))
            try:
                seen = await _watched(pid, client, connection, case)
            except psutil.Error as error:
                raise RuntimeError(f"intake ended on its own: {error}") from error
            if case.roles:
                await _done(connection, case)
        await _right(connection, case)
    finally:
        await client.aclose()
        await connection.close()
    return [_figures(case, seen)]


def _figures(case: Case, seen: Seen) -> dict[str, Any]:
    assert seen.begun is not None
    return {
        "entries": case.entries,
        "one_in": case.one_in,
        "mark": case.mark,
        "entries_per_s": (case.entries - seen.begun_with) / (seen.ended - seen.begun),
        "cpu_us_per_entry": seen.cpu_seconds / case.entries * 1e6,
        "first_mb": seen.first_mb,
        "most_mb": seen.most_mb,
        "memory_ratio": seen.most_mb / seen.first_mb,
        "pending": seen.pending,
        "waiting": seen.waiting if case.mark else None,
        "waiting_ratio": seen.waiting / case.mark if case.mark else None,
    }
