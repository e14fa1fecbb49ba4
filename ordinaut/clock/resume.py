"""Ending pauses: a task that is paused until an instant is resumed when it has come.

Nothing waits for it: whoever decides goes by `paused_until` itself. The event is what makes status, lists
and the log say so. The expected version of the task's stream lets in one of several clocks, or the person
who was first.
"""

from collections.abc import Mapping
from datetime import datetime

from ordinaut.domain.events import Event
from ordinaut.domain.task import end_pause, fold, task_stream
from ordinaut.log.append import Append, Appended, append
from ordinaut.log.read import read_streams
from ordinaut.runtime.system import System
from projections.tasks import pauses_to_end

ACTOR = "clock"

BATCH = 500
"""Tasks resumed at once."""


async def end_pauses(system: System) -> int:
    """Resume the tasks whose pause is over, at most `BATCH`; how many this process did.

    A row of the table may be behind the log: what the task's stream does not bear out is left alone. Raises
    what asking the database raises; doing it again is safe.
    """
    now = system.time.now()
    async with system.pool.acquire() as connection:
        ids = await pauses_to_end(connection, now, BATCH)
        if not ids:
            return 0
        streams = await read_streams(connection, [task_stream(task_id) for task_id in ids])
        items = [item for task_id in ids if (item := _ended(task_id, streams, now)) is not None]
        if not items:
            return 0
        async with connection.transaction():
            outcomes = await append(connection, items)
    return sum(isinstance(outcome, Appended) for outcome in outcomes)


def _ended(task_id: str, streams: Mapping[str, list[Event]], now: datetime) -> Append | None:
    events = streams.get(task_stream(task_id), [])
    task = fold(task_id, events)
    resumed = end_pause(task, now)
    if not resumed:
        return None
    pause = next(event for event in reversed(events) if event.type == "TaskPaused")
    return Append(
        pause.stream, task.stream_version, resumed, task.space, ACTOR, pause.correlation, pause.reference
    )
