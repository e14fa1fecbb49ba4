"""Backfills: what one would run, beginning and stopping it, and how far those that were begun have got."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request

from ordinaut.api import openapi
from ordinaut.api.bodies import flag_field, instant_field, text_field
from ordinaut.api.door import Answer, Command, Direct, Door, caller_of, command, door_of, query, recorded
from ordinaut.api.queries import Query, to_cursor
from ordinaut.api.taskcommands import id_of, load_task, looks_like_id
from ordinaut.domain import backfill as decisions
from ordinaut.domain.backfill import (
    MOST_PARALLEL,
    ORDERS,
    Backfill,
    Wanted,
    backfill_stream,
    evolve,
    fold,
)
from ordinaut.domain.errors import Fault, Invalid, NotFound, NotPossible, VersionConflict
from ordinaut.domain.planned import Planned
from ordinaut.domain.task import Task, require_existing, task_stream
from ordinaut.log.read import read_stream
from ordinaut.runtime.backfill import past_occurrences
from projections import backfills as backfills_table

router = APIRouter(prefix="/v1", tags=["backfills"], route_class=Direct)

HOW = {
    "dry_run": openapi.FLAG,
    "max_parallel": {"type": "integer", "minimum": 1, "maximum": MOST_PARALLEL, "default": 1},
    "order": {"type": "string", "enum": list(ORDERS), "default": "oldest"},
    "rerun": openapi.FLAG | {"description": "Also what has a run already."},
    "reason": openapi.TEXT,
}
"""The fields of a body that say how to run what it asks for."""

_FIELDS = {
    "from": openapi.INSTANT,
    "to": openapi.INSTANT | {"description": "Not included; now, unless given."},
    **HOW,
}


@router.post(
    "/tasks/{name_or_id}/backfill",
    status_code=202,
    openapi_extra=openapi.body(_FIELDS, required=("from",)),
)
@command
async def backfill_task(command: Command) -> Answer:
    """Run past instants of a task's schedules that have no run.

    They are those of the rules that were in force at the time, from `from` up to `to`. With `dry_run: true`
    nothing is done: the answer is 200 with each instant and whether it would run.
    """
    body = command.body(tuple(_FIELDS), ("from",))
    since, until = _between(body, command.now)
    wanted = Wanted(since.isoformat(), until.isoformat(), **how(body))

    async def find(task: Task) -> tuple[Wanted, Sequence[Planned]]:
        async with command.system.pool.acquire() as connection:
            found = await past_occurrences(connection, task.id, since, until)
        if found is None:
            raise NotPossible(f"the task {task.name!r} has never had a schedule that names instants")
        return wanted, found

    return await begin(command, find, dry=flag_field(body, "dry_run"))


Find = Callable[[Task], Awaitable[tuple[Wanted, Sequence[Planned]]]]
"""What is wanted of a task, and what there is, oldest first."""


async def begin(command: Command, find: Find, *, dry: bool) -> Answer:
    """Begin a backfill of the task that the path names; `dry`: only show what it would do."""
    name_or_id = command.request.path_params["name_or_id"]
    backfill_id = command.fresh_id()
    task = await load_task(command.door, command.space, name_or_id)
    require_existing(task, task.name)
    wanted, found = await find(task)
    if dry:
        return Answer(200, _plan(task, wanted, found))
    item = command.append(
        backfill_stream(backfill_id),
        0,
        decisions.request(task, wanted, found),
        requires={task_stream(task.id): task.stream_version},
    )
    try:
        appended = await command.system.appender.append(item)
    except VersionConflict as conflict:
        if conflict.stream != item.stream:
            raise
        # This request was here before, and got so far.
        return _begun(await _load(command.door, command.space, backfill_id), None)
    return _begun(fold(backfill_id, recorded(item, appended)), appended.position)


def _between(body: Mapping[str, Any], now: datetime) -> tuple[datetime, datetime]:
    """The instants a body asks for: from the first, up to the second. Raises Invalid naming every fault."""
    since, until = instant_field(body, "from"), instant_field(body, "to")
    faults: list[Fault] = []
    if since is None:
        faults.append(Fault("/from", "must not be null", "the first instant to look at"))
    if until is not None and until > now:
        hint = f"leave it out for now, which is {now.isoformat()}"
        faults.append(Fault("/to", "is ahead; only what is past can be run after all", hint))
    elif since is not None and since >= (until or now):
        faults.append(Fault("/from", "must be before `to`, which is now unless it is given"))
    if faults or since is None:
        raise Invalid.all_of([*faults, *_faults_in_how(body)])
    return since, until or now


def how(body: Mapping[str, Any]) -> dict[str, Any]:
    """How a body wants it run: the arguments of `Wanted`. Raises Invalid naming every fault."""
    if faults := _faults_in_how(body):
        raise Invalid.all_of(faults)
    return {
        "order": body.get("order", ORDERS[0]),
        "max_parallel": body.get("max_parallel", 1),
        "rerun": flag_field(body, "rerun"),
        "reason": text_field(body, "reason"),
    }


def _faults_in_how(body: Mapping[str, Any]) -> list[Fault]:
    order, max_parallel = body.get("order", ORDERS[0]), body.get("max_parallel", 1)
    faults: list[Fault] = []
    if order not in ORDERS:
        faults.append(Fault("/order", f"{str(order)[:60]!r} is not known", "oldest or newest (first)"))
    if (
        not isinstance(max_parallel, int)
        or isinstance(max_parallel, bool)
        or not (1 <= max_parallel <= MOST_PARALLEL)
    ):
        faults.append(Fault("/max_parallel", "must be a whole number", f"1 to {MOST_PARALLEL}"))
    return faults


def _plan(task: Task, wanted: Wanted, found: Sequence[Planned]) -> dict[str, Any]:
    """What a backfill would do, item by item, in the order it would do it in."""
    return {
        "task": task.name,
        "task_id": task.id,
        "source": wanted.source.public(),
        "from": wanted.since,
        "to": wanted.until,
        "order": wanted.order,
        "max_parallel": wanted.max_parallel,
        "rerun": wanted.rerun,
        "counts": wanted.counts(found),
        "items": [one.public(rerun=wanted.rerun) for one in wanted.sorted(found)],
        "next": None,
    }


def _begun(backfill: Backfill, position: int | None) -> Answer:
    body = {
        "backfill": backfill.id,
        "task": backfill.task,
        "state": backfill.state,
        "counts": backfill.counts,
    }
    return Answer(202, body, position, {"Location": f"/v1/backfills/{backfill.id}"})


@router.get(
    "/backfills",
    openapi_extra=openapi.parameters(
        limit="", after="", task="", state="running, stopped or finished.", wait=""
    ),
)
@query("backfills")
async def list_backfills(request: Request) -> dict[str, Any]:
    """The backfills, newest first. `task` is a name or id, `state` running, stopped or finished."""
    asked = Query(request, ("limit", "after", "task", "state"))
    limit, space, task = asked.limit(), caller_of(request).space, asked.text("task")
    async with door_of(request).system.pool.acquire() as connection:
        found = await backfills_table.list_backfills(
            connection,
            space,
            before=asked.cursor_position(2**63 - 1),
            limit=limit + 1,
            task_id=id_of(space, task) if task else None,
            state=asked.choice("state", backfills_table.STATES),
        )
    more = len(found) > limit
    return {
        "items": [one for _, one in found[:limit]],
        "next": to_cursor(found[limit - 1][0]) if more else None,
    }


@router.get("/backfills/{backfill_id}", openapi_extra=openapi.parameters(wait=""))
@query("backfills")
async def get_backfill(request: Request) -> dict[str, Any]:
    """One backfill: how many of its runs were asked for, and what came of them."""
    Query(request, ())
    door, space = door_of(request), caller_of(request).space
    backfill_id = request.path_params["backfill_id"]
    if looks_like_id(backfill_id):
        async with door.system.pool.acquire() as connection:
            found = await backfills_table.get_backfill(connection, space, backfill_id)
        if found is not None:
            return found
    # In the log, maybe, and not in the read table yet.
    return await _public(door, await _load(door, space, backfill_id))


@router.post("/backfills/{backfill_id}/stop", openapi_extra=openapi.body({"reason": openapi.TEXT}))
@command
async def stop_backfill(command: Command) -> Answer:
    """Ask for no more of a backfill's runs; those under way go on. Stopping twice changes nothing."""
    reason = text_field(command.body(("reason",)), "reason")
    backfill = await _load(command.door, command.space, command.request.path_params["backfill_id"])
    events = decisions.stop(backfill, reason)
    if not events:
        return Answer(200, await _public(command.door, backfill))
    item = command.append(
        backfill_stream(backfill.id), backfill.stream_version, events, correlation=backfill.correlation
    )
    appended = await command.system.appender.append(item)
    for event in recorded(item, appended):
        evolve(backfill, event)
    return Answer(200, await _public(command.door, backfill), appended.position)


async def _load(door: Door, space: str, backfill_id: str) -> Backfill:
    """The backfill as the log has it now. Raises NotFound."""
    if looks_like_id(backfill_id):
        async with door.system.pool.acquire() as connection:
            events = await read_stream(connection, backfill_stream(backfill_id.lower()))
        if events and events[0].space == space:
            return fold(backfill_id.lower(), events)
    raise NotFound(f"there is no backfill with the id {backfill_id[:100]!r}")


async def _public(door: Door, backfill: Backfill) -> dict[str, Any]:
    async with door.system.pool.acquire() as connection:
        return await backfills_table.with_numbers(connection, backfill)
