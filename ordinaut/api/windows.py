"""GET /v1/windows: the events that tasks have collected and not run for yet."""

from typing import Any

from fastapi import APIRouter, Request

from ordinaut.api import openapi
from ordinaut.api.door import Direct, caller_of, door_of, query
from ordinaut.api.queries import Query, to_cursor
from ordinaut.api.taskcommands import id_of
from ordinaut.runtime.windows import list_windows

router = APIRouter(prefix="/v1", tags=["events"], route_class=Direct)


@router.get("/windows", openapi_extra=openapi.parameters(limit="", after="", task=""))
@query()
async def get_windows(request: Request) -> dict[str, Any]:
    """The open windows, by task and key: how many events each holds, since when, and when it ends if nothing
    comes. `task` is a name or id."""
    asked = Query(request, ("limit", "after", "task"))
    limit, space, task = asked.limit(), caller_of(request).space, asked.text("task")
    after = asked.cursor()
    name, _, key = (after or "\t").partition("\t")
    async with door_of(request).system.pool.acquire() as connection:
        found = await list_windows(
            connection, space, (name, key), limit + 1, task_id=id_of(space, task) if task else None
        )
    items = found[:limit]
    more = to_cursor(f"{items[-1]['task']}\t{items[-1]['key']}") if len(found) > limit else None
    return {"items": items, "next": more}
