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
from ordinaut.domain.task import Task
from ordinaut.runtime.keys import Caller
from ordinaut.runtime.listening import is_pattern
from ordinaut.runtime.reach import Hearing, Reach
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
    most `limit`: the entries it matches, fails on, or treats differently than the task does now. Where
    entries are collected, `windows` are what would have held them, and the runs that come of each.
    """
    door, caller = door_of(request), caller_of(request)
    body = parse_object(await read_body(request, door.system.settings.max_body_bytes))
    check_fields(body, tuple(_FIELDS), _REQUIRED)
    limit = _number(body, "limit", MOST_LISTED) or LISTED
    now = door.system.time.now()
    definition = _definition(door, body["definition"], now)
    task = Task(
        task_id(caller.space, definition.name), caller.space, definition.name, "active",
        definition.normalised(), created_at=now,
    )  # fmt: skip
    wanted = Hearing(task, definition)
    reach = read_reach(body, wanted, _last(body))
    await _require_readable(door, caller, reach)
    current = await _current(door, task.id)
    trial = Trial(wanted, current)
    done = await rehearse(
        door.system, caller.space, reach, trial, limit=limit, everything=flag_field(body, "all")
    )
    return as_json(_answer(reach, trial, done))


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
    streams = [str(source.stream) for source in reach.sources if source.kind == "stream"]
    if caller.role != "reader" or not streams:
        return
    await door.triggers.refresh()
    for stream in streams:
        # Who listens to `*` hears all that `orders.*` stands for: a pattern is asked about as a name is.
        if not door.triggers.listening(stream, caller.space):
            raise Forbidden(
                f"no task of the space {caller.space!r} listens to {stream!r}:"
                " reading it needs an operator's or admin's key"
            )


async def _current(door: Door, id: str) -> Hearing | None:
    """The task as it is now; None when there is none."""
    task = await door.system.tasks.load(id)
    if not task.exists:
        return None
    return Hearing(task, await door.system.tasks.definition(task.id, task.version))


def _answer(reach: Reach, trial: Trial, done: Rehearsal) -> dict[str, Any]:
    names = ["entries", "match", "none", "error", "runs"]
    if trial.now is not None:
        names += ["newly", "no_longer", "input", "runs_now"]
    counts = {name: done.counts[name] for name in names}
    windows = None
    if done.windows is not None:
        counts |= {name: done.windows.counts[name] for name in ("windows", "open", "dropped")}
        windows = {"items": done.windows.items, "left_off": done.windows.left_off}
    alone = len(reach.sources) == 1 and not is_pattern(reach.sources[0].stream or "")
    first, last = done.first, done.last
    return {
        "task": trial.wanted.task.name,
        "compared_with": trial.now.task.version if trial.now else None,
        "sources": [source.public() for source in reach.sources],
        "from": first[1] if first and alone else None,
        "to": last[1] if last and alone else None,
        "from_time": first[2].isoformat() if first else None,
        "to_time": last[2].isoformat() if last else None,
        "collects": trial.collects,
        "counts": counts,
        "items": done.items,
        "left_off": done.left_off,
        "windows": windows,
        "next": None,
    }
