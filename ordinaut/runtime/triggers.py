"""Which tasks listen to which stream, as fresh as the log, and what an event means for each of them."""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import asyncpg

from ordinaut.domain.definition import Definition, load_definition
from ordinaut.domain.errors import Invalid
from ordinaut.domain.events import EVENT_TYPES, Event, NewEvent
from ordinaut.domain.expressions import ExpressionError
from ordinaut.domain.jsonvalues import faults_in
from ordinaut.domain.matching import Match, Mismatch, match
from ordinaut.domain.patterns import EXPECTED
from ordinaut.domain.request import MAX_DEPTH, collect_event, key_of, request_run, skip_occurrence
from ordinaut.domain.schedules.spec import trigger_of
from ordinaut.domain.task import Task, evolve, fold, task_stream
from ordinaut.domain.trigger import LOG, sources_of
from ordinaut.log.append import Connection
from ordinaut.log.read import COLUMNS, read_streams, to_event
from ordinaut.runtime.listening import Listener, Listening, is_pattern, listeners_of, matches

REMEMBERED = 10_000
"""For how many streams it is remembered who listens."""

CHUNK = 1000
"""How many events are fetched at once."""

# One statement, so one snapshot: the rows are the fold of the log up to the checkpoint beside them. (Two
# statements in one REPEATABLE READ transaction would not do: a rebuilt table that is swapped in between
# them looks empty to the older snapshot.) Without a checkpoint the log is read from its beginning.
LOAD = """
SELECT c.position, t.id::text, t.space, t.name, t.status, t.definition, t.version, t.stream_version,
       t.created_at, t.changed_at, t.paused_reason, t.paused_until, t.snoozed_until
  FROM projection_checkpoints c
  LEFT JOIN tasks t ON t.definition #> '{schedule,on}' IS NOT NULL
 WHERE c.name = 'tasks'
"""

# The head comes along, so that the next look begins there and not at the last event of a task.
NEWS = f"""
SELECT h.position AS head, e.*
  FROM log_head h
  LEFT JOIN LATERAL (
      SELECT {COLUMNS} FROM events
       WHERE stream LIKE 'task-%' AND position > $1 AND position <= h.position
       ORDER BY position LIMIT $2
  ) e ON true
 ORDER BY e.position
"""


@dataclass(slots=True)  # not frozen: see ordinaut/domain/events.py
class Verdict:
    """What an event means for one listener: `event` begins the stream of its run, or `error` says why the
    trigger's `where` or `input` could not be evaluated on it."""

    task: Task
    event: NewEvent | None
    error: str | None = None


_Found = tuple[Listener, Match | str]


def verdicts(
    listeners: Iterable[Listener],
    seen: Mapping[str, Any],
    cause: Mapping[str, Any],
    *,
    now: datetime,
    depth: int = 0,
) -> Iterator[Verdict]:
    """What the event with the envelope `seen` means for those listeners it concerns: RunRequested, or
    EventCollected where a task waits for more (domain/windows.py); or OccurrenceSkipped when the task is
    paused or snoozed at `now`, or when `depth` runs have caused one another and that is too many. One
    listener's error is its own."""
    several: dict[str, list[_Found]] = {}
    for listener in listeners:
        found = _match(listener, seen)
        if found is None:
            continue
        if listener.part is None:
            yield _verdict([(listener, found)], seen, cause, now, depth)
        else:
            several.setdefault(listener.task.id, []).append((listener, found))
    for parts in several.values():
        yield _verdict(parts, seen, cause, now, depth)


def _match(listener: Listener, seen: Mapping[str, Any]) -> Match | str | None:
    """As `match`, with the error alone where the trigger fails."""
    try:
        found = match(listener.trigger, seen)
    except (ExpressionError, Invalid) as error:
        return str(error)
    return found.error if isinstance(found, Mismatch) else found


def _verdict(
    matched: Sequence[_Found], seen: Mapping[str, Any], cause: Mapping[str, Any], now: datetime, depth: int
) -> Verdict:
    """The verdict for one task, of whose pattern the event may be several parts."""
    listener = matched[0][0]
    task = listener.task
    given: dict[str | None, Any] = {}
    for one, found in matched:
        if isinstance(found, str):
            return Verdict(task, None, found)
        given[one.part] = found.input
    reason = task.skip_reason(now)
    if reason is not None:
        # A pause starts nothing, and makes nothing absent that came.
        matched = [one for one in matched if _is_expected(one[0])]
        given = {one.part: given[one.part] for one, _ in matched}
        reason = None if matched else reason
    if reason is None and depth > MAX_DEPTH:
        reason = "causation_depth"
    if reason is not None:
        return Verdict(task, skip_occurrence(task, cause, reason, {"depth": depth} if depth else None))
    for one, _ in matched:
        # What came in was checked on its way; what a mapping made of it was not.
        if one.on.input is not None and (faults := faults_in(given[one.part])):
            return Verdict(task, None, f"what `input` makes of it cannot be stored: {faults[0]}")
    on = listener.definition.on
    if on is None or on.pattern is None:
        return Verdict(task, request_run(task, listener.definition, cause, given[None], depth=depth))
    try:
        keys = {key_of(one.on.key, seen) for one, _ in matched}
    except ExpressionError as error:
        return Verdict(task, None, str(error))
    if len(keys) > 1:
        shown = " and ".join(repr(key) for key in sorted(keys))
        return Verdict(task, None, f"it is several parts of the pattern, with different keys: {shown}")
    (key,) = keys
    parts = [part for part in given if part is not None]
    payload = given if parts else given[None]
    # Whoever chooses ids may choose years to come: their window would never end, and hold all that follows.
    at = min(datetime.fromisoformat(seen["time"]), now).isoformat()
    return Verdict(task, collect_event(task, cause, on.pattern, key, at, payload, depth=depth, parts=parts))


def _is_expected(listener: Listener) -> bool:
    """Whether it hears what must not be absent."""
    on = listener.definition.on
    pattern = None if on is None else on.pattern
    return pattern is not None and pattern.kind == "absent" and listener.part == EXPECTED


@dataclass(frozen=True, slots=True)
class _Known:
    """A task that listens, and where its listeners stand: by source, under its id and the part."""

    task: Task
    definition: Definition
    places: Collection[tuple[str, tuple[str, str | None]]]


class TriggerIndex:
    """The stream triggers of all tasks in all spaces, in memory.

    After `await refresh()` it holds every task event that was in the log when `refresh` was called, so a
    task whose creation was acknowledged before an entry was added is not missed, and neither is a pause,
    however far projections lag. The first refresh loads the read table `tasks` and reads on in the log
    from its checkpoint; the later ones only read what is new.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._tasks: dict[str, _Known] = {}
        self._by_source: dict[str, dict[tuple[str, str | None], Listener]] = {}
        self._asked: dict[tuple[str, str | None], Listening] = {}
        self._loaded = False
        self._lock = asyncio.Lock()
        self._begun = 0
        self.position = 0
        """How far the log has been read."""
        self.changes = 0
        """How many times a listener came, changed or went."""

    def streams(self) -> frozenset[str]:
        """The names of all streams that some task listens to or, as far as is known, once did: the group on
        such a stream is kept moving, so that the next task to listen does not begin with what it missed.
        Those that only a pattern stands for are not among them."""
        return self._named(pattern=False)

    def patterns(self) -> frozenset[str]:
        """The patterns of streams that some task listens to, or once did."""
        return self._named(pattern=True)

    def _named(self, *, pattern: bool) -> frozenset[str]:
        streams = (name for name in self._by_source if not name.startswith(LOG))
        return frozenset(name for name in streams if is_pattern(name) is pattern)

    def event_types(self) -> frozenset[str]:
        """The types of the log's own events that some task listens to."""
        found = (name.removeprefix(LOG) for name, tasks in self._by_source.items() if tasks)
        return frozenset(found) & EVENT_TYPES

    def listening(self, stream: str, space: str | None = None) -> Listening:
        """The tasks that listen to `stream`, by its name or by a pattern: those of `space`, or of all spaces.
        The longest known first."""
        known = self._asked.get((stream, space))
        if known is None:
            if len(self._asked) >= REMEMBERED:
                self._asked.clear()  # names come from outside; there may be any number
            named = [stream, *(one for one in self.patterns() if matches(one, stream))]
            found = (one for name in named for one in self._by_source.get(name, {}).values())
            known = Listening([one for one in found if space is None or one.task.space == space])
            self._asked[stream, space] = known
        return known

    def listening_to_event(self, event: str, space: str) -> Listening:
        """The tasks of a space that listen to a type of the log's own events."""
        return self.listening(LOG + event, space)

    async def refresh(self) -> None:
        """Read what is new in the log. Those who call it while a reading is under way share the next one.
        Raises what asking PostgreSQL raises; the index is then as it was, or further."""
        last = self._begun
        async with self._lock:
            if self._begun > last:
                return  # a reading began after this call and has ended
            self._begun += 1
            try:
                async with self._pool.acquire() as connection:
                    if not self._loaded:
                        await self._load(connection)
                    while await self._read_on(connection):
                        pass
            except BaseException:
                # The reading that failed is nobody's news.
                self._begun -= 1
                raise

    async def _load(self, connection: Connection) -> None:
        rows = await connection.fetch(LOAD)
        for row in rows:
            self.position = row["position"]
            if row["id"] is not None:
                fields = {name: value for name, value in row.items() if name != "position"}
                self._put(Task(**fields))
        self._loaded = True

    async def _read_on(self, connection: Connection) -> bool:
        """Fold the next events; says whether there may be more."""
        rows = await connection.fetch(NEWS, self.position, CHUNK)
        events = [to_event(row) for row in rows if row["position"] is not None]
        strangers = {event.stream for event in events if self._fold(event)}
        # A task that begins to listen may have been paused before anybody here cared: its whole stream tells.
        streams = await read_streams(connection, list(strangers)) if strangers else {}
        for stream, history in streams.items():
            task = fold(stream.removeprefix("task-"), history)
            known = self._tasks.get(task.id)
            if known is None or known.task.stream_version < task.stream_version:
                self._put(task)
        self.position = events[-1].position if len(events) == CHUNK else rows[0]["head"]
        return len(events) == CHUNK

    def _fold(self, event: Event) -> bool:
        """Fold one event; says whether it makes a task listen of which nothing is known here."""
        task_id = event.stream.removeprefix("task-")
        known = self._tasks.get(task_id)
        if known is None:
            if event.type != "TaskCreated":
                return event.type == "TaskChanged" and bool(_sources_of(event.data["definition"]))
            task = Task(task_id)
        else:
            if event.version <= known.task.stream_version:
                return False
            task = replace(known.task)  # somebody may be deciding by the one there was
        evolve(task, event)
        self._put(task)
        return False

    def _put(self, task: Task) -> None:
        known = self._tasks.get(task.id)
        for source in _sources_of(task.definition):
            self._by_source.setdefault(source, {})
        if known is not None and known.definition.document is task.definition:
            definition = known.definition
        else:
            definition = load_definition(task.definition, task.name)
        listeners = listeners_of(task, definition) if task.exists else []
        if known is None and not listeners:
            return
        self.changes += 1
        self._asked.clear()
        places = {(one.source, (task.id, one.part)): one for one in listeners}
        for source, place in known.places if known is not None else ():
            if (source, place) not in places:
                del self._by_source[source][place]
        for (source, place), listener in places.items():
            self._by_source[source][place] = listener
        self._tasks.pop(task.id, None)
        if listeners:
            self._tasks[task.id] = _Known(task, definition, frozenset(places))


def _sources_of(definition: Mapping[str, Any]) -> Collection[str]:
    """What a task listens to, once or for each part of its pattern."""
    on = trigger_of(definition.get("schedule"))
    return () if on is None else sources_of(on).values()


def requires(task: Task) -> dict[str, int]:
    """What an append decided by this task's state must require: that the task is still in that state."""
    return {task_stream(task.id): task.stream_version}
