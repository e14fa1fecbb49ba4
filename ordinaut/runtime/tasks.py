"""Tasks as the log has them, remembered.

What is remembered may be old. That is safe wherever the decision is appended with the task's stream
version as a requirement: if the task has changed since, the append is refused and `load` reads on.
"""

from collections import OrderedDict
from dataclasses import replace

import asyncpg

from ordinaut.domain.definition import Definition, load_definition
from ordinaut.domain.errors import NotFound
from ordinaut.domain.task import Task, evolve, task_stream
from ordinaut.log.append import Connection
from ordinaut.log.read import read_stream

REMEMBERED = 20_000


class Tasks:
    """A memory of tasks and of compiled definitions, least recently used out first."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self._definitions: OrderedDict[tuple[str, int], Definition] = OrderedDict()

    async def load(self, task_id: str, connection: Connection | None = None) -> Task:
        """The task as its stream has it now; one that never existed is `retired` at version 0."""
        known = self._tasks.get(task_id) or Task(task_id)
        if connection is None:
            async with self._pool.acquire() as own:
                events = await read_stream(own, task_stream(task_id), after=known.stream_version)
        else:
            events = await read_stream(connection, task_stream(task_id), after=known.stream_version)
        if events:
            known = replace(known)  # others may be deciding by the one they were given
            for event in events:
                evolve(known, event)
        if known.stream_version:
            self._tasks[task_id] = known
            self._tasks.move_to_end(task_id)
            if len(self._tasks) > REMEMBERED:
                self._tasks.popitem(last=False)
        return known

    async def recall(self, task_id: str) -> Task:
        """The task as it was last seen, possibly old; loaded when it is not remembered."""
        return self._tasks.get(task_id) or await self.load(task_id)

    def remembered_definition(self, task_id: str, version: int) -> Definition | None:
        """What `definition` answers, where nothing has to be read for it; else None."""
        return self._definitions.get((task_id, version))

    async def definition(self, task_id: str, version: int) -> Definition:
        """The compiled definition number `version` of a task, whatever the task is by now."""
        known = self.remembered_definition(task_id, version)
        if known is not None:
            return known
        async with self._pool.acquire() as connection:
            events = await read_stream(connection, task_stream(task_id))
        for event in events:
            if event.type in ("TaskCreated", "TaskChanged") and event.data["version"] == version:
                definition = load_definition(event.data["definition"])
                self._definitions[task_id, version] = definition
                if len(self._definitions) > REMEMBERED:
                    self._definitions.popitem(last=False)
                return definition
        raise NotFound(f"task {task_id} has no definition number {version}")
