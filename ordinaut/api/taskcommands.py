"""Changing tasks: load, decide, append; and again when somebody was first."""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from redis.exceptions import RedisError

from ordinaut.api.door import Command, Door, recorded
from ordinaut.api.positions import has_reached
from ordinaut.domain.definition import Definition, parse_definition
from ordinaut.domain.errors import Invalid, NotFound
from ordinaut.domain.events import NewEvent
from ordinaut.domain.ids import task_id
from ordinaut.domain.schedules.spec import is_timed, next_kept, rule_of, trigger_of
from ordinaut.domain.task import Task, evolve, task_stream
from ordinaut.domain.trigger import LOG, sources_of
from ordinaut.log.append import Append, Appended
from ordinaut.log.database import OUTAGE
from ordinaut.runtime.streams import open_source
from projections import tasks as tasks_table

REDIS_SECONDS = 1.0

_ID_LENGTH = 36
_HARD = frozenset({"rrule", "exclude"})

logger = structlog.get_logger(__name__)

Decide = Callable[[Task], Sequence[NewEvent]]


def looks_like_id(text: str) -> bool:
    """Whether `text` in a path is meant as an id rather than a name."""
    if len(text) != _ID_LENGTH:
        return False
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def id_of(space: str, name_or_id: str) -> str:
    """The id of the task that is meant."""
    return name_or_id.lower() if looks_like_id(name_or_id) else task_id(space, name_or_id)


def unknown(name_or_id: str) -> NotFound:
    """The error for a task that is not there."""
    what = "id" if looks_like_id(name_or_id) else "name"
    return NotFound(f"there is no task with the {what} {name_or_id[:150]!r}")


async def load_task(door: Door, space: str, name_or_id: str) -> Task:
    """The task that is meant, as the log has it now, retired or not. Raises NotFound."""
    task = await door.system.tasks.load(id_of(space, name_or_id))
    if task.version == 0 or task.space != space:
        raise unknown(name_or_id)
    return task


async def change_task(command: Command, name_or_id: str, decide: Decide) -> tuple[Task, int | None]:
    """Append what `decide` makes of the task: (the task behind that, its position; None: nothing to do).

    Raises what `decide` raises, and NotFound.
    """
    task = await load_task(command.door, command.space, name_or_id)
    events = decide(task)
    if not events:
        return task, None
    item = command.append(task_stream(task.id), task.stream_version, events)
    appended = await command.system.appender.append(item)
    return after(task, item, appended), appended.position


def after(task: Task, item: Append, appended: Appended) -> Task:
    """The task as it is behind an append to its stream."""
    task = replace(task) if task.stream_version else Task(task.id)
    for event in recorded(item, appended):
        evolve(task, event)
    return task


async def read_definition(
    command: Command, body: Mapping[str, Any], *, name: str | None, birth: datetime
) -> Definition:
    """The definition in a body. `name` is what the path says (None: the body must say); `birth` is the
    moment that schedules without a start of their own begin at. Raises Invalid."""
    if name is not None and body.get("name", name) != name:
        raise Invalid.at("/name", f"the path names the task {name!r}", "leave `name` out, or write the same")
    document = body if name is None or "name" in body else {"name": name, **body}
    read = partial(parse_definition, document, created_at=birth, known_tools=command.door.inputs)
    definition = await asyncio.to_thread(read) if _may_be_slow(document.get("schedule")) else read()
    if looks_like_id(definition.name):
        raise Invalid.at("/name", "a name must not look like an id (a UUID)", "a word for what the task does")
    return definition


def _may_be_slow(schedule: Any) -> bool:
    """Whether reading it may take long: a list of hard rules takes seconds, and goes to a thread. For the
    others handing it over would take longer than reading it."""
    if isinstance(schedule, dict):
        return not schedule.keys().isdisjoint(_HARD)
    return isinstance(schedule, list)


async def public(command: Command, task: Task, events: Sequence[NewEvent] = ()) -> dict[str, Any]:
    """The task as the API shows it. When it fires next is known from the `events` that were just decided,
    else from the read tables, and from the rule where those have not come as far as the task has."""
    for event in events:
        if "plan" in event.data:
            plan = event.data["plan"]
            at = datetime.fromisoformat(plan[0]["at"]) if plan else None
            return as_answer(task, next_kept(task.definition["schedule"], at))
    row = None
    async with command.system.pool.acquire() as connection:
        if await has_reached(connection, ("tasks", "schedules"), task_stream(task.id), task.stream_version):
            row = await tasks_table.get_task(connection, task.space, task.id)
    if row is not None:
        return as_answer(task, row["next_fire_at"] and datetime.fromisoformat(row["next_fire_at"]))
    return as_answer(task, next_by_rule(task, command.now))


def next_by_rule(task: Task, now: datetime) -> datetime | None:
    """When the task's schedule fires next, whatever the clock has planned."""
    schedule = task.definition["schedule"]
    return rule_of(schedule).kept_after(now) if is_timed(schedule) else None


def as_answer(task: Task, next_fire_at: datetime | None) -> dict[str, Any]:
    """A task folded from its stream, in the shape the read table gives."""
    definition = task.definition
    assert task.created_at is not None and task.changed_at is not None
    return {
        "id": task.id,
        "name": task.name,
        "space": task.space,
        "title": definition["title"],
        "labels": definition["labels"],
        "status": task.status,
        "schedule": definition["schedule"],
        "params": definition["params"],
        "pipeline": definition["pipeline"],
        "policy": definition["policy"],
        "version": task.version,
        "next_fire_at": next_fire_at.isoformat() if next_fire_at and task.exists else None,
        "paused_reason": task.paused_reason,
        "paused_until": task.paused_until.isoformat() if task.paused_until else None,
        "snoozed_until": task.snoozed_until.isoformat() if task.snoozed_until else None,
        "created_at": task.created_at.isoformat(),
        "changed_at": task.changed_at.isoformat(),
    }


async def listen(door: Door, definition: Mapping[str, Any]) -> None:
    """Before a task that listens to a stream is acknowledged: make the consumer group where it is missing,
    so that no entry added from then on is missed, by this task or by those that listened before it. With
    Redis away it is left to intake, which goes back in time."""
    on = trigger_of(definition["schedule"])
    if on is None:
        return
    system = door.system
    for stream in sorted(set(sources_of(on).values())):
        if stream.startswith(LOG):
            continue
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                await open_source(system.redis, system.pool, door.triggers, stream)
        # The task is in the log: whatever is away now, the answer is that it was created.
        except (RedisError, *OUTAGE) as error:
            logger.warning("api.group_not_made", stream=stream, error=str(error) or type(error).__name__)
