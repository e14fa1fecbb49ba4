"""The ground chaos is made on: two tasks, a load with a seed, and everything that must be true in the end.

`orders` listens to a stream and does something outside in two of its steps (XADD to `effects`, where
every call leaves a trace); `ticks` is on a schedule. Whatever happened, `settle` waits until all is done
and `check` then looks at the log and at the traces.
"""

import asyncio
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ordinaut.domain import ids
from ordinaut.domain import task as task_decisions
from ordinaut.domain.definition import parse_definition
from ordinaut.domain.schedules.spec import parse_schedule
from ordinaut.domain.task import task_stream
from ordinaut.log.append import Append
from ordinaut.log.database import connect
from ordinaut.log.relay import STREAM
from ordinaut.runtime.system import System
from projections.rebuild import verify
from projections.registry import all_projections
from tests.support.eventually import eventually

POLICY = {"max_attempts": 100, "overlap": "allow", "catch_up": "all"}

ORDERS: dict[str, Any] = {
    "name": "orders",
    "on": {"stream": "orders", "where": "data.amount > `100`", "input": {"id": "${data.id}"}},
    "pipeline": [
        {"id": "reserve", "uses": "stream.add", "with": {"stream": "effects", "data": {"id": "${input.id}"}}},
        {"id": "think", "uses": "debug.echo", "with": {"entry": "${steps.reserve.id}"}},
        {"id": "tell", "uses": "stream.add", "with": {"stream": "effects", "data": "${steps.think.entry}"}},
    ],
    "policy": POLICY,
}
TICKS: dict[str, Any] = {
    "name": "ticks",
    "schedule": {"every": "1s"},
    "pipeline": [{"id": "tick", "uses": "debug.echo", "with": {"at": "${run.cause.at}"}}],
    "policy": POLICY,
}
RETRY = {"max_attempts": 50, "backoff": "constant", "base": "200ms", "jitter": False}


@dataclass
class Ground:
    """A load on two tasks. `sent` maps the entries that were acknowledged to their amounts."""

    system: System
    redis: Redis
    rng: random.Random
    sent: dict[str, int] = field(default_factory=dict)
    paused: bool = False
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _load: "asyncio.Task[None] | None" = None

    async def begin(self, *, per_second: float) -> None:
        """Create the tasks and start adding orders."""
        for step in ORDERS["pipeline"]:
            step.setdefault("retry", RETRY)
        for document in (ORDERS, TICKS):
            await self._create(document)
        self._load = asyncio.create_task(self._add(per_second))

    async def _create(self, document: dict[str, Any]) -> None:
        now = self.system.time.now()
        definition = parse_definition(document, created_at=now, known_tools=None).normalised()
        plan = []
        if "on" not in definition["schedule"]:
            at = parse_schedule(definition["schedule"], created_at=now).next_after(now)
            assert at is not None
            plan = [{"at": at.isoformat()}]
        task = await self.system.tasks.load(ids.task_id("default", document["name"]))
        events = task_decisions.create(task, document["name"], definition, plan, "test", created_at=now)
        await self.system.appender.append(Append(task_stream(task.id), 0, events, "default", "test", "test"))

    async def _add(self, per_second: float) -> None:
        number = 0
        while not self._stop.is_set():
            await asyncio.sleep(self.rng.expovariate(per_second))
            if self.paused:
                continue
            number += 1
            amount = self.rng.randrange(200)
            try:
                entry = await self.redis.xadd(
                    "orders", {"data": orjson.dumps({"id": number, "amount": amount})}
                )
            except (RedisError, OSError):
                continue  # not acknowledged: nobody promised anything
            self.sent[entry.decode()] = amount

    async def end_load(self) -> None:
        """Stop adding orders."""
        self._stop.set()
        assert self._load is not None
        await self._load

    @property
    def wanted(self) -> set[str]:
        """The entries that must have a run."""
        return {entry for entry, amount in self.sent.items() if amount > 100}

    async def settle(self, timeout: float = 90.0) -> None:
        """Wait until every wanted entry has a run and no order waits for anything any more."""

        async def done() -> bool:
            rows = await self.system.pool.fetch(
                "SELECT e.data#>>'{cause,id}' AS entry, r.state FROM runs r"
                " JOIN events e ON e.stream = 'run-' || r.id AND e.version = 1 WHERE r.task = 'orders'"
            )
            ended = {row["entry"] for row in rows if row["state"] == "succeeded"}
            assert ended >= self.wanted, (
                f"{len(self.wanted - ended)} of {len(self.wanted)} entries unfinished"
            )
            return True

        await eventually(done, timeout=timeout, every=0.2)

    async def check(self) -> None:
        """Everything that must be true, read from the log itself."""
        await self._check_orders()
        await self._check_steps()
        await self._check_ticks()
        await self._check_order_of_the_log()
        await self.check_projections()

    async def _check_orders(self) -> None:
        rows = await self.system.pool.fetch(
            "SELECT data#>>'{cause,id}' AS entry FROM events"
            " WHERE type = 'RunRequested' AND data->>'name' = 'orders'"
        )
        runs = Counter(row["entry"] for row in rows)
        twice = {entry: count for entry, count in runs.items() if count > 1}
        assert not twice, f"entries with more than one run (I7): {twice}"
        assert self.wanted <= set(runs), "an acknowledged entry has no run (I1)"
        assert not {entry for entry, amount in self.sent.items() if amount <= 100} & set(runs)
        states = await self.system.pool.fetch(
            "SELECT type, count(*) FROM events WHERE type IN ('RunFailed', 'RunParked') GROUP BY type"
        )
        assert not states, f"runs that did not succeed: {states}"

    async def _check_steps(self) -> None:
        rows = await self.system.pool.fetch(
            "SELECT substr(stream, 5) AS run, data->>'step' AS step, at FROM events"
            " WHERE type = 'StepSucceeded'"
        )
        recorded = {f"{row['run']}/{row['step']}": row["at"] for row in rows}
        assert len(recorded) == len(rows), "a step was recorded as done twice (I9)"
        late = []
        for entry, fields in await self.redis.xrange("effects"):
            at = int(entry.partition(b"-")[0]) / 1000
            key = fields[b"ordinaut-key"].decode()
            # Attempts before the record are what at-least-once means; after it there is none.
            if key in recorded and at > recorded[key].timestamp() + 0.005:
                late.append((key, at - recorded[key].timestamp()))
        assert not late, f"finished steps that were done again (I9): {late}"

    async def _check_ticks(self) -> None:
        rows = await self.system.pool.fetch(
            """SELECT type, data, (data#>>'{cause,at}')::timestamptz AS at FROM events
                WHERE type IN ('RunRequested', 'OccurrenceSkipped') AND data->>'name' = 'ticks'"""
        )
        instants: list[datetime] = []
        for row in rows:
            if row["type"] == "RunRequested":
                instants.append(row["at"])
            else:
                first, last = (datetime.fromisoformat(row["data"][name]) for name in ("from", "to"))
                count = row["data"]["count"]
                assert (last - first) / timedelta(seconds=1) == count - 1
                instants += [first + timedelta(seconds=n) for n in range(count)]
        instants.sort()
        assert len(instants) > 1
        gaps = [(a, b) for a, b in itertools.pairwise(instants) if b - a != timedelta(seconds=1)]
        assert not gaps, f"instants without a verdict, or with two (I7, I8): {gaps}"

    async def _check_order_of_the_log(self) -> None:
        positions = [row[0] for row in await self.system.pool.fetch("SELECT position FROM events ORDER BY 1")]
        assert positions == list(range(1, len(positions) + 1)), "the log has a gap (I2)"

    async def check_projections(self) -> None:
        """`projections verify` finds nothing (I5)."""
        connection = await connect(self.system.settings.database_url)
        try:
            for projection in all_projections().values():
                verdict = await verify(connection, projection)
                assert verdict.agrees, f"{verdict}"
        finally:
            await connection.close()

    async def check_redis_log(self) -> None:
        """The relay has published the whole log, each event under its position, without a gap (I6)."""

        async def whole() -> bool:
            head: int = await self.system.pool.fetchval("SELECT position FROM log_head")
            entries = [int(entry.partition(b"-")[0]) for entry, _ in await self.redis.xrange(STREAM)]
            assert entries == list(range(1, head + 1)), f"{entries[:3]}…{entries[-3:]} of {head}"
            return True

        await eventually(whole, timeout=30, every=0.1)
