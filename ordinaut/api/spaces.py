"""/v1/spaces: what is set for a whole space."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request

from ordinaut.api import openapi
from ordinaut.api.bodies import text_field
from ordinaut.api.door import Answer, Command, Direct, caller_of, command, door_of, query
from ordinaut.api.queries import Query
from ordinaut.domain.definition import Definition
from ordinaut.domain.durations import parse_duration
from ordinaut.domain.errors import Forbidden, Invalid, NotFound, VersionConflict
from ordinaut.domain.schedules.spec import rule_of
from ordinaut.domain.space import Space, change, fold, shown, space_stream
from ordinaut.log.append import append
from ordinaut.log.read import read_stream
from ordinaut.runtime.keys import Caller
from ordinaut.runtime.spaces import too_near

router = APIRouter(prefix="/v1/spaces", tags=["spaces"], route_class=Direct)

_BODY = {"minimum_interval": {"anyOf": [openapi.DURATION, {"type": "null"}]}, "reason": openapi.TEXT}


@router.get("/{space}")
@query()
async def get_space(request: Request) -> dict[str, Any]:
    """What is set for the key's own space, and who set it last and why."""
    Query(request, ())
    name = _own(request, caller_of(request))
    return _as_answer(await door_of(request).spaces.load(name))


@router.put("/{space}", openapi_extra=openapi.body(_BODY, required=("minimum_interval",)))
@command
async def put_space(command: Command) -> Answer:
    """Set the least time between two instants of a task's schedule, for an admin; null for none.

    It concerns schedules that are given to tasks from then on; those that are there stay.
    """
    name = _own(command.request, command.caller)
    if command.caller.role != "admin":
        raise Forbidden(
            f"the key of {command.caller.agent!r} is a {command.caller.role}'s; this needs an admin's"
        )
    body = command.body(("minimum_interval", "reason"), required=("minimum_interval",))
    minimum, reason = _minimum(body), text_field(body, "reason")
    # Not by group commit: a batch holds what was decided before it, perhaps tasks by the old minimum.
    async with command.system.pool.acquire() as connection, connection.transaction():
        space = fold(name, await read_stream(connection, space_stream(name)))
        events = change(space, minimum, reason)
        if not events:
            return Answer(200, _as_answer(space))
        item = command.append(space_stream(name), space.version, events)
        (outcome,) = await append(connection, [item])
        if isinstance(outcome, VersionConflict):
            raise outcome
    return Answer(200, _as_answer(await command.door.spaces.load(name)), outcome.position)


async def spaced(
    command: Command, definition: Definition, now: datetime, *, fresh: bool
) -> Mapping[str, int]:
    """What the append of a task with this schedule requires: the version of the space it was held against.

    With `fresh` the space is read anew. Raises Invalid when two instants are too near to each other.
    """
    assert definition.schedule is not None
    spaces, rule = command.door.spaces, rule_of(definition.schedule)
    space = await (spaces.load if fresh else spaces.recall)(command.space)
    fault = too_near(space, rule, now)
    if fault is not None and not fresh:
        remembered, space = space, await spaces.load(command.space)
        if space.version != remembered.version:
            fault = too_near(space, rule, now)  # it may be allowed by now
    if fault is not None:
        raise Invalid.all_of([fault])
    return {space_stream(space.name): space.version}


def _own(request: Request, caller: Caller) -> str:
    name: str = request.path_params["space"]
    if name != caller.space:
        raise NotFound(f"there is no space {name[:80]!r} for this key")
    return name


def _minimum(body: Mapping[str, Any]) -> timedelta | None:
    text = text_field(body, "minimum_interval")
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise Invalid.at("/minimum_interval", str(error)) from None


def _as_answer(space: Space) -> dict[str, Any]:
    return {
        "space": space.name,
        "minimum_interval": shown(space.minimum_interval),
        "reason": space.reason,
        "version": space.version,
        "changed_at": space.changed_at.isoformat() if space.changed_at else None,
        "changed_by": space.changed_by,
    }
