"""/v1/runs: the runs there were, each with its steps; cancel and retry."""

from dataclasses import replace
from typing import Any

import asyncpg
import structlog
from fastapi import APIRouter, Request

from ordinaut.api import openapi
from ordinaut.api.bodies import text_field
from ordinaut.api.door import Answer, Command, Direct, Door, caller_of, command, door_of, query, recorded
from ordinaut.api.queries import Query, to_cursor
from ordinaut.api.taskcommands import id_of, looks_like_id
from ordinaut.domain import run as decisions
from ordinaut.domain.errors import NotFound
from ordinaut.domain.run import Run, evolve, fold, run_stream
from ordinaut.log.read import read_stream
from ordinaut.log.wake import CANCELED
from projections import runs as runs_table

router = APIRouter(prefix="/v1/runs", tags=["runs"], route_class=Direct)

STATES = ("queued", "running", "waiting", "succeeded", "failed", "canceled", "parked")

logger = structlog.get_logger(__name__)


async def load_run(door: Door, space: str, run_id: str) -> Run:
    """The run as the log has it now. Raises NotFound."""
    if looks_like_id(run_id):
        async with door.system.pool.acquire() as connection:
            events = await read_stream(connection, run_stream(run_id.lower()))
        if events and events[0].space == space:
            run = fold(run_id.lower(), events)
            if run.state == "skipped":
                raise NotFound(_why_not(run))
            return run
    raise NotFound(f"there is no run with the id {run_id[:100]!r}")


def _why_not(run: Run) -> str:
    """Why an occurrence has an id, and no run of it."""
    place = f"/v1/tasks/{run.task}/occurrences" if run.cause["kind"] == "schedule" else "/v1/log"
    query = f"?stream={run_stream(run.id)}" if place == "/v1/log" else ""
    return f"there is no run: this occurrence was {run.error['message']}; see GET {place}{query}"


@router.get(
    "", openapi_extra=openapi.parameters(limit="", after="", task="", state="", correlation="", wait="")
)
@query("runs")
async def list_runs(request: Request) -> dict[str, Any]:
    """The runs, newest first, without their steps. `task` is a name or id, `state` repeatable."""
    asked = Query(request, ("limit", "after", "task", "state", "correlation"), repeatable=("state",))
    limit, space, task = asked.limit(), caller_of(request).space, asked.text("task")
    async with door_of(request).system.pool.acquire() as connection:
        found = await runs_table.list_runs(
            connection,
            space,
            before=asked.cursor_position(2**63 - 1),
            limit=limit + 1,
            task_id=id_of(space, task) if task else None,
            states=asked.texts("state", STATES),
            correlation=asked.text("correlation"),
        )
    more = len(found) > limit
    return {
        "items": [run for _, run in found[:limit]],
        "next": to_cursor(found[limit - 1][0]) if more else None,
    }


@router.get("/{run_id}", openapi_extra=openapi.parameters(wait=""))
@query()
async def get_run(request: Request) -> dict[str, Any]:
    """One run with its steps, read from the log: always as fresh as it."""
    Query(request, ())
    run = await load_run(door_of(request), caller_of(request).space, request.path_params["run_id"])
    return runs_table.public_run(run)


@router.post("/{run_id}/cancel", openapi_extra=openapi.body({"reason": openapi.TEXT}))
@command
async def cancel_run(command: Command) -> Answer:
    """End a run that has not ended; the step under way is given up. Canceling twice changes nothing."""
    reason = text_field(command.body(("reason",)), "reason")
    run = await load_run(command.door, command.space, command.request.path_params["run_id"])
    events = decisions.cancel(run, reason)
    if not events:
        return Answer(200, runs_table.public_run(run))
    item = command.append(
        run_stream(run.id),
        run.stream_version,
        events,
        correlation=run.correlation,
    )
    appended = await command.system.appender.append(item)
    await _tell(command.system.pool, run.id)
    run = replace(run)
    for event in recorded(item, appended):
        evolve(run, event)
    return Answer(200, runs_table.public_run(run), appended.position)


async def _tell(pool: asyncpg.Pool, run_id: str) -> None:
    """Wake the worker that carries the run. Only a hint: it finds out at its next append in any case."""
    try:
        await pool.execute("SELECT pg_notify($1, $2)", CANCELED, run_id)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        logger.warning("api.cancel_not_told", run=run_id, error=str(error))


@router.post("/{run_id}/retry", status_code=202, openapi_extra=openapi.body({}))
@command
async def retry_run(command: Command) -> Answer:
    """Open a run that failed, was canceled or was parked again: it goes on behind its last finished step."""
    command.body(())
    run = await load_run(command.door, command.space, command.request.path_params["run_id"])
    events = decisions.retry(run, command.now)
    if not events:
        return Answer(202, {"run": run.id})
    item = command.append(run_stream(run.id), run.stream_version, events, correlation=run.correlation)
    appended = await command.system.appender.append(item)
    return Answer(202, {"run": run.id}, appended.position)
