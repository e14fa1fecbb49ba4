"""The checker of the occurrence ledger finds what was taken out of a complete one, and nothing else (I8)."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.schedules.catch_up import COUNT_CAP
from ordinaut.domain.schedules.ledger import BEGINNING, Comparison, Fault, Period, Verdict, newest
from ordinaut.domain.schedules.spec import parse_schedule

BORN = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
SCHEDULES: list[dict[str, Any]] = [
    {"every": "90s", "anchor": BORN.isoformat()},
    {"cron": "*/7 * * * *", "timezone": "Europe/Chisinau"},
    {"rrule": "FREQ=MINUTELY;INTERVAL=11", "dtstart": "2026-03-02T08:00:00", "timezone": "UTC"},
    {"once": (BORN + timedelta(minutes=5)).isoformat()},
]


def minutes(number: float) -> datetime:
    return BORN + timedelta(minutes=number)


def period(
    schedule: dict[str, Any], begins: datetime, ends: datetime, version: int = 1, following: int | None = None
) -> Period:
    rule = parse_schedule(schedule, created_at=BORN)
    first = rule.next_after(begins - timedelta(microseconds=1)) or ends + timedelta(days=1)
    return Period(rule, first, ends, ends - timedelta(seconds=1), [(begins, version)], following)


def faults(
    periods: Sequence[Period], verdicts: Iterable[Verdict], since: datetime = BEGINNING
) -> list[Fault]:
    comparison = Comparison(periods, since)
    found = [fault for verdict in verdicts for fault in comparison.take(verdict)]
    return found + list(comparison.finish())


def fired(at: datetime, version: int = 1) -> Verdict:
    return Verdict(at, at, 1, True, version)


@st.composite
def histories(draw: st.DrawFn) -> list[Period]:
    """A task whose schedule was changed a few times; between two of them there may have been none."""
    lengths = draw(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 200)), min_size=1, max_size=4))
    periods, at = [], 0
    for number, (pause, length) in enumerate(lengths, start=1):
        schedule, at = draw(st.sampled_from(SCHEDULES)), at + pause
        periods.append(period(schedule, minutes(at), minutes(at + length), number, number + 1))
        at += length
    return periods


@st.composite
def complete(draw: st.DrawFn, periods: list[Period]) -> list[tuple[Verdict, list[datetime]]]:
    """Verdicts for all instants of the periods, each with the instants it is about."""
    found: list[tuple[Verdict, list[datetime]]] = []
    for each in periods:
        instants, version = list(each.instants()), each.versions[0][1]
        while instants:
            size = draw(st.integers(1, 5)) if draw(st.booleans()) else 1
            part, instants = instants[:size], instants[size:]
            fires = len(part) == 1 and draw(st.booleans())
            found.append((Verdict(part[0], part[-1], len(part), fires, version), part))
    return found


@given(st.data())
def test_exactly_the_instants_taken_out_of_a_complete_ledger_are_found(data: st.DataObject) -> None:
    periods = data.draw(histories())
    ledger = data.draw(complete(periods))
    assert faults(periods, [verdict for verdict, _ in ledger]) == []
    kept = data.draw(st.lists(st.booleans(), min_size=len(ledger), max_size=len(ledger)))
    missing = [at for (_, instants), keep in zip(ledger, kept, strict=True) if not keep for at in instants]
    found = faults(periods, [verdict for (verdict, _), keep in zip(ledger, kept, strict=True) if keep])
    assert [fault.at for fault in found] == missing
    assert {fault.what for fault in found} <= {"has no verdict"}
    for fault in found:
        (owner,) = [each for each in periods if each.first <= fault.at < each.due_before]
        assert fault.version == owner.versions[0][1]


@given(st.data())
def test_exactly_the_verdicts_put_beside_a_complete_ledger_are_found(data: st.DataObject) -> None:
    periods = data.draw(histories())
    ledger = [verdict for verdict, _ in data.draw(complete(periods))]
    odd = data.draw(st.sets(st.integers(-50, 900), max_size=5))
    added = [fired(minutes(number) + timedelta(seconds=1)) for number in odd]
    found = faults(periods, sorted([*ledger, *added], key=lambda verdict: verdict.at))
    assert {fault.at for fault in found} == {verdict.at for verdict in added}
    assert {fault.what for fault in found} <= {"was fired, but no rule in force named it"}


@given(st.data())
def test_a_range_that_counts_wrongly_is_found(data: st.DataObject) -> None:
    periods = [period(SCHEDULES[0], minutes(0), minutes(60))]
    ledger = [verdict for verdict, _ in data.draw(complete(periods))]
    number = data.draw(st.integers(0, len(ledger) - 1))
    wrong = replace(ledger[number], count=ledger[number].count + data.draw(st.sampled_from([-1, 1, 7])))
    found = faults(periods, [*ledger[:number], wrong, *ledger[number + 1 :]])
    assert [fault.at for fault in found] == [wrong.at]


def test_a_range_that_was_counted_no_further_is_right() -> None:
    each = period({"every": "1s", "anchor": BORN.isoformat()}, BORN, BORN + timedelta(hours=3))
    assert faults([each], [Verdict(each.first, each.upto, COUNT_CAP, False, 1)]) == []


def test_a_range_of_an_older_schedule_is_no_verdict_for_the_one_in_force() -> None:
    old = period(SCHEDULES[0], minutes(0), minutes(60), 1, 2)
    new = period(SCHEDULES[1], minutes(60), minutes(70), 2)
    upto = new.upto - timedelta(seconds=1)
    found = faults([old, new], [Verdict(old.first, upto, 40, False, 1)])
    assert [fault.at for fault in found] == list(new.instants())
    assert {fault.version for fault in found} == {2}


def test_an_instant_that_may_be_undecided_yet_needs_no_verdict_and_may_have_one() -> None:
    each = replace(period(SCHEDULES[0], minutes(0), minutes(60)), due_before=minutes(3))
    first, second, third = minutes(0), minutes(1.5), minutes(3)
    assert faults([each], [fired(first), fired(second)]) == []
    assert faults([each], [fired(first), fired(second), fired(third)]) == []
    assert [fault.at for fault in faults([each], [fired(first)])] == [second]


def test_a_fault_names_the_version_that_was_in_force_at_its_instant() -> None:
    each = replace(period(SCHEDULES[0], minutes(0), minutes(6)), versions=[(BORN, 4), (minutes(2), 5)])
    assert [(fault.at, fault.version) for fault in faults([each], [])] == [
        (minutes(0), 4), (minutes(1.5), 4), (minutes(3), 5), (minutes(4.5), 5),
    ]  # fmt: skip


def test_the_instant_a_schedule_was_planned_with_is_one_whatever_the_rule_says_today() -> None:
    each = replace(period(SCHEDULES[0], minutes(0), minutes(3)), first=BORN + timedelta(seconds=1))
    assert [fault.at for fault in faults([each], [fired(minutes(1.5))])] == [each.first]


@given(histories(), st.integers(1, 60))
def test_a_long_history_is_looked_at_from_somewhere_within_its_newest_instants(
    periods: list[Period], limit: int
) -> None:
    instants = [at for each in periods for at in each.instants()]
    since = newest(periods, limit)
    if len(instants) <= limit:
        assert since == BEGINNING
    else:
        assert len([at for at in instants if at >= since]) <= limit
    verdicts = [fired(at, each.versions[0][1]) for each in periods for at in each.instants()]
    comparison = Comparison(periods, since)
    assert [one for each in verdicts if each.until >= since for one in comparison.take(each)] == []
    assert list(comparison.finish()) == []
    assert comparison.instants == len([at for at in instants if at >= since]) <= limit


def test_a_range_that_began_before_what_is_looked_at_still_decides_its_instants() -> None:
    each = period(SCHEDULES[0], minutes(0), minutes(60))
    ledger = [Verdict(minutes(0), minutes(30), 21, False, 1)]
    found = faults([each], ledger, since=minutes(27))
    assert [fault.at for fault in found] == [at for at in each.instants() if at > minutes(30)]
