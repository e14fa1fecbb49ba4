"""The worker: leases runs, carries them out side by side, keeps their leases alive, drains at the end."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import asyncpg
import httpx
import structlog
from redis.asyncio import Redis

from ordinaut.domain.definition import Definition
from ordinaut.domain.errors import Unavailable
from ordinaut.domain.run import Run
from ordinaut.log.database import OUTAGE, connect, create_pool
from ordinaut.log.wake import CANCELED, PROJECTED, Wake
from ordinaut.runtime.metrics import LEASES
from ordinaut.runtime.system import System
from ordinaut.work.eager import EagerLease, Rows
from ordinaut.work.execute import Draining, Execution, Workshop
from ordinaut.work.lease import NEXT_RUN_AT, RENEW_LEASES, Leased, folded, lease_due_work, settle
from ordinaut.work.publisher import Publisher
from ordinaut.work.record import LeaseLost, measure, record_all
from ordinaut.work.tools.base import StepContext
from ordinaut.work.tools.http import new_client
from ordinaut.work.tools.registry import Registry

BATCH = 1000

LULL_SECONDS = 0.02
"""When nothing woke the worker for so long, it asks when the next run that is put off is due. Asked after
each lease, it would be in the way of the first step of what was leased."""

logger = structlog.get_logger(__name__)


class StepServices:
    """What tools get from outside (see work/tools/base.py)."""

    def __init__(self, http: httpx.AsyncClient, redis: Redis, publisher: Publisher) -> None:
        self._http = http
        self._redis = redis
        self._publisher = publisher

    @property
    def http(self) -> httpx.AsyncClient:
        """The shared HTTP client."""
        return self._http

    @property
    def redis(self) -> Redis:
        """The Redis where streams are."""
        return self._redis

    async def publish(self, stream: str, data: Any, context: StepContext) -> dict[str, Any]:
        """Accept an event as `POST /v1/events` does, once per idempotency key."""
        return await self._publisher.publish(stream, data, context)


@dataclass(slots=True, eq=False)
class Held:
    """A run in this worker's hands: the task that carries it out, shared with others of its lease as long
    as there is nothing to wait for."""

    run: Run
    task: "asyncio.Task[None]"
    shared: bool = True
    execution: Execution | None = None


class Worker:
    """Carries out runs until told to stop, at most `worker_concurrency` at a time. `name` is unique to
    the process; it is in the leases and in the actor of the events."""

    def __init__(self, system: System, registry: Registry) -> None:
        self._system = system
        self._registry = registry
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._held: dict[str, Held] = {}
        self._wake = Wake()
        self._draining = Draining()
        self._more_due = False
        self._waits = False
        self._eager = EagerLease(self.name, system.settings.lease_seconds, self._eager_room)
        self._asked = 0
        self._settling: dict[asyncio.Task[None], int] = {}
        self._leases: asyncpg.Pool | None = None
        self._own: asyncpg.Connection | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Lease and carry out runs until `stop` is set, then drain: steps that are under way get
        `drain_seconds` to finish, and what is not done by then is handed back."""
        system = self._system
        unhear = [
            system.notifications.hear(PROJECTED, self._heard_projected),
            system.notifications.hear(CANCELED, self._heard_canceled),
        ]
        leases = create_pool(system.settings.database_url, size=2, durable=False)
        async with new_client() as http, await leases as self._leases:
            services = StepServices(http, system.redis, Publisher(system))
            shop = Workshop(system, self.name, self._registry, services, self._draining)
            self._eager.begin(system.appender, partial(self._take, shop))
            beside = [
                asyncio.create_task(self._wake_at(stop), name="worker-stop"),
                asyncio.create_task(self._heartbeat(), name="heartbeat"),
            ]
            logger.info("worker.ready", worker=self.name, concurrency=system.settings.worker_concurrency)
            try:
                while not stop.is_set():
                    await self._eager.give_way()
                    if seconds := await self._round(shop):
                        await self._wake.wait(seconds)
                await self._drain()
            finally:
                # Where it was cut off, too: what an append under way still leases is handed back.
                self._draining.on = True
                self._eager.end(system.appender)
                for forget in unhear:
                    forget()
                tasks = [*beside, *self._settling, *[held.task for held in self._held.values()]]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                if self._own is not None:
                    with suppress(*OUTAGE):
                        await self._own.close(timeout=2)

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        # Not only when the round under way has ended: by then a step may have, and the next one begun.
        self._draining.on = True
        self._wake.set()

    def _heard_projected(self, projection: str) -> None:
        if projection in ("due_work", ""):
            self._wake.set()

    def _heard_canceled(self, run_id: str) -> None:
        self._let_go(run_id)

    def _let_go(self, run_id: str) -> None:
        # What a shared task goes on to record of it is refused: it is fenced by the stream's version (I4).
        if (held := self._held.pop(run_id, None)) and not held.shared:
            held.task.cancel()

    def _room(self) -> int:
        """How many runs to lease now. A small lease costs as much as a large one, so with most hands
        busy the worker waits for more of them to come free."""
        concurrency = self._system.settings.worker_concurrency
        # A round and an append may lease at one time: neither is given hands that the other may fill.
        spoken_for = self._asked + self._eager.reserved + sum(self._settling.values())
        free = concurrency - len(self._held) - spoken_for
        return min(free, BATCH) if not self._held or free >= concurrency // 4 else 0

    def _eager_room(self) -> int:
        """How many runs to lease along with an append: none while more is due than was leased, because rounds
        then lease as many at once as they can."""
        return 0 if self._more_due or self._draining.on else self._room()

    async def _round(self, shop: Workshop) -> float:
        """Lease what there is room for; answers with how long to wait for a wake-up (seconds), 0 where it
        has waited and was woken."""
        poll = self._system.settings.poll_seconds
        room = self._room()
        if room == 0:
            self._more_due = True
            return poll
        try:
            leased = await self._lease(room)
            if self._waits:
                logger.info("worker.recovered")
            self._waits = False
            self._more_due = len(leased.runs) + leased.others >= room
            self._hold(shop, leased.runs)
            if self._more_due or await self._wake.wait(LULL_SECONDS):
                return 0.0
            return await self._until_next(poll)
        except (Unavailable, *OUTAGE) as error:
            if not self._waits:
                logger.warning("worker.waits", error=str(error) or type(error).__name__)
            self._waits = True
            return poll

    async def _lease(self, room: int) -> Leased:
        seconds = self._system.settings.lease_seconds
        self._asked = room
        try:
            return await lease_due_work(self._system, self.name, room, seconds, await self._connection())
        finally:
            self._asked = 0

    def _hold(self, shop: Workshop, runs: Sequence[Run]) -> None:
        """Begin to carry out what was leased."""
        LEASES.labels("taken").inc(len(runs))
        for run in runs:
            # A lease of our own that ran out (a stall, an outage) may have come back to us: what
            # was begun under it does not count any more.
            self._let_go(run.id)
        if runs:
            task = asyncio.create_task(self._carry_out(shop, runs), name="runs")
            self._held |= {run.id: Held(run, task) for run in runs}

    def _take(self, shop: Workshop, rows: Rows) -> None:
        """Begin to carry out what was leased along with an append."""
        begun, others = folded(rows, self.name)
        self._hold(shop, begun)
        if others:
            settling = asyncio.create_task(self._settle(shop, others), name="settle")
            self._settling[settling] = len(others)
            settling.add_done_callback(self._settled)

    def _settled(self, settling: "asyncio.Task[None]") -> None:
        del self._settling[settling]
        self._go_on(False)

    async def _settle(self, shop: Workshop, others: Sequence[Run]) -> None:
        try:
            self._hold(shop, await settle(self._system, self.name, others))
        except (Unavailable, *OUTAGE) as error:
            # Left to their leases, as in a round that fails.
            logger.warning("worker.waits", error=str(error) or type(error).__name__)

    async def _connection(self) -> asyncpg.Connection:
        """The connection to lease on, its own: taking one from the pool and giving it back costs an eighth
        of what a small lease does, in front of every first step."""
        if self._own is None or self._own.is_closed():
            self._own = await connect(
                self._system.settings.database_url,
                synchronous_commit="on",
                idle_in_transaction_session_timeout="5s",
            )
        return self._own

    async def _until_next(self, poll: float) -> float:
        """Seconds until the next run that is put off is due, at most a poll."""
        async with (self._leases or self._system.pool).acquire() as connection:
            at: datetime | None = await connection.fetchval(NEXT_RUN_AT)
        if at is None:
            return poll
        return min(poll, max(0.0, (at - self._system.time.now()).total_seconds()) + 0.001)

    async def _carry_out(self, shop: Workshop, runs: Sequence[Run]) -> None:
        """Carry out what was leased together: as far as it goes at once, and recorded at once; a run that
        has to wait for something goes on on a task of its own."""
        mine = asyncio.current_task()
        held = [one for run in runs if (one := self._held.get(run.id)) and one.task is mine]
        try:
            definitions = await self._definitions(runs)
            ended: list[Held] = []
            for one in held:
                if self._held.get(one.run.id) is not one:  # let go meanwhile
                    continue
                try:
                    definition = definitions[one.run.task_id, one.run.task_version]
                    if isinstance(definition, BaseException):
                        raise definition
                    one.execution = Execution(shop, one.run, definition)
                    if one.execution.advance():
                        ended.append(one)
                    else:
                        one.shared = False
                        one.task = asyncio.create_task(self._wait_for(one), name=f"run-{one.run.id}")
                except Exception as error:
                    self._over(one, error)
            said = [(one.run, one.execution.pending()) for one in ended if one.execution]
            failures = await record_all(shop.system, self.name, said)
            for one, failure in zip(ended, failures, strict=True):
                self._over(one, failure)
            measure(one.run for one, failure in zip(ended, failures, strict=True) if failure is None)
        except asyncio.CancelledError:
            logger.info("runs.let_go", runs=len(runs))
            raise
        finally:
            for one in held:
                if one.shared and not self._draining.on:
                    self._forget(one)
            self._go_on(any(run.limited for run in runs))

    async def _definitions(self, runs: Sequence[Run]) -> dict[tuple[str, int], Definition | BaseException]:
        tasks = self._system.tasks
        wanted = {(run.task_id, run.task_version) for run in runs}
        found: dict[tuple[str, int], Definition | BaseException] = {
            key: known for key in wanted if (known := tasks.remembered_definition(*key))
        }
        if missing := list(wanted - found.keys()):
            read = await asyncio.gather(*[tasks.definition(*key) for key in missing], return_exceptions=True)
            found |= zip(missing, read, strict=True)
        return found

    async def _wait_for(self, held: Held) -> None:
        """Carry out the rest of a run that has to wait for something."""
        assert held.execution is not None
        try:
            await held.execution.carry_out()
        except asyncio.CancelledError:
            logger.info("run.let_go", **_named(held.run))
            if not self._draining.on:
                self._forget(held)
            raise
        except Exception as error:
            self._over(held, error)
        else:
            self._over(held, None)
            measure([held.run])
        finally:
            self._go_on(held.run.limited)

    def _over(self, held: Held, failure: BaseException | None) -> None:
        """A run has ended, was put off, or is not ours to carry out: tell what is wrong, and forget it."""
        run = held.run
        match failure:
            case None:
                pass
            case LeaseLost():
                LEASES.labels("lost").inc()
                logger.info("run.lost", reason=str(failure), **_named(run))
            case _ if isinstance(failure, OUTAGE):
                logger.warning("run.interrupted", error=str(failure) or type(failure).__name__, **_named(run))
            case _:
                # Left to its lease: it is tried again and parked in the end, with its attempts counted.
                logger.error("run.crashed", exc_info=failure, **_named(run))
        self._forget(held)

    def _forget(self, held: Held) -> None:
        if self._held.get(held.run.id) is held:
            del self._held[held.run.id]

    def _go_on(self, limited: bool) -> None:
        # Where a concurrency limit was met, one of its key may go now.
        if limited or (self._more_due and self._room()):
            self._wake.set()

    async def _heartbeat(self) -> None:
        """Renew the leases three times in their life; let go of runs that are not ours any more."""
        seconds = self._system.settings.lease_seconds
        while True:
            await asyncio.sleep(seconds / 3)
            held = {run_id: held.task for run_id, held in self._held.items()}
            if not held:
                continue
            try:
                async with (self._leases or self._system.pool).acquire() as connection:
                    rows = await connection.fetch(RENEW_LEASES, self.name, list(held), seconds)
            except OUTAGE as error:
                logger.warning("heartbeat.failed", error=str(error) or type(error).__name__)
                continue
            LEASES.labels("renewed").inc(len(rows))
            for run_id in held.keys() - {row[0] for row in rows}:
                # Unless it was put off and leased anew while we asked.
                if (now := self._held.get(run_id)) and now.task is held[run_id]:
                    self._let_go(run_id)

    async def _drain(self) -> None:
        """Finish the steps under way, hand back the rest, lose nothing."""
        self._draining.on = True
        deadline = time.monotonic() + self._system.settings.drain_seconds
        with suppress(TimeoutError):
            async with asyncio.timeout(self._system.settings.drain_seconds):
                await self._eager.answered()
                await asyncio.gather(*self._settling)
        if not self._held:
            return
        logger.info("worker.draining", runs=len(self._held))
        # Again, as long as there is time: a lease that was just taken gives its runs tasks of their own.
        while busy := {held.task for held in self._held.values() if not held.task.done()}:
            await asyncio.wait(busy, timeout=max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                break
        unfinished = [held for held in self._held.values() if not held.task.done()]
        for task in (stopped := {held.task for held in unfinished}):
            task.cancel()
        await asyncio.gather(*stopped, return_exceptions=True)
        for held in unfinished:
            if held.execution is not None:
                with suppress(LeaseLost, *OUTAGE):
                    await held.execution.hand_back()
        self._held.clear()


def _named(run: Run) -> dict[str, str]:
    return {"run": run.id, "task": run.task, "correlation": run.correlation}
