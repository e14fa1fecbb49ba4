"""Carrying out one leased run, step by step, each recorded before the next begins."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, cached_property
from typing import Any

import structlog
from prometheus_client import Histogram
from structlog.typing import FilteringBoundLogger

from ordinaut.domain import pipeline
from ordinaut.domain.definition import CompiledStep, Definition
from ordinaut.domain.errors import NotFound
from ordinaut.domain.events import NewEvent, reference
from ordinaut.domain.expressions import ExpressionError
from ordinaut.domain.pipeline import Failure
from ordinaut.domain.run import Run, fold, hand_back, run_stream, step_record
from ordinaut.log.read import read_stream
from ordinaut.runtime.metrics import LEASES, STEP_SECONDS
from ordinaut.runtime.system import System
from ordinaut.work.record import LeaseLost, record
from ordinaut.work.tools.base import Services, StepContext, Tool
from ordinaut.work.tools.call import call_immediate, call_tool
from ordinaut.work.tools.errors import ToolError
from ordinaut.work.tools.registry import Registry


@dataclass(slots=True)
class Draining:
    """Whether the worker is stopping: runs are then handed back at the next step."""

    on: bool = False


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every execution of one worker shares."""

    system: System
    worker: str
    registry: Registry
    services: Services
    draining: Draining


class Execution:
    """One run in this worker's hands. `carry_out` returns when the run ended, was put off or handed
    back; it raises `LeaseLost` when it is not ours any more."""

    def __init__(self, shop: Workshop, run: Run, definition: Definition) -> None:
        self._shop = shop
        self._run = run
        self._definition = definition
        self._pending: list[NewEvent] = []
        self._last_output: Any = None

    @cached_property
    def _log(self) -> FilteringBoundLogger:
        run = self._run
        log: FilteringBoundLogger = structlog.get_logger(
            "ordinaut.work", run=run.id, task=run.task, correlation=run.correlation
        )
        return log

    async def carry_out(self) -> None:
        """Go through the remaining steps; the run's state tells how it was left."""
        run = self._run
        for step in self._definition.steps:
            known = run.steps.get(step.id)
            if known is not None and known.state == "succeeded":
                self._last_output = known.output
        for step in pipeline.remaining_steps(self._definition, run):
            if self._shop.draining.on:
                await self.hand_back()
                return
            if not await self._do(step):
                return
        await self._record([pipeline.run_succeeded(run, self._last_output)])

    async def hand_back(self) -> None:
        """Give the run to whoever leases it next, without counting the attempt.

        Where this worker was stopped while it recorded something, that may stand in the log unseen: the
        run is then read again, and handed back behind it.
        """
        try:
            await self._hand_back()
        except LeaseLost:
            async with self._shop.system.pool.acquire() as connection:
                events = await read_stream(connection, run_stream(self._run.id))
            if events[-1].actor != f"worker:{self._shop.worker}":
                raise
            self._run = fold(self._run.id, events)
            if self._run.state != "running":
                return
            await self._hand_back()
        LEASES.labels("handed_back").inc()
        self._log.info("run.handed_back")

    async def _hand_back(self) -> None:
        await self._record([hand_back(self._run, self._shop.system.time.now())])

    async def _do(self, step: CompiledStep) -> bool:
        """Do one step; says whether the run goes on."""
        run, now = self._run, self._shop.system.time.now()
        seen = pipeline.scope(self._definition, run, now)
        attempt = pipeline.step_attempt(run, step)
        given: Any = None
        tool: Tool | None = None
        try:
            if not pipeline.wanted(step, seen):
                await self._note(pipeline.skipped(step))
                return True
            given = step.with_template.render(seen)
            tool = self._shop.registry.get(step.tool)
            output = await self._call(tool, step, given, attempt, now)
        except (ExpressionError, NotFound, ToolError) as error:
            return await self._failed(step, attempt, given, _failure(error), now)
        finished = self._shop.system.time.now()
        _step_seconds(step.tool, "succeeded").observe((finished - now).total_seconds())
        event = pipeline.succeeded(step, attempt, given, output, now, finished)
        self._last_output = output
        # What an immediate tool gave is a pure function of what is in the log already: it goes into
        # the next append. Anything else is on disk before the next step begins.
        await self._note(event, flush=tool.immediate is None and not self._is_last(step))
        return True

    def _is_last(self, step: CompiledStep) -> bool:
        return step is self._definition.steps[-1]

    async def _call(self, tool: Tool, step: CompiledStep, given: Any, attempt: int, now: datetime) -> Any:
        if tool.immediate is not None:
            return call_immediate(tool, given)
        run = self._run
        left = (self._deadline() - now).total_seconds()
        if left <= 0:
            raise self._too_long()
        context = StepContext(
            run.id, run.task, run.space, step.id, attempt, f"{run.id}/{step.id}", run.correlation,
            f"worker:{self._shop.worker}", reference(run_stream(run.id), run.stream_version), run.depth,
            run.simulate, self._shop.services, self._log,
        )  # fmt: skip
        try:
            return await call_tool(tool, given, context, min(step.timeout_seconds, left))
        except ToolError as error:
            # Told by the limit itself: another look at the time might fall just before the deadline.
            if left < step.timeout_seconds and (error.details or {}).get("timeout") == left:
                raise self._too_long() from error
            raise

    def _too_long(self) -> ToolError:
        return ToolError(f"the run took longer than its timeout of {self._timeout:g} s", retryable=False)

    @property
    def _timeout(self) -> float:
        return self._definition.policy.timeout

    def _deadline(self) -> datetime:
        assert self._run.timed_from is not None
        return self._run.timed_from + timedelta(seconds=self._timeout)

    async def _failed(
        self, step: CompiledStep, attempt: int, given: Any, failure: Failure, began: datetime
    ) -> bool:
        finished = self._shop.system.time.now()
        events, run_at = pipeline.failed(
            self._run, step, attempt, given, failure, began, finished, random.random()
        )
        _step_seconds(step.tool, "failed").observe((finished - began).total_seconds())
        self._log.warning("step.failed", step=step.id, attempt=attempt, error=failure.message, retry=run_at)
        await self._record(events)
        return False

    async def _note(self, event: NewEvent, *, flush: bool = False) -> None:
        """Add an event to what the next append records, and let the next step see its output."""
        self._pending.append(event)
        if flush:
            await self._record([])
        else:
            self._run.steps[event.data["step"]] = step_record(event.type, event.data)

    async def _record(self, events: list[NewEvent]) -> None:
        everything, self._pending = [*self._pending, *events], []
        await record(self._shop.system, self._shop.worker, self._run, everything)


@cache
def _step_seconds(tool: str, outcome: str) -> Histogram:
    return STEP_SECONDS.labels(tool, outcome)


def _failure(error: Exception) -> Failure:
    if isinstance(error, ToolError):
        return Failure(str(error), error.retryable, error.details or {}, error.retry_after)
    return Failure(str(error), False, {})
