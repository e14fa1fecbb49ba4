"""What a backfill does about each instant, and what it may become."""

from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.backfill import (
    Backfill,
    Done,
    Place,
    Wanted,
    evolve,
    finish,
    fold,
    place,
    request,
    stop,
)
from ordinaut.domain.errors import NotPossible
from ordinaut.domain.events import Event, NewEvent
from ordinaut.domain.ids import cause_id
from ordinaut.domain.planned import Occurrence, Planned, Replayed, Source
from ordinaut.domain.task import Task
from tests.support.given import NOON, Given, logged

TASK = Task("task-id", name="tick", status="active", version=3)
BETWEEN = (NOON.isoformat(), (NOON + timedelta(days=1)).isoformat())
WANTED = Wanted(*BETWEEN)

ledgers = st.sampled_from(["fired", "skipped", "none", "expected", "excluded"])
occurrences = st.lists(
    st.builds(
        Occurrence,
        st.integers(0, 1000).map(lambda n: NOON + timedelta(minutes=n)),
        st.integers(1, 3),
        ledgers,
        st.sampled_from([None, "paused", "missed"]),
        st.sampled_from([None, "run-1"]),
    ),
    max_size=30,
    unique_by=lambda one: one.at,
).map(lambda found: sorted(found, key=lambda one: one.at))
wishes = st.builds(
    Wanted,
    st.just(BETWEEN[0]),
    st.just(BETWEEN[1]),
    st.sampled_from(["oldest", "newest"]),
    st.integers(1, 100),
    st.booleans(),
    st.sampled_from([None, "the disk was full"]),
)


ENTRIES = Source("stream", "orders")
entries = st.lists(
    st.builds(
        Replayed,
        st.integers(1, 10**6).map(lambda n: f"{n}-0"),
        st.just(3),
        st.sampled_from(["fired", "skipped", "none", "collected", "unmatched", "rejected"]),
        st.integers(1, 10**6).map(lambda n: cause_id(n, "a run")),
        st.sampled_from([None, "paused", "it is not JSON"]),
        st.sampled_from([None, "run-1"]),
        st.sampled_from([None, {"amount": 1}, [True, "x"]]),
        st.integers(0, 16),
        st.sampled_from([None, "00ff00ff00ff00ff"]),
    ),
    max_size=30,
    unique_by=lambda one: one.id,
)


def asked(wanted: Wanted, *found: Planned) -> NewEvent:
    return request(TASK, wanted, found)[0]


def begun(one: Planned, *, rerun: bool = False, id: str = "b-1") -> Backfill:
    event = asked(Wanted(*BETWEEN, rerun=rerun), one)
    return fold(id, [logged(event, 1, f"backfill-{id}")])


def verdict(run_id: str, *, skipped: str | None = None, by: str | None = None) -> Event:
    cause: dict[str, Any] = {"kind": "backfill", "backfill": by} if by else {"kind": "schedule"}
    if skipped:
        return logged(NewEvent("OccurrenceSkipped", {"cause": cause, "reason": skipped}), 1, f"run-{run_id}")
    return logged(NewEvent("RunRequested", {"cause": cause}), 1, f"run-{run_id}")


@given(wishes, occurrences)
def test_the_plan_that_is_recorded_is_what_will_run_in_its_order(
    wanted: Wanted, found: list[Occurrence]
) -> None:
    events = request(TASK, wanted, found)
    backfill = fold("b-1", [logged(event, n) for n, event in enumerate(events, 1)])
    chosen = [one for one in found if one.will_run(rerun=wanted.rerun)]
    chosen.sort(key=lambda one: one.at, reverse=wanted.order == "newest")
    assert list(backfill.plan) == [replace(one, run=None) for one in chosen]
    assert backfill.state == ("running" if chosen else "finished")
    assert (backfill.task_id, backfill.task, backfill.rerun) == (TASK.id, TASK.name, wanted.rerun)
    assert (backfill.max_parallel, backfill.order) == (wanted.max_parallel, wanted.order)


@given(wishes, occurrences)
def test_every_instant_is_counted_once(wanted: Wanted, found: list[Occurrence]) -> None:
    # What is expected or excluded has no run.
    found = [one for one in found if one.run is None or one.verdict in ("fired", "skipped")]
    counts = wanted.counts(found)
    assert counts.pop("instants") == len(found)
    assert sum(counts.values()) == len(found)
    assert counts["run"] == sum(one.will_run(rerun=wanted.rerun) for one in found)


@given(wishes, entries)
def test_the_plan_of_a_replay_holds_what_its_runs_get(wanted: Wanted, found: list[Replayed]) -> None:
    wanted = replace(wanted, since="1-0", until=None, source=ENTRIES)
    events = request(TASK, wanted, found)
    backfill = fold("b-1", [logged(event, n) for n, event in enumerate(events, 1)])
    chosen = [one for one in found if one.will_run(rerun=wanted.rerun)]
    assert list(backfill.plan) == [
        replace(one, run=None) for one in (chosen[::-1] if wanted.order == "newest" else chosen)
    ]
    assert (backfill.source, backfill.since, backfill.until) == (ENTRIES, "1-0", None)


@given(wishes, entries)
def test_every_entry_is_counted_once(wanted: Wanted, found: list[Replayed]) -> None:
    counts = replace(wanted, source=ENTRIES).counts(found)
    assert counts.pop("entries") == len(found)
    assert counts["run"] == sum(one.will_run(rerun=wanted.rerun) for one in found)
    # One that is `fired` has a run.
    if all(one.run is not None or one.verdict != "fired" for one in found):
        assert sum(counts.values()) == len(found)


@given(ledgers, st.booleans(), st.sampled_from([None, "r"]))
def test_what_has_a_run_is_run_only_when_asked_and_what_is_excluded_or_ahead_never(
    ledger: Any, rerun: bool, run: str | None
) -> None:
    will = Occurrence(NOON, 1, ledger, None, run).will_run(rerun=rerun)
    assert not (will and run and not rerun)
    assert not (will and ledger in ("expected", "excluded"))
    if run is None and ledger in ("skipped", "none"):
        assert will


def test_an_instant_without_a_verdict_gets_the_run_a_clock_would_give_it() -> None:
    one = Occurrence(NOON, 1, "none")
    backfill = begun(one)
    scheduled, own, _ = one.candidates(backfill.id, TASK.id)
    assert place(backfill, one, {}) == Place(scheduled, {f"run-{own}": 0}, "none", None)


def test_a_skipped_instant_keeps_its_verdict_and_gets_a_run_of_its_own() -> None:
    one = Occurrence(NOON, 1, "skipped", "missed")
    backfill = begun(one)
    scheduled, own, _ = one.candidates(backfill.id, TASK.id)
    # Within a range of skipped instants only the first one's stream is there.
    assert place(backfill, one, {}) == Place(own, {f"run-{scheduled}": 0}, "skipped", "missed")
    first = {scheduled: verdict(scheduled, skipped="paused")}
    assert place(backfill, one, first) == Place(own, {f"run-{scheduled}": 1}, "skipped", "paused")


def test_an_instant_a_clock_has_skipped_since_the_plan_was_made_gets_a_run_of_its_own() -> None:
    one = Occurrence(NOON, 1, "none")
    backfill = begun(one)
    scheduled, own, _ = one.candidates(backfill.id, TASK.id)
    first = {scheduled: verdict(scheduled, skipped="overlap")}
    assert place(backfill, one, first) == Place(own, {f"run-{scheduled}": 1}, "skipped", "overlap")


def test_whatever_has_happened_to_an_item_it_gets_one_run_and_one_more_only_when_asked() -> None:
    """Every combination of what may be on the streams when it is its turn."""
    states: list[tuple[Any, str | None]] = [("none", None), ("skipped", "missed"), ("fired", None)]
    first_run = cause_id(1, "an entry")
    plans: list[Planned] = [
        *(Occurrence(NOON, 1, verdict, reason) for verdict, reason in states),
        *(Replayed("1-0", 1, verdict, first_run, reason) for verdict, reason in states),
    ]
    for one, rerun, first_one, second in product(plans, (False, True), (0, 1, 2, 3), (0, 1, 2)):
        backfill = begun(one, rerun=rerun) if one.verdict != "fired" else begun(one, rerun=True)
        scheduled, own, again = one.candidates(backfill.id, TASK.id)
        first: dict[str, Event] = {}
        if first_one:
            skipped = "missed" if first_one == 1 else None
            first[scheduled] = verdict(scheduled, skipped=skipped, by="other" if first_one == 3 else None)
        if second:
            first[own] = verdict(own, by="other" if second == 1 else "b-1")
        had = {id for id, event in first.items() if event.type == "RunRequested"}
        answer = place(backfill, one, first)
        if isinstance(answer, Place):
            assert answer.run_id not in first, "its stream is free"
            assert not had or (backfill.rerun and answer.run_id == again)
            assert all(
                int(stream.removeprefix("run-") in first) == n for stream, n in answer.requires.items()
            )
            first[answer.run_id] = verdict(answer.run_id, by="b-1")
            assert place(backfill, one, first) == Done(answer.run_id, own=True), "it is found again"
        else:
            assert answer.run_id in had
            assert answer.own == (answer.run_id == own and second == 2)
            assert answer.own or not backfill.rerun


def test_two_backfills_give_a_skipped_instant_the_same_run_and_their_own_when_it_runs_again() -> None:
    one = Occurrence(NOON, 1, "skipped", "missed")
    mine, other = one.candidates("b-1", TASK.id), one.candidates("b-2", TASK.id)
    assert mine[:2] == other[:2] and mine[2] != other[2]
    assert len({*mine, *other}) == 4


def state() -> Backfill:
    return Backfill("b-1")


PLANNED = asked(WANTED, Occurrence(NOON, 1, "none"))
ABOUT = {"task": TASK.id, "name": TASK.name}
STOPPED = NewEvent("BackfillStopped", ABOUT | {"reason": "enough"})
FINISHED = NewEvent("BackfillFinished", ABOUT)


def test_a_running_backfill_is_stopped_once_and_with_a_reason() -> None:
    Given(state(), evolve, PLANNED).when(stop, "enough").then(STOPPED)
    Given(state(), evolve, PLANNED, STOPPED).when(stop, "again").then()


def test_a_finished_backfill_cannot_be_stopped() -> None:
    Given(state(), evolve, PLANNED, FINISHED).when(stop, None).then_refused(NotPossible, "has finished")


def test_only_a_running_backfill_finishes() -> None:
    Given(state(), evolve, PLANNED).when(finish).then(FINISHED)
    Given(state(), evolve, PLANNED, STOPPED).when(finish).then()
    Given(state(), evolve, PLANNED, FINISHED).when(finish).then()


def test_a_backfill_remembers_who_stopped_it_and_why() -> None:
    backfill = fold("b-1", [logged(PLANNED, 1), logged(STOPPED, 2)])
    assert (backfill.state, backfill.stopped_by, backfill.stop_reason) == ("stopped", "test", "enough")
    assert backfill.ended_at is not None and backfill.stream_version == 2
