"""Carrying out one leased run, step by step, each recorded before the next begins."""

import random
from collections.abc import Collection
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
from ordinaut.domain.redact import NO_SECRETS, Blotter
from ordinaut.domain.run import Run, fold, hand_back, run_stream, step_record
from ordinaut.log.read import read_stream
from ordinaut.runtime.metrics import LEASES, STEP_SECONDS
from ordinaut.runtime.secrets import hidden_in_logs
from ordinaut.runtime.system import System
from ordinaut.work.record import LeaseLost, record
from ordinaut.work.secrets import take_secrets, with_marks
from ordinaut.work.tools.base import Services, StepContext
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


@dataclass(slots=True)
class _Begun:
    """A step that began: which attempt it is, when that was, what its tool is given, and what is recorded
    of that: marks for secrets, which `blotter` finds wherever else they come up."""

    step: CompiledStep
    attempt: int
    at: datetime
    given: Any = None
    shown: Any = None
    blotter: Blotter = NO_SECRETS


class Execution:
    """One run in this worker's hands.

    First `advance`. When that has brought the run to its end, what is left is to record `pending`; else
    `carry_out` does, once, what has to be waited for.
    """

    def __init__(self, shop: Workshop, run: Run, definition: Definition) -> None:
        self._shop = shop
        self.run = run
        self._definition = definition
        self._remaining = pipeline.remaining_steps(definition, run)
        self._begun: _Begun | None = None
        self._over = False
        self._pending: list[NewEvent] = []
        self._last_output: Any = None
        if run.steps:
            for step in definition.steps:
                known = run.steps.get(step.id)
                if known is not None and known.state == "succeeded":
                    self._last_output = known.output

    @cached_property
    def _log(self) -> FilteringBoundLogger:
        run = self.run
        log: FilteringBoundLogger = structlog.get_logger(
            "ordinaut.work", run=run.id, task=run.task, correlation=run.correlation
        )
        return log

    def advance(self) -> bool:
        """Do the remaining steps up to the first that has to be waited for; says whether there is none,
        and the run has ended or is put off."""
        for step in self._remaining:
            if self._shop.draining.on:
                return False
            self._begun = self._begin(step)
            if self._begun is not None:
                return False
            if self._over:
                return True
        self._pending.append(pipeline.run_succeeded(self.run, self._last_output))
        return True

    async def carry_out(self) -> None:
        """Wait for the step that `advance` began, and go on until the run has ended or was put off or
        handed back; its state tells which. Raises `LeaseLost` when it is not ours any more."""
        while True:
            begun, self._begun = self._begun, None
            if begun is None:
                await self.hand_back()
                return
            await self._wait_for(begun)
            if self._over or self.advance():
                break
        await self._record(self.pending())

    def pending(self) -> list[NewEvent]:
        """What is to be recorded, which from now on is the caller's to do."""
        events, self._pending = self._pending, []
        return events

    async def hand_back(self) -> None:
        """Give the run to whoever leases it next, without counting the attempt.

        Where this worker was stopped while it recorded something, that may stand in the log unseen: the
        run is then read again, and handed back behind it.
        """
        if self.run.state != "running":
            return
        try:
            await self._hand_back()
        except LeaseLost:
            async with self._shop.system.pool.acquire() as connection:
                events = await read_stream(connection, run_stream(self.run.id))
            if events[-1].actor != f"worker:{self._shop.worker}":
                raise
            self.run = fold(self.run.id, events)
            if self.run.state != "running":
                return
            await self._hand_back()
        LEASES.labels("handed_back").inc()
        self._log.info("run.handed_back")

    async def _hand_back(self) -> None:
        await self._record([*self.pending(), hand_back(self.run, self._shop.system.time.now())])

    def _begin(self, step: CompiledStep) -> _Begun | None:
        """Begin a step; one that need not be waited for is done at once, and None the answer."""
        run, now = self.run, self._shop.system.time.now()
        seen = pipeline.scope(self._definition, run, now, step.roots)
        begun = _Begun(step, pipeline.step_attempt(run, step), now)
        try:
            if not pipeline.wanted(step, seen):
                self._note(pipeline.skipped(step))
                return None
            begun.given = begun.shown = step.with_template.render(with_marks(step, seen))
            tool = self._shop.registry.get(step.tool)
            if step.secrets and not run.simulate:
                secrets = take_secrets(step, tool, self._shop.system.settings.secrets_dir)
                begun.blotter = Blotter(secrets.values())
                begun.given = step.with_template.render({**seen, "secrets": secrets})
            if tool.immediate is None:
                return begun
            with hidden_in_logs(begun.blotter):
                output = call_immediate(tool, begun.given, self._marked(step))
        except (ExpressionError, NotFound, ToolError) as error:
            self._failed(begun, _failure(error, begun.blotter))
        else:
            # What an immediate tool gave is a pure function of what is in the log already: it goes into
            # the next append.
            self._succeeded(begun, output)
        return None

    async def _wait_for(self, begun: _Begun) -> None:
        try:
            output = await self._call(begun)
        except (NotFound, ToolError) as error:
            self._failed(begun, _failure(error, begun.blotter))
            return
        self._succeeded(begun, output)
        # On disk before the next step begins; the end of the run is recorded with its last step.
        if begun.step is not self._definition.steps[-1]:
            await self._record(self.pending())

    def _succeeded(self, begun: _Begun, output: Any) -> None:
        step, finished = begun.step, self._shop.system.time.now()
        output = begun.blotter.value(output)
        _step_seconds(step.tool, "succeeded").observe((finished - begun.at).total_seconds())
        self._last_output = output
        self._note(pipeline.succeeded(step, begun.attempt, begun.shown, output, begun.at, finished))

    def _note(self, event: NewEvent) -> None:
        """Add an event to what the next append records, and let the next step see its output."""
        self._pending.append(event)
        self.run.steps[event.data["step"]] = step_record(event.type, event.data)

    async def _call(self, begun: _Begun) -> Any:
        run, step = self.run, begun.step
        left = (self._deadline() - begun.at).total_seconds()
        if left <= 0:
            raise self._too_long()
        context = StepContext(
            run.id, run.task, run.space, step.id, begun.attempt, f"{run.id}/{step.id}", run.correlation,
            f"worker:{self._shop.worker}", reference(run_stream(run.id), run.stream_version), run.depth,
            run.simulate, self._shop.services, self._log, self._marked(step),
        )  # fmt: skip
        try:
            tool = self._shop.registry.get(step.tool)
            with hidden_in_logs(begun.blotter):
                return await call_tool(tool, begun.given, context, min(step.timeout_seconds, left))
        except ToolError as error:
            # Told by the limit itself: another look at the time might fall just before the deadline.
            if left < step.timeout_seconds and (error.details or {}).get("timeout") == left:
                raise self._too_long() from error
            raise

    def _marked(self, step: CompiledStep) -> Collection[str]:
        return [place for place, _ in step.secrets] if self.run.simulate else ()

    def _too_long(self) -> ToolError:
        return ToolError(f"the run took longer than its timeout of {self._timeout:g} s", retryable=False)

    @property
    def _timeout(self) -> float:
        return self._definition.policy.timeout

    def _deadline(self) -> datetime:
        assert self.run.timed_from is not None
        return self.run.timed_from + timedelta(seconds=self._timeout)

    def _failed(self, begun: _Begun, failure: Failure) -> None:
        step, finished = begun.step, self._shop.system.time.now()
        events, run_at = pipeline.failed(
            self.run, step, begun.attempt, begun.shown, failure, begun.at, finished, random.random()
        )
        _step_seconds(step.tool, "failed").observe((finished - begun.at).total_seconds())
        self._log.warning(
            "step.failed", step=step.id, attempt=begun.attempt, error=failure.message, retry=run_at
        )
        self._pending += events
        self._over = True

    async def _record(self, events: list[NewEvent]) -> None:
        await record(self._shop.system, self._shop.worker, self.run, events)


@cache
def _step_seconds(tool: str, outcome: str) -> Histogram:
    return STEP_SECONDS.labels(tool, outcome)


def _failure(error: Exception, blotter: Blotter) -> Failure:
    message = blotter.error(str(error))
    if isinstance(error, ToolError):
        details = blotter.value(error.details or {}, cut=True)
        return Failure(message, error.retryable, details, error.retry_after)
    return Failure(message, False, {})
