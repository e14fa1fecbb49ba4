"""Ending pauses: a task that is paused until an instant is resumed when it has come.

Nothing waits for it: whoever decides goes by `paused_until` itself. The event is what makes status, lists
and the log say so. The expected version of the task's stream lets in one of several clocks, or the person
who was first.
"""

from ordinaut.domain.events import Event
from ordinaut.domain.task import end_pause, fold, task_stream
from ordinaut.log.append import Append, Appended
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
        streams = await read_streams(connection, [task_stream(task_id) for task_id in ids]) if ids else {}
    items: list[Append] = []
    for task_id in ids:
        events = streams.get(task_stream(task_id), [])
        task = fold(task_id, events)
        if ended := end_pause(task, now):
            pause = _pause(events)
            items.append(
                Append(
                    pause.stream,
                    task.stream_version,
                    ended,
                    task.space,
                    ACTOR,
                    pause.correlation,
                    pause.reference,
                )
            )
    outcomes = await system.appender.append_all(items)
    return sum(isinstance(outcome, Appended) for outcome in outcomes)


def _pause(events: list[Event]) -> Event:
    return next(event for event in reversed(events) if event.type == "TaskPaused")
