"""Leasing as a worker does it, one step at a time: for tests that are the worker themselves."""

from typing import Any

from ordinaut.domain.events import NewEvent
from ordinaut.domain.run import Run
from ordinaut.work.lease import lease_due_work
from ordinaut.work.record import record
from tests.support.world import World

SETTINGS: dict[str, Any] = {"poll_seconds": 0.05, "drain_seconds": 0.0, "pool_max": 16}

TWO_STEPS = [{"id": "first", "uses": "test.probe"}, {"id": "second", "uses": "test.probe"}]


async def lease(world: World, limit: int = 100, worker: str = "w", seconds: float = 30.0) -> list[Run]:
    """Lease what is due for `worker`, and record that it starts."""
    return (await lease_due_work(world.system, worker, limit, seconds)).runs


async def finish(world: World, run: Run, worker: str = "w") -> None:
    """Record that the run has succeeded."""
    event = NewEvent("RunSucceeded", {"task": run.task_id, "output": None})
    await record(world.system, worker, run, [event])


def step_done(id: str = "say") -> NewEvent:
    """A step has succeeded."""
    data = {"step": id, "attempt": 1, "input": None, "output": None, "started_at": "", "finished_at": ""}
    return NewEvent("StepSucceeded", data)


async def leased_rows(world: World) -> set[str]:
    """The runs that somebody holds."""
    return {run_id for run_id, row in (await world.due_work()).items() if row["leased_by"]}


def keyed(key: str, limit: int, **policy: Any) -> dict[str, Any]:
    """The part of a definition that limits how many runs of a key go on at once."""
    return {"policy": {"concurrency": {"key": key, "limit": limit}, **policy}}


async def waiting_appends(world: World) -> list[int]:
    """The server processes of appends that wait for the head of the log."""
    return await _waiting(world, "%append_events%")


async def waiting_leases(world: World) -> list[int]:
    """The server processes of a worker's rounds that wait for the head of the log."""
    return await _waiting(world, "SELECT * FROM lease_due_work%")


async def _waiting(world: World, query: str) -> list[int]:
    rows = await world.system.pool.fetch(
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1"
        " AND datname = current_database() AND pid <> pg_backend_pid()",
        query,
    )
    return [row["pid"] for row in rows]
