"""What there is to replay: entries that are in a stream already, or events of the log, what a task's trigger
makes of each, and the run each has."""

import asyncio
from collections.abc import Sequence

import orjson

from ordinaut.domain.backfill import MOST_INSTANTS
from ordinaut.domain.errors import Invalid
from ordinaut.domain.events import Event
from ordinaut.domain.ids import replayed_run_id
from ordinaut.domain.planned import Ledger, Replayed, Source
from ordinaut.domain.run import run_stream
from ordinaut.log.read import read_first
from ordinaut.runtime.judging import Judged, judge
from ordinaut.runtime.listening import is_pattern
from ordinaut.runtime.past_entries import PastEntry, id_of, read_entries
from ordinaut.runtime.reach import Hearing, Reach
from ordinaut.runtime.system import System

MOST_INPUT_BYTES = 16 * 1024 * 1024
"""Of the inputs, as JSON, that one replay's plan may hold: it is one event of the log."""


def require_own_runs(hearing: Hearing) -> None:
    """Raise Invalid for a task that collects events."""
    if hearing.pattern is None:
        return
    kind = hearing.pattern.kind
    what = f"the task {hearing.task.name!r} collects events ({kind}): no entry has a run of its own"
    hint = "`ordinaut trigger test` shows what its windows would hold, and the runs that come of them"
    raise Invalid.at("/stream", what, hint)


def replayed_source(hearing: Hearing, reach: Reach) -> Source:
    """The stream, or the type of event, that is replayed: ids are those of one. Raises Invalid."""
    (source,) = reach.sources  # there are more only where events are collected
    if is_pattern(source.stream or ""):
        what = f"the task {hearing.task.name!r} listens to many streams, {source.stream!r}"
        raise Invalid.at("/stream", what, "name one of them")
    return source


async def past_entries(
    system: System, hearing: Hearing, reach: Reach, *, rerun: bool, most: int = MOST_INSTANTS
) -> list[Replayed]:
    """The entries in reach and what the task makes of them, oldest first.

    Raises Invalid for what is wrong with `reach`, and when there are more than `most` or their inputs are too
    large together; Unavailable when Redis does not answer.
    """
    task = hearing.task
    found: list[Replayed] = []
    size = 0
    async for entries in read_entries(system, task.space, reach):
        if len(found) + len(entries) > most:
            last = [*(one.id for one in found), *map(id_of, entries)][most - 1]
            hint = f"the first {most} end with {last}; take them in parts"
            raise Invalid.at("/to", f"there are more than {most} entries up to then", hint)
        # In a thread: expressions over large entries take their time.
        judged = await asyncio.to_thread(_judge_all, system, entries, hearing)
        first = await _first_events(system, judged)
        for one in judged:
            entry = _replayed(one, task.version, first, rerun=rerun)
            size += len(orjson.dumps(entry.input))
            if size > MOST_INPUT_BYTES:
                hint = f"end before {entry.id}; take them in parts"
                raise Invalid.at("/to", f"the inputs have more than {MOST_INPUT_BYTES} bytes", hint)
            found.append(entry)
    return found


def _judge_all(system: System, entries: Sequence[PastEntry], hearing: Hearing) -> list[Judged]:
    return [judge(system, entry, hearing) for entry in entries]


async def _first_events(system: System, judged: Sequence[Judged]) -> dict[str, Event]:
    """The first events of the runs the entries may have, by run id."""
    run_ids = {run for one in judged for run in (one.run, one.next_run) if run is not None}
    streams = [run_stream(id) for run in run_ids for id in (run, replayed_run_id(run))]
    async with system.pool.acquire() as connection:
        found = await read_first(connection, streams)
    return {stream.removeprefix("run-"): event for stream, event in found.items()}


def _replayed(one: Judged, version: int, first: dict[str, Event], *, rerun: bool) -> Replayed:
    first_run = one.run
    known = first.get(first_run)
    if one.next_run and known is not None and known.data.get("digest", one.digest) != one.digest:
        # The verdict is on another entry that had the same id: the stream was deleted and began anew.
        first_run = one.next_run
        known = first.get(first_run)
    run = next((id for id in (first_run, replayed_run_id(first_run)) if _requested(first.get(id))), None)
    verdict, reason = _verdict(one, known, run)
    # A plan holds the inputs of what it runs.
    given = one.input if rerun or run is None else None
    return Replayed(
        one.id, version, verdict, first_run, reason, run, given, depth=one.depth, digest=one.digest
    )


def _requested(event: Event | None) -> bool:
    return event is not None and event.type == "RunRequested"


def _verdict(one: Judged, known: Event | None, run: str | None) -> tuple[Ledger, str | None]:
    if one.outcome != "match":
        return ("unmatched" if one.outcome == "none" else "rejected"), one.reason
    if known is not None and known.type == "OccurrenceSkipped":
        return "skipped", known.data["reason"]
    if known is not None and known.type == "EventCollected":
        return "collected", None
    return ("none" if run is None else "fired"), None
