"""Planning anew what was planned with another tz database: POST /v1/schedules/refresh."""

from typing import Any

from fastapi import APIRouter

from ordinaut.api import openapi
from ordinaut.api.bodies import flag_field, text_field
from ordinaut.api.closing import append_and_close
from ordinaut.api.door import Answer, Command, Direct, command
from ordinaut.api.taskcommands import looks_like_id
from ordinaut.domain.errors import Invalid, VersionConflict
from ordinaut.domain.schedules.zones import tz_version
from ordinaut.domain.task import replan, task_stream
from ordinaut.runtime.refresh import Move, look

router = APIRouter(prefix="/v1", tags=["schedules"], route_class=Direct)


@router.post(
    "/schedules/refresh",
    openapi_extra=openapi.body({"dry_run": openapi.FLAG, "after": openapi.TEXT}),
)
@command
async def refresh_schedules(command: Command) -> Answer:
    """Compute anew the next instant of the space's schedules that were planned with another release of the tz
    database; those of which it is another one now are `moved`, each by an event on its task.

    A page at a time: `next` is the `after` to go on with. With `dry_run` nothing is moved.
    """
    body = command.body(("dry_run", "after"))
    after, dry = text_field(body, "after") or "", flag_field(body, "dry_run")
    if after and not looks_like_id(after):
        raise Invalid.at("/after", "is not where a page ended", "the `next` of the page before")
    async with command.system.pool.acquire() as connection:
        looked = await look(connection, command.now, space=command.space, after=after)
    moved: list[dict[str, Any]] = []
    busy, position = 0, None
    for move in looked.moved:
        if not dry:
            try:
                position = await _record(command, move)
            except VersionConflict:
                busy += 1  # somebody changed the task, or a clock decided: the next look sees how it is
                continue
        moved.append(_shown(move))
    counted = {"same": looked.same, "due": looked.due + busy, "next": looked.after}
    return Answer(200, {"tz": tz_version(), "moved": moved, **counted}, position)


async def _record(command: Command, move: Move) -> int:
    events = replan(move.task, move.at, tz_version(), was=move.was, was_tz=move.tz, effective_at=command.now)
    item = command.append(task_stream(move.task.id), move.task.stream_version, events)
    return (await append_and_close(command, move.task, item, "changed")).position


def _shown(move: Move) -> dict[str, Any]:
    return {
        "task": move.task.name,
        "task_id": move.task.id,
        "was": move.was.isoformat(),
        "next_fire_at": move.at.isoformat() if move.at else None,
        "tz": move.tz,
        "passed": move.passed.isoformat() if move.passed else None,
    }
