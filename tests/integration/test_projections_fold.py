"""I5: the read tables are a fold of the log. However the log is cut into batches, they come out the same,
and the same as the pure folds of the domain."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ordinaut.domain import backfill, deadletter, run, task
from ordinaut.domain.events import Event
from ordinaut.log.append import Append, Appended, append
from ordinaut.log.database import connect
from ordinaut.log.read import COLUMNS, head, read_after
from projections.projector import fold_range
from projections.registry import all_projections
from projections.runs import list_runs, public_run
from tests.support.history import OPERATIONS, World
from tests.unit.test_upcast import FILES, read

ONE, EACH, CUT = "fold_one", "fold_each", "fold_cut"
TABLES = tuple(all_projections())

OF_LETTERS = ("reject", "requeue", "requeue", "drop")
OF_TASKS = ("create", "change", "change_schedule", "pause", "resume", "snooze", "retire", "fire", "skip")
OF_BACKFILLS = (
    "backfill",
    "backfill_run",
    "backfill_run",
    "backfill_end",
    "lease",
    "succeed",
    "fail",
    "reopen",
)
OF_RUNS = tuple(o for o in OPERATIONS if o not in (*OF_TASKS, *OF_LETTERS) and o != "step")
BEGUN = [("create", 0, 2), ("create", 1, 1), ("request", 0, 3), ("request", 1, 4), ("fire", 0, 1)]


def some(kinds: Sequence[str], things: int, most: int) -> st.SearchStrategy[list[tuple[str, int, int]]]:
    operation = st.tuples(st.sampled_from(kinds), st.integers(0, things - 1), st.integers(0, 11))
    return st.lists(operation, min_size=10, max_size=most).map(lambda wanted: [*BEGUN, *wanted])


operations = (
    some(OF_LETTERS, 2, 25)
    | some(OF_TASKS, 2, 25)
    | some(OF_RUNS, 2, 25)
    | some(OF_BACKFILLS, 2, 30)
    | some(OPERATIONS, 4, 50)
)


class Folder:
    """A log, and three copies of every read table, each kept by another way of cutting it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spaces = 0
        self.runner = asyncio.Runner()
        self.connection: asyncpg.Connection = self.runner.run(self._open())

    async def _open(self) -> asyncpg.Connection:
        connection = await connect(self.url)
        for schema in (ONE, EACH, CUT):
            await connection.execute(f"CREATE SCHEMA {schema}")
            await connection.execute(f"SET search_path = {schema}, public")
            for projection in all_projections().values():
                await connection.execute(projection.ddl)
        return connection

    def close(self) -> None:
        self.runner.run(self.connection.close())
        self.runner.close()

    def space(self) -> str:
        self.spaces += 1
        return f"space-{self.spaces}"

    def tell(self, items: Sequence[Append]) -> list[Event]:
        return self.runner.run(self._tell(items))

    async def _tell(self, items: Sequence[Append]) -> list[Event]:
        base = await head(self.connection)
        async with self.connection.transaction():
            for item in items:
                (outcome,) = await append(self.connection, [item])
                assert isinstance(outcome, Appended), outcome
        return await read_after(self.connection, base, 100_000)

    def fold(self, schema: str, bounds: Sequence[int]) -> None:
        self.runner.run(self._fold(schema, bounds))

    async def _fold(self, schema: str, bounds: Sequence[int]) -> None:
        async with self.connection.transaction():
            await self.connection.execute(f"SET LOCAL search_path = {schema}, public")
            for after, upto in pairwise(bounds):
                for projection in all_projections().values():
                    await fold_range(self.connection, projection, after, upto)

    def rows(self, schema: str, table: str, space: str) -> list[dict[str, Any]]:
        rows = self.runner.run(
            self.connection.fetch(
                f"SELECT * FROM {schema}.{table} t WHERE space = $1 ORDER BY t::text", space
            )
        )
        return [dict(row) for row in rows]

    def listed(self, schema: str, space: str) -> dict[str, dict[str, Any]]:
        """The runs as the API lists them, by id."""
        return {run["id"]: run for _, run in self.runner.run(self._listed(schema, space))}

    async def _listed(self, schema: str, space: str) -> list[tuple[int, dict[str, Any]]]:
        async with self.connection.transaction():
            await self.connection.execute(f"SET LOCAL search_path = {schema}, public")
            return await list_runs(self.connection, space, before=2**63 - 1, limit=10_000)


@pytest.fixture
def folder(database_url: str) -> Iterator[Folder]:
    folder = Folder(database_url)
    yield folder
    folder.close()


def test_the_tables_do_not_depend_on_how_the_log_is_cut(folder: Folder) -> None:
    @settings(max_examples=40)
    @given(operations, st.sets(st.integers(1, 40), max_size=6))
    @example([("create", 0, 2), ("pause", 0, 1), ("retire", 0, 0)], {2})
    def check(wanted: list[tuple[str, int, int]], cuts: set[int]) -> None:
        space = folder.space()
        world = World(space)
        items = [item for operation in wanted if (item := world.do(*operation)) is not None]
        if not items:
            return
        events = folder.tell(items)
        first, last = events[0].position - 1, events[-1].position
        folder.fold(ONE, [first, last])
        folder.fold(EACH, range(first, last + 1))
        folder.fold(CUT, sorted({first, last, *(min(first + cut, last) for cut in cuts)}))
        for table in TABLES:
            whole = folder.rows(ONE, table, space)
            assert whole == folder.rows(EACH, table, space), table
            assert whole == folder.rows(CUT, table, space), table
        the_same_as_the_pure_folds(folder, space, events)

    check()


def the_same_as_the_pure_folds(folder: Folder, space: str, events: list[Event]) -> None:
    streams: dict[str, list[Event]] = {}
    for event in events:
        streams.setdefault(event.stream, []).append(event)
    the_same_letters(folder.rows(ONE, "dead_letters", space), streams)
    the_same_backfills(folder.rows(ONE, "backfills", space), streams)
    tasks = {
        str(row["id"]): {key: value for key, value in row.items() if key not in ("id", "labels", "title")}
        for row in folder.rows(ONE, "tasks", space)
    }
    runs = {str(row["id"]): row for row in folder.rows(ONE, "runs", space)}
    listed = folder.listed(ONE, space)
    due = {str(row["run_id"]): row for row in folder.rows(ONE, "due_work", space)}
    for stream, own in streams.items():
        kind, _, key = stream.partition("-")
        if kind == "task":
            known = task.fold(key, own)
            assert tasks.pop(key) == {
                name: getattr(known, name)
                for name in (
                    "space", "name", "status", "definition", "version", "stream_version", "created_at",
                    "changed_at", "paused_reason", "paused_until", "snoozed_until",
                )
            }  # fmt: skip
        elif own[0].type == "RunRequested":
            done = run.fold(key, own)
            row = runs.pop(key)
            same = (
                "space", "task", "task_version", "state", "attempt", "correlation", "simulate",
                "requested_at", "started_at", "finished_at",
            )  # fmt: skip
            assert {name: row[name] for name in same} == {name: getattr(done, name) for name in same}
            assert str(row["task_id"]) == done.task_id
            alone = {
                name: value for name, value in public_run(done).items() if name not in ("steps", "run_at")
            }
            assert listed.pop(key) == alone, "a run is listed as it is shown alone"
            assert row["position"] == own[0].position
            waits = due.pop(key, None)
            assert (waits is None) == done.ended, "a run is in due_work until it has ended"
            if waits is not None and done.state == "waiting":
                assert waits["run_at"] == done.run_at
            elif waits is not None and done.state == "queued":
                jitter = own[0].data.get("run_at")
                assert waits["run_at"] == (datetime.fromisoformat(jitter) if jitter else own[0].at)
    assert (tasks, runs, listed, due) == ({}, {}, {}, {}), "rows of nothing"


def the_same_letters(rows: list[dict[str, Any]], streams: dict[str, list[Event]]) -> None:
    letters = {stream: own for stream, own in streams.items() if stream.startswith("event-")}
    assert len(rows) == len(letters)
    for row in rows:
        known = deadletter.fold(str(row["id"]), letters[f"event-{row['id']}"])
        same = (
            "space", "kind", "stream", "entry_id", "reason", "state", "rejections", "history",
            "rejected_at", "decided_by", "decision_reason", "decided_at",
        )  # fmt: skip
        assert {name: row[name] for name in same} == {name: getattr(known, name) for name in same}
        assert row["position"] == letters[f"event-{row['id']}"][0].position


def the_same_backfills(rows: list[dict[str, Any]], streams: dict[str, list[Event]]) -> None:
    runs = [
        run.fold(stream.removeprefix("run-"), own)
        for stream, own in streams.items()
        if own[0].type == "RunRequested"
    ]
    begun = [stream for stream in streams if stream.startswith("backfill-")]
    assert len(rows) == len(begun)
    for row in rows:
        known = backfill.fold(str(row["id"]), streams[f"backfill-{row['id']}"])
        same = (
            "space", "task", "state", "since", "until", "max_parallel", "rerun", "reason", "counts",
            "requested_by", "requested_at", "stopped_by", "stop_reason", "ended_at",
        )  # fmt: skip
        assert {name: row[name] for name in same} == {name: getattr(known, name) for name in same}
        assert row["run_order"] == known.order
        states = Counter(one.state for one in runs if one.cause.get("backfill") == known.id)
        assert row["requested"] == states.total()
        for state in ("succeeded", "failed", "canceled", "parked"):
            assert row[state] == states[state], state


def test_schedules_stand_where_the_last_occurrence_left_them(folder: Folder) -> None:
    @settings(max_examples=25)
    @given(operations)
    def check(wanted: list[tuple[str, int, int]]) -> None:
        space = folder.space()
        world = World(space)
        items = [item for operation in wanted if (item := world.do(*operation)) is not None]
        if not items:
            return
        events = folder.tell(items)
        folder.fold(ONE, [events[0].position - 1, events[-1].position])
        found = {
            str(row["task_id"]): row["next_fire_at"]
            for row in folder.rows(ONE, "schedules", space)
            if row["next_fire_at"] is not None
        }
        assert found == world.plans
        verdicts = [
            (event.data["cause"]["at"], event.type)
            for event in events
            if event.type in ("RunRequested", "OccurrenceSkipped") and is_verdict(event.data["cause"])
        ]
        kinds = {"fired": "RunRequested", "skipped": "OccurrenceSkipped"}
        rows = folder.rows(ONE, "occurrences", space)
        assert sorted((row["at"].isoformat(), kinds[row["verdict"]]) for row in rows) == sorted(verdicts)

    check()


def is_verdict(cause: dict[str, Any]) -> bool:
    """What a backfill runs has its verdict already, unless it was left out of the ledger."""
    return cause["kind"] == "schedule" or (cause["kind"] == "backfill" and cause["verdict"] == "none")


async def test_every_event_type_ever_written_can_be_folded(database_url: str) -> None:
    """The golden corpus in one log, each stream with the event it must begin with."""
    corpus = sorted((read(path) for path in FILES), key=lambda event: event.position)
    requested = next(event for event in corpus if event.type == "RunRequested")
    created = next(event for event in corpus if event.type == "TaskCreated")
    events: list[Event] = []
    for event in corpus:
        kind = event.stream.partition("-")[0]
        begins = event.version == 1 or any(event.stream == other.stream for other in events)
        if kind in ("run", "task") and not begins:
            events.append(replace(requested if kind == "run" else created, stream=event.stream))
        events.append(event)
    connection = await connect(database_url)
    versions: Counter[str] = Counter()
    for position, event in enumerate(events, 1):
        versions[event.stream] += 1
        await connection.execute(
            f"INSERT INTO events ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            position, event.space, event.stream, versions[event.stream], event.type, event.schema, event.at,
            event.actor, event.correlation, event.causation, event.data,
        )  # fmt: skip
    await connection.execute("UPDATE log_head SET position = $1", len(events))
    for projection in all_projections().values():
        assert await fold_range(connection, projection, 0, len(events))
    begun = {event.stream for event in events if event.type == "RunRequested"}
    assert await connection.fetchval("SELECT count(*) FROM runs") == len(begun)
    await connection.close()
