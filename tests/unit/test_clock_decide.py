"""What becomes of a schedule that is due: every instant up to now gets one verdict (I8)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.clock.decide import Decision, Due, Verdict, as_of, decide, decide_ahead
from ordinaut.domain import ids
from ordinaut.domain.definition import Definition, parse_definition
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.spec import parse_schedule
from ordinaut.domain.task import Task

BORN = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
TASK_ID = ids.task_id("default", "tick")
RUNNING = ids.scheduled_run_id(TASK_ID, BORN - timedelta(hours=1))
QUEUED = ids.scheduled_run_id(TASK_ID, BORN - timedelta(minutes=30))


def seconds(number: float) -> datetime:
    return BORN + timedelta(seconds=number)


@dataclass
class Case:
    """A task with a schedule, and what the clock finds."""

    task: Task
    definition: Definition
    rule: Schedule

    def decide(
        self, now: datetime, *, due: datetime = BORN, unfinished: Sequence[str] = (), taken: Any = ()
    ) -> Decision:
        return decide(self.task, self.definition, self.rule, Due(TASK_ID, due, 1), now, unfinished, taken)


def case(schedule: dict[str, Any] | None = None, **policy: Any) -> Case:
    document = {
        "name": "tick",
        "schedule": schedule or {"every": "10s", "anchor": BORN.isoformat()},
        "pipeline": [{"id": "say", "uses": "debug.echo"}],
        "policy": policy,
    }
    definition = parse_definition(document, created_at=BORN, known_tools=None)
    task = Task(
        TASK_ID, name="tick", status="active", definition=definition.normalised(), version=1,
        stream_version=1, created_at=BORN,
    )  # fmt: skip
    assert definition.schedule is not None
    return Case(task, definition, parse_schedule(definition.schedule, created_at=BORN))


def shown(verdict: Verdict) -> tuple[int, str]:
    """Seconds after BORN, and `fired` or why not."""
    word = "fired" if verdict.fired else str(verdict.event.data["reason"])
    return int((verdict.at - BORN).total_seconds()), word


def told(decision: Decision) -> list[tuple[int, str]]:
    return [shown(verdict) for verdict in decision.verdicts]


def test_an_instant_that_comes_due_fires_with_its_cause() -> None:
    decision = case().decide(seconds(0.25))
    (verdict,) = decision.verdicts
    assert verdict.run_id == ids.scheduled_run_id(TASK_ID, BORN)
    assert verdict.event.type == "RunRequested"
    data = verdict.event.data
    assert data["cause"] == {"kind": "schedule", "at": BORN.isoformat(), "index": 0, "lateness": 0.25}
    assert data["next"] == seconds(10).isoformat()
    assert data["task_version"] == 1
    assert decision.next == seconds(10)
    assert "run_at" not in data and "concurrency" not in data


def test_nothing_is_decided_before_its_time() -> None:
    decision = case().decide(seconds(-1))
    assert decision == Decision((), (), BORN)


def test_a_single_instant_is_the_last_one() -> None:
    decision = case({"once": BORN.isoformat()}).decide(seconds(1))
    assert told(decision) == [(0, "fired")]
    assert decision.next is None
    assert decision.verdicts[0].event.data["next"] is None


def test_jitter_puts_the_run_off_by_less_than_it_and_always_by_the_same() -> None:
    jittery = case(jitter="5m")
    first, again = (jittery.decide(seconds(s)).verdicts[0].event.data["run_at"] for s in (0, 7))
    assert first == again
    assert BORN <= datetime.fromisoformat(first) < BORN + timedelta(minutes=5)


def test_a_paused_task_does_not_fire_and_says_so_in_one_event() -> None:
    paused = case(catch_up="all", overlap="allow")
    paused.task = replace(paused.task, status="paused")
    decision = paused.decide(seconds(3600))
    assert told(decision) == [(0, "paused")]
    data = decision.verdicts[0].event.data
    assert (data["from"], data["to"]) == (BORN.isoformat(), seconds(3600).isoformat())
    assert data["count"] == decision.verdicts[0].count == 361
    assert decision.next == seconds(3610)


def test_a_snoozed_task_skips_what_comes_before_the_end_of_the_snooze() -> None:
    snoozed = case(overlap="allow")
    snoozed.task = replace(snoozed.task, snoozed_until=seconds(20))
    decision = snoozed.decide(seconds(31))
    assert told(decision) == [(0, "snoozed"), (20, "fired"), (30, "fired")]
    assert decision.verdicts[0].count == 2
    assert decision.verdicts[0].event.data["next"] == seconds(20).isoformat()


@pytest.mark.parametrize(
    ("catch_up", "words"),
    [
        ("none", [(0, "paused"), (200, "missed"), (540, "fired")]),
        ("latest", [(0, "paused"), (200, "missed"), (540, "fired")]),
        ("all", [(0, "paused"), *((second, "fired") for second in range(200, 601, 10))]),
    ],
)
@pytest.mark.parametrize("resumed", [False, True], ids=["still_paused", "resumed"])
def test_what_is_due_after_the_end_of_a_pause_follows_the_policy(
    catch_up: str, words: list[tuple[int, str]], resumed: bool
) -> None:
    """Whether or not the clock has told the log that the pause is over."""
    held = case(catch_up=catch_up, overlap="allow")
    if resumed:
        held.task = replace(held.task, pause_ended=seconds(195))
    else:
        held.task = replace(held.task, status="paused", paused_until=seconds(195))
    decision = held.decide(seconds(600))
    assert told(decision)[: len(words)] == words
    assert decision.verdicts[0].count == 20
    assert decision.verdicts[0].event.data["next"] == seconds(200).isoformat()
    assert sum(verdict.count for verdict in decision.verdicts) == 61


def test_the_instant_a_pause_ends_at_fires() -> None:
    held = case(overlap="allow")
    held.task = replace(held.task, status="paused", paused_until=seconds(10))
    assert told(held.decide(seconds(12))) == [(0, "paused"), (10, "fired")]
    assert told(held.decide(seconds(9))) == [(0, "paused")]


def test_a_snooze_goes_on_when_a_pause_has_ended() -> None:
    held = case(overlap="allow")
    held.task = replace(held.task, pause_ended=seconds(15), snoozed_until=seconds(35))
    assert told(held.decide(seconds(41))) == [(0, "paused"), (20, "snoozed"), (40, "fired")]


def test_an_instant_of_a_pause_that_has_its_verdict_gets_no_other() -> None:
    held = case(overlap="allow")
    held.task = replace(held.task, status="paused", paused_until=seconds(15))
    decision = held.decide(seconds(21), taken={BORN})
    assert told(decision) == [(0, "deduplicated"), (10, "paused"), (20, "fired")]


def test_a_retired_task_gets_its_last_verdict() -> None:
    retired = case()
    retired.task = replace(retired.task, status="retired")
    decision = retired.decide(seconds(15))
    assert told(decision) == [(0, "retired")]
    assert decision.next is None


def test_an_instant_with_a_verdict_from_elsewhere_is_deduplicated() -> None:
    decision = case(overlap="allow").decide(seconds(21), taken={BORN, seconds(20)})
    assert told(decision) == [(0, "deduplicated"), (10, "fired"), (20, "deduplicated")]
    elsewhere = [ids.scheduled_run_id(TASK_ID, seconds(s)) for s in (0, 20)]
    assert {verdict.run_id for verdict in decision.verdicts}.isdisjoint(elsewhere)
    assert decision.next == seconds(30)


MISSED = [
    ("none", [(0, "missed")], 354),
    ("latest", [(0, "missed")], 354),
    ({"all": {"max": 2}}, [(0, "missed"), (3520, "fired"), (3530, "fired")], 352),
    ({"all": {"max": 9, "window": "80s"}}, [(0, "missed"), (3520, "fired"), (3530, "fired")], 352),
]  # fmt: skip


@pytest.mark.parametrize(("catch_up", "before", "count"), MISSED, ids=lambda value: str(value)[:24])
def test_after_an_outage_the_policy_says_what_still_fires(
    catch_up: Any, before: list[tuple[int, str]], count: int
) -> None:
    """At second 3600, what is at most a minute late is on time under every policy."""
    decision = case(catch_up=catch_up, overlap="allow").decide(seconds(3600))
    assert told(decision) == before + [(s, "fired") for s in range(3540, 3601, 10)]
    assert decision.verdicts[0].count == count


def test_of_rare_instants_the_latest_is_caught_up() -> None:
    daily = case({"cron": "0 8 * * *"})
    decision = daily.decide(BORN + timedelta(days=3, hours=5))
    assert told(decision) == [(0, "missed"), (3 * 86400, "fired")]
    assert decision.verdicts[0].count == 3
    assert decision.next == BORN + timedelta(days=4)


# Three instants (0, 10 and 20) are due at second 25; how many scheduled runs are unfinished already?
OVERLAPS: list[tuple[str, list[str], list[str], list[str]]] = [
    ("skip", [], ["fired", "overlap", "overlap"], []),
    ("skip", [RUNNING], ["overlap"] * 3, []),
    ("allow", [], ["fired"] * 3, []),
    ("allow", [RUNNING, QUEUED], ["fired"] * 3, []),
    ("queue_all", [], ["fired"] * 3, []),
    ("queue_all", [RUNNING, QUEUED], ["fired"] * 3, []),
    ("queue_one", [], ["fired", "fired", "overlap"], []),
    ("queue_one", [RUNNING], ["fired", "overlap", "overlap"], []),
    ("queue_one", [RUNNING, QUEUED], ["overlap"] * 3, []),
    ("cancel_running", [], ["overlap", "overlap", "fired"], []),
    ("cancel_running", [RUNNING, QUEUED], ["overlap", "overlap", "fired"], [RUNNING, QUEUED]),
]


@pytest.mark.parametrize(("overlap", "unfinished", "words", "canceled"), OVERLAPS)
def test_each_overlap_policy_with_each_number_of_unfinished_runs(
    overlap: str, unfinished: list[str], words: list[str], canceled: list[str]
) -> None:
    decision = case(overlap=overlap).decide(seconds(25), unfinished=unfinished)
    assert told(decision) == list(zip((0, 10, 20), words, strict=True))
    assert list(decision.cancel) == canceled


@pytest.mark.parametrize("overlap", ["queue_one", "queue_all"])
def test_queued_runs_of_a_task_run_one_at_a_time(overlap: str) -> None:
    (verdict,) = case(overlap=overlap).decide(BORN).verdicts
    assert verdict.event.data["concurrency"] == {"key": f"task/{TASK_ID}", "limit": 1}


def test_a_task_with_a_concurrency_of_its_own_keeps_it() -> None:
    own = case(overlap="queue_all", concurrency={"key": "reports", "limit": 3})
    (verdict,) = own.decide(BORN).verdicts
    assert verdict.event.data["concurrency"] == {"key": "default/reports", "limit": 3}


def test_nothing_is_canceled_for_an_instant_that_does_not_fire() -> None:
    paused = case(overlap="cancel_running")
    paused.task = replace(paused.task, status="paused")
    assert paused.decide(BORN, unfinished=[RUNNING]).cancel == ()


CATCH_UPS = st.sampled_from(["none", "latest", "all", {"all": {"max": 3}}, {"all": {"window": "5m"}}])
OVERLAP_NAMES = st.sampled_from(["skip", "queue_one", "queue_all", "cancel_running", "allow"])
SCHEDULES = st.sampled_from(
    [
        {"every": "7s", "anchor": BORN.isoformat()},
        {"cron": "*/5 * * * *"},
        {"cron": "30 2 * * *", "timezone": "Europe/Chisinau"},
        {"rrule": "FREQ=HOURLY;COUNT=40", "dtstart": BORN.isoformat()},
        {"once": BORN.isoformat()},
    ]
)


@given(
    schedule=SCHEDULES,
    catch_up=CATCH_UPS,
    overlap=OVERLAP_NAMES,
    outage=st.integers(0, 40_000),
    unfinished=st.sampled_from([[], [RUNNING], [RUNNING, QUEUED]]),
    state=st.sampled_from(["active", "paused", "snoozed"]),
    taken=st.sets(st.integers(0, 20)),
)
def test_every_instant_of_an_outage_gets_exactly_one_verdict(
    schedule: dict[str, Any],
    catch_up: Any,
    overlap: str,
    outage: int,
    unfinished: list[str],
    state: str,
    taken: set[int],
) -> None:
    there = case(schedule, catch_up=catch_up, overlap=overlap)
    if state == "paused":
        there.task = replace(there.task, status="paused")
    elif state == "snoozed":
        there.task = replace(there.task, snoozed_until=seconds(outage // 2))
    first = there.rule.next_after(BORN - timedelta(microseconds=1))
    assert first is not None
    now = first + timedelta(seconds=outage)
    expected = expansion(there.rule, first, now)
    elsewhere = {expected[n] for n in taken if n < len(expected)}
    decision = there.decide(now, due=first, unfinished=unfinished, taken=elsewhere)

    covered: list[datetime] = []
    for verdict in decision.verdicts:
        data = verdict.event.data
        if verdict.fired:
            covered.append(verdict.at)
            continue
        inside = expansion(there.rule, verdict.at, datetime.fromisoformat(data["to"]))
        assert len(inside) == data["count"] == verdict.count
        assert data["from"] == inside[0].isoformat()
        covered += inside
    assert covered == expected
    following = [verdict.at for verdict in decision.verdicts[1:]] + [decision.next]
    assert [verdict.event.data["next"] for verdict in decision.verdicts] == [
        at and at.isoformat() for at in following
    ]
    assert decision.next == there.rule.next_after(now)
    assert len({verdict.run_id for verdict in decision.verdicts}) == len(decision.verdicts)


def expansion(rule: Schedule, first: datetime, last: datetime) -> list[datetime]:
    found = []
    at = rule.next_after(first - timedelta(microseconds=1))
    while at is not None and at <= last:
        found.append(at)
        at = rule.next_after(at)
    return found


STATES: list[dict[str, Any]] = [
    {},
    {"status": "paused"},
    {"status": "retired"},
    {"snoozed_until": seconds(5)},
    {"status": "paused", "paused_until": seconds(15)},
]
AHEAD_RULES: list[dict[str, Any]] = [
    {"every": "10s", "anchor": BORN.isoformat()},
    {"every": "1h", "anchor": BORN.isoformat()},
    {"cron": "0 8 * * *"},
    {"once": BORN.isoformat()},
    {"rrule": "FREQ=MINUTELY", "dtstart": "2026-03-02T08:00:00", "exclude": ["2026-03-02T08:00:00"]},
]


@given(
    st.sampled_from(AHEAD_RULES),
    st.sampled_from(["skip", "queue_one", "queue_all", "cancel_running", "allow"]),
    st.sampled_from(["none", "latest", "all"]), st.sampled_from(["0s", "30s"]), st.sampled_from(STATES),
    st.floats(0, 90),
)  # fmt: skip
def test_what_is_decided_ahead_is_what_is_decided_then(
    rule: dict[str, Any], overlap: str, catch_up: str, jitter: str, state: dict[str, Any], late: float
) -> None:
    one = case(rule, overlap=overlap, catch_up=catch_up, jitter=jitter)
    one.task = replace(one.task, **state)
    ahead = decide_ahead(one.task, one.definition, one.rule, Due(TASK_ID, BORN, 1))
    assert (ahead is not None) == (one.decide(BORN).verdicts[0].fired)
    now = seconds(late)
    if ahead is not None and (then := as_of(ahead, now)) is not None:
        assert then == one.decide(now)
        assert list(then.verdicts[0].event.data) == list(one.decide(now).verdicts[0].event.data)


def test_what_is_decided_ahead_holds_while_it_is_on_time_and_alone() -> None:
    one = case({"every": "30s", "anchor": BORN.isoformat()})
    ahead = decide_ahead(one.task, one.definition, one.rule, Due(TASK_ID, BORN, 1))
    assert ahead is not None
    assert as_of(ahead, seconds(29.9)) == one.decide(seconds(29.9))
    assert as_of(ahead, seconds(30)) is None
    alone = case({"cron": "0 8 * * *"})
    ahead = decide_ahead(alone.task, alone.definition, alone.rule, Due(TASK_ID, BORN, 1))
    assert ahead is not None
    assert as_of(ahead, seconds(60)) == alone.decide(seconds(60))
    assert as_of(ahead, seconds(60.1)) is None
