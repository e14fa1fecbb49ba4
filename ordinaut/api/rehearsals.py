"""Trying a trigger: /v1/triggers/test."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from ordinaut.api import openapi
from ordinaut.api.bodies import check_fields, flag_field, parse_object, read_body
from ordinaut.api.door import Direct, Door, as_json, caller_of, door_of
from ordinaut.api.replays import REACH, read_reach
from ordinaut.domain.definition import Definition, parse_definition
from ordinaut.domain.errors import Forbidden, Invalid
from ordinaut.domain.ids import task_id
from ordinaut.domain.planned import Source
from ordinaut.domain.task import Task
from ordinaut.runtime.keys import Caller
from ordinaut.runtime.reach import Reach, listening_as_if_active
from ordinaut.runtime.rehearsal import MOST_ENTRIES, Rehearsal, Trial, rehearse

router = APIRouter(prefix="/v1", tags=["triggers"], route_class=Direct)

MOST_LISTED, LISTED, LOOKED_AT = 500, 100, 1000

_FIELDS = {
    "definition": {"$ref": "#/components/schemas/Task"},
    **REACH,
    "last": {"type": "integer", "minimum": 1, "maximum": MOST_ENTRIES, "default": LOOKED_AT},
    "all": openapi.FLAG | {"description": "List entries that it does not match, too."},
    "limit": {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": LISTED},
}
_REQUIRED = ("definition",)


@router.post("/triggers/test", openapi_extra=openapi.body(_FIELDS, required=_REQUIRED))
async def try_trigger(request: Request) -> Response:
    """What a new or changed trigger would have done with entries that are in the stream, or with events of
    the log; nothing is done.

    It looks at the newest `last` entries, or at those from `from` to `to`. `counts` are exact, `items` at
    most `limit`: the entries it matches, fails on, or treats differently than the task does now.
    """
    door, caller = door_of(request), caller_of(request)
    body = parse_object(await read_body(request, door.system.settings.max_body_bytes))
    check_fields(body, tuple(_FIELDS), _REQUIRED)
    limit = _number(body, "limit", MOST_LISTED) or LISTED
    now = door.system.time.now()
    definition = _definition(door, body["definition"], now)
    reach = read_reach(body, definition.name, definition, _last(body))
    await _require_readable(door, caller, reach)
    trial, current = await _trial(door, caller.space, definition, reach.source, now)
    done = await rehearse(
        door.system, caller.space, reach, trial, limit=limit, everything=flag_field(body, "all")
    )
    return as_json(_answer(definition, reach, trial, done, current))


def _number(body: Mapping[str, Any], name: str, most: int) -> int | None:
    value = body.get(name)
    if value is not None and (
        not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most
    ):
        raise Invalid.at(f"/{name}", "must be a whole number", f"1 to {most}")
    return value


def _last(body: Mapping[str, Any]) -> int | None:
    last = _number(body, "last", MOST_ENTRIES)
    bounded = body.get("from") is not None or body.get("to") is not None
    if last is not None and bounded:
        raise Invalid.at("/last", "is given, and `from` or `to` too", "leave one out")
    return None if bounded else last or LOOKED_AT


def _definition(door: Door, document: Any, now: datetime) -> Definition:
    if not isinstance(document, dict):
        raise Invalid.at("/definition", "must be an object", "what PUT /v1/tasks/{name} takes, with its name")
    try:
        return parse_definition(document, created_at=now, known_tools=door.inputs)
    except Invalid as invalid:
        raise Invalid.all_of([fault.under("/definition") for fault in invalid.faults]) from None


async def _require_readable(door: Door, caller: Caller, reach: Reach) -> None:
    """A Redis stream has no space: a reader sees those whose entries it sees anyway, as inputs of runs."""
    stream = reach.source.stream
    if caller.role != "reader" or stream is None or reach.source.kind != "stream":
        return
    await door.triggers.refresh()
    if not door.triggers.listening(stream, caller.space):
        raise Forbidden(
            f"no task of the space {caller.space!r} listens to {stream!r}:"
            " reading it needs an operator's or admin's key"
        )


async def _trial(
    door: Door, space: str, definition: Definition, source: Source, now: datetime
) -> tuple[Trial, Task | None]:
    """The trigger to try, and the task as it is now, if there is one of that name."""
    found = await door.system.tasks.load(task_id(space, definition.name))
    there = found if found.exists else None
    task = Task(found.id, space, definition.name, "active", definition.normalised(), created_at=now)
    wanted = listening_as_if_active(task, definition, source)
    if there is None:
        return Trial(wanted), None
    as_it_is = await door.system.tasks.definition(there.id, there.version)
    try:
        return Trial(wanted, listening_as_if_active(there, as_it_is, source), compared=True), there
    except Invalid:
        return Trial(wanted, None, compared=True), there


def _answer(
    definition: Definition, reach: Reach, trial: Trial, done: Rehearsal, current: Task | None
) -> dict[str, Any]:
    counts = {name: done.counts[name] for name in ("entries", "match", "none", "error")}
    if current is not None:
        counts |= {name: done.counts[name] for name in ("newly", "no_longer", "input")}
    return {
        "task": definition.name,
        "compared_with": current.version if current else None,
        "source": reach.source.public(),
        "from": done.first,
        "to": done.last,
        "collects": trial.collects,
        "counts": counts,
        "items": done.items,
        "left_off": done.left_off,
        "next": None,
    }
