"""Carrying out backfills: of each that is open, the next runs are asked for as those before them end.

What has been done stands in the log and nowhere else. A clock that begins looks at the streams of all the
planned runs, so it goes on where another was cut off; of several clocks one finds a stream taken. No run is
asked for behind a stop: every request requires the backfill's stream to be as it was read.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import structlog

from ordinaut.domain import backfill as decisions
from ordinaut.domain.backfill import Backfill, Done, Place, backfill_stream, evolve
from ordinaut.domain.errors import OrdinautError, Unavailable, VersionConflict
from ordinaut.domain.events import RUN_ENDED, Event, NewEvent, reference
from ordinaut.domain.planned import Planned
from ordinaut.domain.run import run_stream
from ordinaut.domain.task import Task, task_stream
from ordinaut.log.append import Append, Connection
from ordinaut.log.database import OUTAGE
from ordinaut.log.read import read_first, read_stream
from ordinaut.log.wake import LOG, PROJECTED, Wake
from ordinaut.runtime.system import System
from projections import backfills

ACTOR = "clock"

NEWS_SECONDS = 0.05
"""Changes of the log are looked at together: under load there are many a second."""

LOOKED_AT = 50
"""Planned items looked at together, at the least."""

LOADED = 1000
"""The same, when a backfill is met for the first time."""

TRIES = 5

# Of each run the last event that says whether there is more to do for it.
_ENDED = """
SELECT stream FROM (SELECT DISTINCT ON (stream) stream, type FROM events
                     WHERE stream = ANY ($1) AND type = ANY ($2) ORDER BY stream, version DESC) AS e
 WHERE type = ANY ($3)
"""

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Driven:
    """A backfill, the planned items that have no run yet as far as is known, in order, and the ids of its
    runs that have not ended."""

    backfill: Backfill
    todo: deque[Planned] = field(default_factory=deque)
    unfinished: set[str] = field(default_factory=set)


class Backfills:
    """Carries out every open backfill until told to stop."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._wake = Wake()
        self._news: asyncio.TimerHandle | None = None
        self._driven: dict[str, _Driven] = {}
        self._reported: set[str] = set()
        self._troubled = False

    async def run(self, stop: asyncio.Event) -> None:
        """Ask for runs, wait for some to end; outages of PostgreSQL are waited out."""
        hear = self._system.notifications.hear
        unhear = hear(PROJECTED, self._heard_of_table), hear(LOG, self._heard_of_log)
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self._wake.set())
        try:
            while not stop.is_set():
                try:
                    await self.advance()
                except (Unavailable, *OUTAGE) as error:
                    if not self._troubled:
                        logger.warning("backfill.waits", reason=f"{type(error).__name__}: {error}")
                    self._troubled = True
                else:
                    self._troubled = False
                await self._wake.wait(self._system.settings.poll_seconds)
        finally:
            for end in unhear:
                end()
            stopping.cancel()
            if self._news is not None:
                self._news.cancel()

    def _heard_of_table(self, payload: str) -> None:
        if payload in (backfills.PROJECTION.name, ""):
            self._wake.set()

    def _heard_of_log(self, _payload: str) -> None:
        if self._driven and self._news is None:
            self._news = asyncio.get_running_loop().call_later(NEWS_SECONDS, self._look_at_news)

    def _look_at_news(self) -> None:
        self._news = None
        self._wake.set()

    async def advance(self) -> None:
        """Bring every open backfill as far as it can be brought now.

        Raises what asking the database raises; doing it again is safe.
        """
        async with self._system.pool.acquire() as connection:
            open_ones = await backfills.running(connection)
        self._driven = {id: driven for id, driven in self._driven.items() if id in open_ones}
        for backfill_id in open_ones:
            try:
                await self._advance(backfill_id)
            except Exception as error:
                # What was off the list when it happened may not be back on it: it is made anew.
                self._driven.pop(backfill_id, None)
                self._bear(backfill_id, error)

    def _bear(self, backfill_id: str, error: Exception) -> None:
        """Bear what went wrong with one backfill, or raise it where it goes wrong with all."""
        if isinstance(error, VersionConflict):
            return  # others keep being first; the next time will do
        if isinstance(error, (Unavailable, *OUTAGE)):
            raise error
        # One that cannot be carried out must keep neither the others nor schedules from running.
        if backfill_id not in self._reported:
            self._reported.add(backfill_id)
            logger.error("backfill.cannot_go_on", backfill=backfill_id, exc_info=error)

    async def _advance(self, backfill_id: str) -> None:
        for _ in range(TRIES):
            async with self._system.pool.acquire() as connection:
                driven = await self._read(connection, backfill_id)
                if driven.backfill.state != "running":
                    return  # the table will hear of it
                places = await _places(connection, driven)
            if not places:
                if not driven.unfinished:
                    await self._end(driven.backfill, decisions.finish(driven.backfill))
                return
            task = await self._system.tasks.load(driven.backfill.task_id)
            if not task.exists:
                stopped = decisions.stop(driven.backfill, "the task was retired")
                await self._end(driven.backfill, stopped)
                return
            try:
                items = [await self._item(driven.backfill, task, *each) for each in places]
            except Unavailable:
                raise
            except OrdinautError as error:
                logger.error("backfill.stopped", backfill=backfill_id, task=task.name, reason=error.message)
                await self._end(driven.backfill, decisions.stop(driven.backfill, error.message))
                return
            # Whether they stand or not, the next look tells.
            await self._system.appender.append_all(items)

    async def _read(self, connection: Connection, backfill_id: str) -> _Driven:
        driven = self._driven.get(backfill_id) or _Driven(Backfill(backfill_id))
        version = driven.backfill.stream_version
        for event in await read_stream(connection, backfill_stream(backfill_id), after=version):
            evolve(driven.backfill, event)
        if version == 0:
            driven.todo = deque(driven.backfill.plan)
            await _load(connection, driven)
            self._driven[backfill_id] = driven
        return driven

    async def _item(self, backfill: Backfill, task: Task, one: Planned, place: Place) -> Append:
        definition = await self._system.tasks.definition(task.id, one.task_version)
        event = decisions.request_backfilled(
            backfill, replace(task, version=one.task_version), definition, one, place,
            self._system.time.now(),
        )  # fmt: skip
        requires = {
            backfill_stream(backfill.id): backfill.stream_version,
            task_stream(task.id): task.stream_version,
            **place.requires,
        }
        return Append(
            run_stream(place.run_id), 0, [event], task.space, ACTOR, backfill.correlation,
            reference(backfill_stream(backfill.id), 1), requires,
        )  # fmt: skip

    async def _end(self, backfill: Backfill, events: Sequence[NewEvent]) -> None:
        stream = backfill_stream(backfill.id)
        item = Append(
            stream, backfill.stream_version, events, backfill.space, ACTOR, backfill.correlation,
            reference(stream, 1),
        )  # fmt: skip
        await self._system.appender.append(item)


async def _places(connection: Connection, driven: _Driven) -> list[tuple[Planned, Place]]:
    """The next planned items and where their runs go, as many as may run at once. What has a run by now is
    taken off the list."""
    driven.unfinished -= await _ended(connection, driven.unfinished)
    places: list[tuple[Planned, Place]] = []
    while driven.todo and (room := driven.backfill.max_parallel - len(driven.unfinished) - len(places)) > 0:
        looked_at = [driven.todo.popleft() for _ in range(min(max(room, LOOKED_AT), len(driven.todo)))]
        free = await _look(connection, driven, looked_at)
        room = max(0, driven.backfill.max_parallel - len(driven.unfinished) - len(places))
        places += free[:room]
        driven.todo.extendleft(one for one, _ in reversed(free[room:]))
        if free[room:]:
            break
    driven.todo.extendleft(one for one, _ in reversed(places))
    return places


async def _load(connection: Connection, driven: _Driven) -> None:
    """Take off the list all that was done before this clock met the backfill."""
    todo, driven.todo = list(driven.todo), deque()
    for begin in range(0, len(todo), LOADED):
        free = await _look(connection, driven, todo[begin : begin + LOADED])
        driven.todo.extend(one for one, _ in free)


async def _look(
    connection: Connection, driven: _Driven, planned: Sequence[Planned]
) -> list[tuple[Planned, Place]]:
    """Those of the planned items that still have no run, and where it goes; the backfill's own runs that
    are found are noted when they have not ended."""
    backfill = driven.backfill
    wanted = {id for one in planned for id in one.candidates(backfill.id, backfill.task_id)}
    streams = await read_first(connection, [run_stream(run_id) for run_id in wanted])
    first: dict[str, Event] = {
        run_id: streams[s] for run_id in wanted if (s := run_stream(run_id)) in streams
    }
    free: list[tuple[Planned, Place]] = []
    found: set[str] = set()
    for one in planned:
        match decisions.place(backfill, one, first):
            case Done(run_id, own=True):
                found.add(run_id)
            case Place() as place:
                free.append((one, place))
    driven.unfinished |= found - await _ended(connection, found)
    return free


async def _ended(connection: Connection, run_ids: Collection[str]) -> set[str]:
    """Those of the runs that have ended and were not opened again."""
    if not run_ids:
        return set()
    told = [*RUN_ENDED, "RunRetryScheduled"]
    rows = await connection.fetch(_ENDED, [run_stream(run_id) for run_id in run_ids], told, sorted(RUN_ENDED))
    return {row["stream"].removeprefix("run-") for row in rows}
