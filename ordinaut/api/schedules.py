"""What schedules did and will do: /v1/tasks/{…}/occurrences and /v1/schedules/preview."""

import asyncio
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import Any

from fastapi import APIRouter, Request, Response

from ordinaut.api import openapi
from ordinaut.api.bodies import check_fields, instant_field, parse_object, read_body
from ordinaut.api.door import Direct, as_json, caller_of, door_of, query
from ordinaut.api.problems import BadRequest
from ordinaut.api.queries import Query, to_cursor
from ordinaut.api.taskcommands import load_task
from ordinaut.domain.errors import Invalid
from ordinaut.domain.schedules.preview import Occurrence, occurrences, preview
from ordinaut.domain.schedules.spec import FIELDS, is_timed, normalise_schedule, rule_of
from ordinaut.domain.task import Task
from projections import occurrences as occurrences_table
from projections.schedules import planned_at

router = APIRouter(prefix="/v1", tags=["schedules"], route_class=Direct)

_TICK = timedelta(microseconds=1)
_SCHEDULE = tuple(dict.fromkeys(name for names in FIELDS.values() for name in names))
MOST_PREVIEWED = 1000


@router.get(
    "/tasks/{name_or_id}/occurrences",
    openapi_extra=openapi.parameters(
        limit="", after="", wait="",
        **{"from": "Instants from here on; without it, the latest verdicts and what comes next.",
           "to": "Instants before this one."},
    ),
)  # fmt: skip
@query("tasks", "schedules", "occurrences")
async def list_occurrences(request: Request) -> dict[str, Any]:
    """What became of each instant a task's schedule named (`verdict` fired or skipped, with the reason), and
    those that are still expected.

    An expected one has a `reason` when, as things are, it will be skipped.
    """
    asked = Query(request, ("from", "to", "limit", "after"))
    door, space = door_of(request), caller_of(request).space
    task = await load_task(door, space, request.path_params["name_or_id"])
    limit, since, until = asked.limit(), asked.instant("from"), asked.instant("to")
    if (cursor := asked.cursor()) is not None:
        since = _from_cursor(cursor) + _TICK
    now = door.system.time.now()
    async with door.system.pool.acquire() as connection:
        if since is None:
            before = min(now, until) if until else now
            past = await occurrences_table.latest_occurrences(connection, task.id, before=before, limit=limit)
        else:
            end = until or now + timedelta(days=1)
            past = await occurrences_table.list_occurrences(
                connection, task.id, since=since, until=end, limit=limit + 1, reaching=cursor is None
            )
        due = await planned_at(connection, task.id)
    if since is not None:
        items = past + await _expected(task, due, since, until, limit + 1 - len(past))
        return _page(items[:limit], more=len(items) > limit)
    # Half of the page at least is for what comes, as far as anything does.
    room = max(limit - len(past), limit // 2)
    ahead = await _expected(task, due, None, until, room + 1)
    more, ahead = len(ahead) > room, ahead[:room]
    return _page([*past[-(limit - len(ahead)) :], *ahead], more=more)


def _page(items: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    return {"items": items, "next": to_cursor(items[-1]["at"]) if more else None}


def _from_cursor(cursor: str) -> datetime:
    try:
        at = datetime.fromisoformat(cursor)
        if at.tzinfo is None:
            raise ValueError(cursor)
        return at
    except ValueError:
        hint = "the `next` of the page before"
        raise BadRequest.query("after", "is not a cursor of this list", hint) from None


async def _expected(
    task: Task, due: datetime | None, since: datetime | None, until: datetime | None, room: int
) -> list[dict[str, Any]]:
    """The instants from the next one on (which may be past, if no clock has come to it yet)."""
    schedule = task.definition["schedule"]
    if due is None or room <= 0 or not task.exists or not is_timed(schedule):
        return []
    rule = rule_of(schedule)

    def expand() -> list[Occurrence]:
        first = rule.next_after(since - _TICK) if since is not None and since > due else due
        ahead = islice(occurrences(rule, first), room)
        return list(takewhile(lambda one: until is None or one.utc < until, ahead))

    # In a thread, because some hundred instants of a hard rule take a second.
    return [_expectation(task, one) for one in await asyncio.to_thread(expand)]


def _expectation(task: Task, one: Occurrence) -> dict[str, Any]:
    at = one.utc.isoformat()
    hold = task.hold(one.utc)
    return {
        "at": at,
        "until": at,
        "count": 1,
        "verdict": "expected",
        "reason": hold[0] if hold else "excluded" if one.excluded else None,
        "run": None,
        "lateness": None,
        "task_version": task.version,
        "decided_at": None,
        "local": one.local.isoformat(),
        "note": one.note,
    }


@router.post(
    "/schedules/preview",
    openapi_extra=openapi.body(
        {
            "cron": openapi.TEXT,
            "rrule": openapi.TEXT,
            "once": openapi.TEXT,
            "every": openapi.TEXT,
            "timezone": openapi.TEXT,
            "start": openapi.TEXT,
            "end": openapi.TEXT,
            "exclude": {"type": "array"},
            "schedule": {"description": "One schedule or a list of them, instead of its fields."},
            "after": openapi.INSTANT,
            "count": {"type": "integer", "minimum": 1, "maximum": MOST_PREVIEWED, "default": 10},
        }
    ),
)
async def preview_schedule(request: Request) -> Response:
    """What a schedule will do, without making a task: the first `count` instants after `after` (now)."""
    door = door_of(request)
    body = parse_object(await read_body(request, door.system.settings.max_body_bytes))
    check_fields(body, (*_SCHEDULE, "schedule", "after", "count"))
    # In a thread, because a thousand instants of a hard rule take seconds.
    return as_json(await asyncio.to_thread(_previewed, body, door.system.time.now()))


def _previewed(body: dict[str, Any], now: datetime) -> dict[str, Any]:
    after, count = instant_field(body, "after") or now, body.get("count", 10)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_PREVIEWED:
        raise Invalid.at("/count", "must be a whole number", f"1 to {MOST_PREVIEWED}")
    spec = {name: value for name, value in body.items() if name in _SCHEDULE}
    if "schedule" not in body:
        normal = normalise_schedule(spec, now)
    elif spec:
        raise Invalid.at("/schedule", f"is given, and {next(iter(spec))!r} too", "leave one out")
    else:
        try:
            normal = normalise_schedule(body["schedule"], now)
        except Invalid as invalid:
            raise Invalid.all_of([fault.under("/schedule") for fault in invalid.faults]) from None
    rule = rule_of(normal)
    return {
        "items": [
            {
                "at": one.local.isoformat(),
                "utc": one.utc.isoformat(),
                "note": one.note,
                "excluded": one.excluded,
            }
            for one in preview(rule, after, count)
        ],
        "next": None,
        "schedule": normal,
        "description": rule.describe(),
    }
