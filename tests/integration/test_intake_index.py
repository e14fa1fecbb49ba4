"""The index of triggers is as fresh as the log, however far the read tables lag."""

import asyncio
import random

from ordinaut.domain import task
from ordinaut.domain.task import Task
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex
from projections.projector import step
from projections.registry import all_projections
from tests.support.listening import a_system, happen, listen


def shown(index: TriggerIndex) -> dict[str, dict[str, tuple[str, str, int, int]]]:
    """By stream and task: name, status, and the versions; streams without listeners left out."""
    return {
        stream: {
            each.task.id: (each.task.name, each.task.status, each.task.version, each.task.stream_version)
            for each in index.listening(stream)
        }
        for stream in sorted(index.streams())
        if index.listening(stream)
    }


def expected(tasks: dict[str, Task]) -> dict[str, dict[str, tuple[str, str, int, int]]]:
    """The same from the tasks' streams themselves."""
    found: dict[str, dict[str, tuple[str, str, int, int]]] = {}
    for each in tasks.values():
        on = (each.definition.get("schedule") or {}).get("on")
        if on and each.exists:
            stream = found.setdefault(on["stream"], {})
            stream[each.id] = (each.name, each.status, each.version, each.stream_version)
    return dict(sorted(found.items()))


async def something_happens(system: System, chance: random.Random, tasks: dict[str, Task]) -> None:
    name = f"task-{chance.randrange(8)}"
    state = tasks.get(name)
    if state is None or not state.exists:
        tasks[name] = await listen(system, name, f"stream-{chance.randrange(3)}")
        return
    schedule = chance.choice(
        [None, {"on": {"stream": f"stream-{chance.randrange(3)}", "where": None, "input": None}}]
    )
    decided = chance.choice(
        [
            task.pause(state, None),
            task.resume(state),
            task.retire(state, None),
            task.change(state, {**state.definition, "schedule": schedule}, [], ""),
        ]
    )
    if decided:
        tasks[name] = await happen(system, state, decided)


async def test_it_knows_every_task_event_there_was_before_it_was_asked(
    database_url: str, redis_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    projection = all_projections()["tasks"]
    async with a_system(database_url, redis_url) as system:
        tasks: dict[str, Task] = {}
        old = TriggerIndex(system.pool)
        for _ in range(120):
            await something_happens(system, chance, tasks)
            if chance.random() < 0.2:
                async with system.pool.acquire() as connection:
                    await step(connection, projection, limit=chance.randrange(1, 8))
            if chance.random() < 0.5:
                await old.refresh()
                assert shown(old) == expected(tasks)
            if chance.random() < 0.2:
                new = TriggerIndex(system.pool)
                await new.refresh()
                assert shown(new) == expected(tasks)


async def test_those_who_refresh_at_once_each_see_what_was_there_before(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        index = TriggerIndex(system.pool)

        async def created_and_seen(number: int) -> bool:
            await listen(system, f"task-{number}", f"stream-{number}")
            await index.refresh()
            return len(index.listening(f"stream-{number}")) == 1

        assert all(await asyncio.gather(*[created_and_seen(number) for number in range(30)]))


async def test_a_task_paused_before_it_listens_is_known_to_be_paused(
    database_url: str, redis_url: str
) -> None:
    async with a_system(database_url, redis_url) as system:
        index = TriggerIndex(system.pool)
        ship = await listen(system, "ship")
        ship = await happen(system, ship, task.change(ship, {**ship.definition, "schedule": None}, [], ""))
        await index.refresh()
        assert list(index.listening("orders")) == []
        ship = await happen(system, ship, task.pause(ship, None))
        await index.refresh()
        again = {"on": {"stream": "orders", "where": None, "input": None}}
        await happen(system, ship, task.change(ship, {**ship.definition, "schedule": again}, [], ""))
        await index.refresh()
        (listener,) = index.listening("orders")
        assert listener.task.status == "paused"
