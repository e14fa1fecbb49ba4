"""Replays: a task's trigger over entries that are there already. They are backfills of a kind."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter

from ordinaut.api import openapi
from ordinaut.api.backfills import HOW, begin, how
from ordinaut.api.bodies import flag_field, text_field
from ordinaut.api.door import Answer, Command, Direct, command
from ordinaut.domain.backfill import Wanted
from ordinaut.domain.errors import Invalid
from ordinaut.domain.planned import Planned
from ordinaut.domain.task import Task
from ordinaut.runtime.reach import Hearing, Reach, check_reach
from ordinaut.runtime.replay import past_entries, replayed_source, require_own_runs

router = APIRouter(prefix="/v1", tags=["backfills"], route_class=Direct)

REACH = {
    "stream": openapi.TEXT | {"description": "What the trigger listens to, unless given."},
    "log": openapi.FLAG | {"description": "The events that the log holds, instead of the stream in Redis."},
    "from": openapi.TEXT | {"description": "The first entry's id; the oldest, unless given."},
    "to": openapi.TEXT | {"description": "The last entry's id; the newest, unless given."},
}
"""The fields of a body that say which entries."""

_FIELDS = {**REACH, **HOW}


@router.post(
    "/tasks/{name_or_id}/replay",
    status_code=202,
    openapi_extra=openapi.body(_FIELDS),
)
@command
async def replay_stream(command: Command) -> Answer:
    """Run a task for the entries of a stream that match its trigger, as it is now, and have no run.

    Of a task that listens to the log's own events it is those that are held against its trigger. What it
    begins is a backfill. With `dry_run: true` nothing is done: the answer is 200 with each entry and whether
    it would run.
    """
    body = command.body(tuple(_FIELDS))
    more = how(body)

    async def find(task: Task) -> tuple[Wanted, Sequence[Planned]]:
        definition = await command.system.tasks.definition(task.id, task.version)
        hearing = Hearing(task, definition)
        require_own_runs(hearing)
        reach = read_reach(body, hearing)
        source = replayed_source(hearing, reach)
        wanted = Wanted(reach.since, reach.until, **more, source=source)
        found = await past_entries(command.system, hearing, reach, rerun=wanted.rerun)
        if not found:
            return wanted, found
        since, until = wanted.since or found[0].id, wanted.until or found[-1].id
        return replace(wanted, since=since, until=until), found

    return await begin(command, find, dry=flag_field(body, "dry_run"))


def read_reach(body: Mapping[str, Any], hearing: Hearing, last: int | None = None) -> Reach:
    """Which entries a body asks for, to be held against a task. Raises Invalid."""
    stream = text_field(body, "stream")
    if stream == "":
        raise Invalid.at("/stream", "must name a stream")
    sources = hearing.sources(stream, log=flag_field(body, "log"))
    reach = Reach(sources, text_field(body, "from"), text_field(body, "to"), last)
    check_reach(reach)
    return reach
