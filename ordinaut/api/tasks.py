"""/v1/tasks: define, change, run and retire tasks, and see them."""

from typing import Any

from fastapi import APIRouter, Request

from ordinaut.api import openapi
from ordinaut.api.bodies import flag_field, parse_object
from ordinaut.api.closing import append_and_close
from ordinaut.api.door import Answer, Command, Direct, caller_of, command, door_of, query
from ordinaut.api.problems import BadRequest
from ordinaut.api.queries import Query, to_cursor
from ordinaut.api.spaces import spaced
from ordinaut.api.taskcommands import (
    after,
    as_answer,
    id_of,
    listen,
    load_task,
    looks_like_id,
    next_by_rule,
    public,
    read_definition,
)
from ordinaut.domain import task as decisions
from ordinaut.domain.errors import VersionConflict
from ordinaut.domain.ids import task_id
from ordinaut.domain.planning import plan_of
from ordinaut.domain.request import request_run
from ordinaut.domain.run import run_stream
from ordinaut.domain.schedules.zones import tz_version
from ordinaut.domain.task import Task, task_stream
from projections import tasks as tasks_table

router = APIRouter(prefix="/v1/tasks", tags=["tasks"], route_class=Direct)


@router.post("", status_code=201, openapi_extra=openapi.task_body())
@command
async def create_task(command: Command) -> Answer:
    """Create a task.

    A name that is in use is 409 (PUT changes a task); a retired task's name is free.
    """
    body = parse_object(command.raw, check=False)  # reading the definition checks all of it
    now = command.now
    definition = await read_definition(command, body, name=None, birth=now)
    plan, tz = plan_of(definition, now), tz_version()
    # Most names are new: try that first, and read only when it turns out otherwise.
    task = Task(task_id(command.space, definition.name))
    if command.attempt:
        task = await command.system.tasks.load(task.id)
    events = decisions.create(
        task, definition.name, definition.normalised(), plan, tz, command.key, created_at=now
    )
    if not events:
        return await _created(command, task, Answer(201, await public(command, task)))
    requires = await spaced(command, definition, now, fresh=command.attempt > 0) if plan else {}
    item = command.append(task_stream(task.id), task.stream_version, events, requires=requires)
    appended = await command.system.appender.append(item)
    created = after(task, item, appended)
    return await _created(
        command, created, Answer(201, await public(command, created, events), appended.position)
    )


async def _created(command: Command, task: Task, answer: Answer) -> Answer:
    await listen(command.door, task.definition)
    return Answer(answer.status, answer.body, answer.position, {"Location": f"/v1/tasks/{task.name}"})


@router.put("/{name_or_id}", openapi_extra=openapi.task_body(name_required=False, dry_run=True))
@command
async def put_task(command: Command) -> Answer:
    """Make a task be as the document says: 201 when it is new, 200 when it was changed or is so already.

    Sending the same document twice changes nothing. With `?dry_run=true` everything is checked and
    nothing is done.
    """
    dry = Query(command.request, ("dry_run",)).flag("dry_run")
    name_or_id = command.request.path_params["name_or_id"]
    body = parse_object(command.raw, check=False)
    if looks_like_id(name_or_id):
        task = await load_task(command.door, command.space, name_or_id)
        name = task.name
    else:
        task, name = await command.system.tasks.load(id_of(command.space, name_or_id)), name_or_id
    now = command.now
    birth = task.created_at if task.exists and task.created_at else now
    definition = await read_definition(command, body, name=name, birth=birth)
    # A schedule that stays as it is needs no plan: it may have fired for the last time by now.
    kept = task.exists and definition.schedule == task.definition["schedule"]
    known = task.definition["schedule"] if task.exists else None
    plan, tz = [] if kept else plan_of(definition, now, known), tz_version()
    requires = await spaced(command, definition, now, fresh=dry or command.attempt > 0) if plan else {}
    if task.exists:
        status = 200
        events = decisions.change(task, definition.normalised(), plan, tz, effective_at=now)
    else:
        status, events = (
            201,
            decisions.create(task, name, definition.normalised(), plan, tz, created_at=now),
        )
    if dry or not events:
        shown = task if task.exists else None
        if not dry:
            await listen(command.door, task.definition)
        return Answer(
            200, await public(command, shown) if shown else {"name": name, **definition.normalised()}
        )
    item = command.append(task_stream(task.id), task.stream_version, events, requires=requires)
    ends = task.exists and "plan" in events[0].data
    if ends:
        appended = await append_and_close(command, task, item, "changed")
    else:
        appended = await command.system.appender.append(item)
    changed = after(task, item, appended)
    answer = Answer(status, await public(command, changed, events), appended.position)
    return await _created(command, changed, answer) if status == 201 else await _listening(command, answer)


async def _listening(command: Command, answer: Answer) -> Answer:
    await listen(command.door, answer.body)
    return answer


_LIST = ("limit", "after", "status", "label")


@router.get("", openapi_extra=openapi.parameters(limit="", after="", status="", label="", wait=""))
@query("tasks", "schedules")
async def list_tasks(request: Request) -> dict[str, Any]:
    """The tasks, in the order of their names; retired ones only with `status=retired`.

    `label=key=value` (repeatable) asks for a label.
    """
    asked = Query(request, _LIST, repeatable=("label",))
    limit, after_name = asked.limit(), asked.cursor() or ""
    status = asked.choice("status", ("active", "paused", "retired"))
    labels = {}
    for label in asked.texts("label") or []:
        key, equals, value = label.partition("=")
        if not equals:
            raise BadRequest.query("label", f"{label[:60]!r} has no '='", "label=team=ops")
        labels[key] = value
    async with door_of(request).system.pool.acquire() as connection:
        found = await tasks_table.list_tasks(
            connection,
            caller_of(request).space,
            after=after_name,
            limit=limit + 1,
            status=status,
            labels=labels,
        )
    more = len(found) > limit
    return {"items": found[:limit], "next": to_cursor(found[limit - 1]["name"]) if more else None}


@router.get("/{name_or_id}", openapi_extra=openapi.parameters(wait=""))
@query("tasks", "schedules")
async def get_task(request: Request) -> dict[str, Any]:
    """One task, by name or id; a retired one too."""
    Query(request, ())
    door, space = door_of(request), caller_of(request).space
    name_or_id = request.path_params["name_or_id"]
    async with door.system.pool.acquire() as connection:
        found = await tasks_table.get_task(connection, space, id_of(space, name_or_id))
    if found is None:
        # In the log, maybe, and not in the read table yet.
        task = await load_task(door, space, name_or_id)
        return as_answer(task, next_by_rule(task, door.system.time.now()))
    return found


@router.delete("/{name_or_id}")
@command
async def retire_task(command: Command) -> Answer:
    """Take a task out of use. Its runs and its history stay; its name is free again."""
    name_or_id = command.request.path_params["name_or_id"]
    task = await load_task(command.door, command.space, name_or_id)
    events = decisions.retire(task, None, effective_at=command.now)
    item = command.append(task_stream(task.id), task.stream_version, events)
    appended = await append_and_close(command, task, item, "retired")
    return Answer(200, as_answer(after(task, item, appended), None), appended.position)


@router.post(
    "/{name_or_id}/run",
    status_code=202,
    openapi_extra=openapi.body({"input": openapi.ANY, "simulate": openapi.FLAG}),
)
@command
async def run_task(command: Command) -> Answer:
    """Run a task now, a paused one too. `simulate: true` renders and records its steps without calling
    any tool."""
    body = command.body(("input", "simulate"))
    simulate, name_or_id = flag_field(body, "simulate"), command.request.path_params["name_or_id"]
    run_id = command.fresh_id()
    task = await load_task(command.door, command.space, name_or_id)
    decisions.require_existing(task, task.name)
    definition = await command.system.tasks.definition(task.id, task.version)
    event = request_run(task, definition, {"kind": "manual"}, body.get("input"), simulate=simulate)
    requires = {task_stream(task.id): task.stream_version}
    item = command.append(run_stream(run_id), 0, [event], requires=requires)
    try:
        appended = await command.system.appender.append(item)
    except VersionConflict as conflict:
        if conflict.stream != item.stream:
            raise
        return Answer(202, {"run": run_id})  # this request was here before, and got so far
    return Answer(202, {"run": run_id}, appended.position)
