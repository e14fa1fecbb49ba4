"""Lists of schedules, `start`, `end` and `exclude`, held against plain walks over the same instants."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ordinaut.domain.errors import Invalid
from ordinaut.domain.policy import CatchUp
from ordinaut.domain.schedules import catch_up, zones
from ordinaut.domain.schedules.catch_up import plan_catch_up
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.spec import next_kept, normalise_schedule, parse_schedule, rule_of

BORN = datetime(2026, 1, 1, 10, 20, 30, tzinfo=UTC)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)
ZONES = (
    "UTC",
    "America/St_Johns",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Havana",
    "Asia/Beirut",
)
"""Havana and Beirut change their clocks at midnight; St John's did, a minute later, up to 2011."""

RULES: tuple[dict[str, Any], ...] = (
    {"cron": "*/30 * * * *"},
    {"cron": "0 0,9 * * *"},
    {"rrule": "FREQ=HOURLY;INTERVAL=5", "dtstart": "2010-01-01T00:00:00"},
    {"every": "7h", "anchor": "2010-01-01T00:00:00Z"},
)
STARTS = (
    date(2010, 11, 5),
    date(2026, 3, 6),
    date(2026, 3, 27),
    date(2026, 10, 2),
    date(2026, 10, 23),
    date(2026, 10, 30),
)
"""A few days before clocks change somewhere."""


def parse(spec: Any) -> Schedule:
    return parse_schedule(spec, created_at=BORN)


def walk(rule: Schedule, first: datetime, last: datetime) -> list[datetime]:
    """Every instant in (first, last]."""
    found, at = [], rule.next_after(first)
    while at is not None and at <= last:
        found.append(at)
        at = rule.next_after(at)
    return found


days = st.builds(lambda start, n: start + n * DAY, st.sampled_from(STARTS), st.integers(0, 5))
moments = st.builds(
    lambda day, minutes: datetime(day.year, day.month, day.day) + timedelta(minutes=minutes),
    days,
    st.integers(0, 1439),
)
ranges = st.tuples(days, days).map(sorted).map(lambda pair: f"{pair[0].isoformat()}/{pair[1].isoformat()}")
spans = st.tuples(moments, moments).map(sorted).filter(lambda pair: pair[0] < pair[1])
SUNDAYS = {"rrule": "FREQ=WEEKLY;BYDAY=SU", "dtstart": "2010-01-01"}
windows: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        SUNDAYS,
        {"cron": "0 22 * * *", "duration": "8h"},
        {"cron": "0 0 * * 6", "duration": "2d"},
        {"cron": "* 9 * * 1"},
        {"cron": "* * * * 6,0"},
        {"cron": "0-29,31 0,2-5 * * *"},
        {"once": "2026-10-25T00:00:00", "duration": "1d"},
    ]
)
exclusions = st.lists(
    days.map(date.isoformat) | ranges | windows
    | spans.map(lambda pair: f"{pair[0].isoformat()}/{pair[1].isoformat()}"),
    max_size=3,
)  # fmt: skip


def _midnight(tz: ZoneInfo, day: date) -> datetime:
    return zones.to_instant(tz, datetime.combine(day, time()))


def left_out(entry: Any, at: datetime, tz: ZoneInfo) -> bool:
    """Whether one entry of `exclude` leaves out `at`: said anew for each entry there is."""
    local = at.astimezone(tz)
    if isinstance(entry, dict):
        if entry.get("duration") == "8h":
            start = zones.to_instant(tz, datetime.combine(local.date(), time(22)))
            before = zones.to_instant(tz, datetime.combine(local.date() - DAY, time(22)))
            return any(since <= at < since + timedelta(hours=8) for since in (start, before))
        if "rrule" in entry:
            # From a Sunday's first midnight on, also where the clocks then go back into Saturday.
            sundays = [day for day in (local.date(), local.date() + DAY) if day.weekday() == 6]
            return any(_midnight(tz, day) <= at < _midnight(tz, day + DAY) for day in sundays)
        if "once" in entry:
            return local.date() == date(2026, 10, 25)
        if entry["cron"].startswith("0-29"):
            return local.minute in (*range(30), 31) and local.hour in (0, 2, 3, 4, 5)
        return local.weekday() == 0 and local.hour == 9 if "9" in entry["cron"] else local.weekday() in (5, 6)
    first, _, last = entry.partition("/")
    if "T" in first:
        start, end = (zones.to_instant(tz, datetime.fromisoformat(each)) for each in (first, last))
        return start <= at < end
    return first <= local.date().isoformat() <= (last or first)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(RULES), st.sampled_from(ZONES), exclusions, st.sampled_from(STARTS))
@example(RULES[0], "America/Havana", ["2026-10-31"], date(2026, 10, 30))
@example({"cron": "* 23,0 * * *"}, "America/St_Johns", ["2010-11-07"], date(2010, 11, 5))
@example({"cron": "*/30 * * * *"}, "America/St_Johns", [SUNDAYS], date(2010, 11, 5))
@example(RULES[0], "Asia/Beirut", ["2026-03-28", "2026-10-24"], date(2026, 3, 27))
def test_what_an_exclusion_leaves_out_is_what_each_of_its_entries_says(
    rule: dict[str, Any], zone: str, exclude: list[Any], start: date
) -> None:
    spec = rule | {"timezone": zone, "exclude": exclude}
    limited, tz = parse(spec), zones.zone(zone)
    since = datetime(start.year, start.month, start.day, tzinfo=UTC)
    named = walk(limited, since, since + 5 * DAY)
    assert named == walk(parse(rule | {"timezone": zone}), since, since + 5 * DAY)
    kept = [at for at in named if not any(left_out(entry, at, tz) for entry in exclude)]
    assert [at for at in named if not limited.excludes(at)] == kept
    found, at = [], limited.kept_after(since)
    while at is not None and at <= since + 5 * DAY:
        found.append(at)
        at = limited.kept_after(at)
    assert found == kept


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(RULES), st.sampled_from(ZONES), exclusions, moments, st.integers(0, 9))
def test_the_normal_form_names_the_same_and_stays_as_it_is(
    rule: dict[str, Any], zone: str, exclude: list[Any], start: datetime, length: int
) -> None:
    spec: dict[str, Any] = rule | {"timezone": zone, "exclude": exclude, "start": start.isoformat()}
    spec["end"] = (start.date() + (length + 1) * DAY).isoformat()
    for whole in (spec, [spec, rule]):
        normal = normalise_schedule(whole, BORN)
        assert normalise_schedule(normal, BORN + 400 * DAY) == normal
        since = start.replace(tzinfo=UTC) - DAY
        instants = walk(parse(whole), since, since + 4 * DAY)
        assert walk(rule_of(normal), since, since + 4 * DAY) == instants
        excluded = [at for at in instants if parse(whole).excludes(at)]
        assert [at for at in instants if rule_of(normal).excludes(at)] == excluded


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(RULES), min_size=1, max_size=4), exclusions, st.sampled_from(STARTS))
def test_a_list_names_every_instant_of_its_members_once_and_excludes_what_all_of_them_do(
    rules: list[dict[str, Any]], exclude: list[Any], start: date
) -> None:
    members = [rule | ({"exclude": exclude} if n % 2 else {}) for n, rule in enumerate(rules)]
    since = datetime(start.year, start.month, start.day, tzinfo=UTC)
    together, each = parse(members), [parse(member) for member in members]
    named = [set(walk(rule, since, since + 3 * DAY)) for rule in each]
    assert walk(together, since, since + 3 * DAY) == sorted(set().union(*named))
    for at in sorted(set().union(*named)):
        naming = [rule for rule, instants in zip(each, named, strict=True) if at in instants]
        assert together.excludes(at) == all(rule.excludes(at) for rule in naming)
        number, rule = together.naming(at)
        assert at in named[number] and rule.excludes(at) == together.excludes(at)


def test_both_limits_are_included_and_a_date_is_the_whole_day() -> None:
    hourly = {"cron": "0 * * * *", "timezone": "Europe/Berlin"}
    found = walk(parse(hourly | {"start": "2026-10-25", "end": "2026-10-25"}), BORN, BORN + 400 * DAY)
    assert len(found) == 25, "a day on which clocks go back"
    assert found[0] == datetime(2026, 10, 24, 22, tzinfo=UTC)
    exact = parse(hourly | {"start": "2026-10-25T09:00:00", "end": "2026-10-25T10:00:00"})
    assert [at.hour for at in walk(exact, BORN, BORN + 400 * DAY)] == [8, 9]


def test_a_rule_without_a_beginning_of_its_own_begins_at_its_start() -> None:
    start = {"start": "2026-05-01T09:15:00", "timezone": "Europe/Berlin"}
    for spec in ({"every": "36h"}, {"rrule": "FREQ=HOURLY;INTERVAL=36"}, {"rrule": "FREQ=WEEKLY"}):
        assert parse(spec | start).next_after(BORN) == datetime(2026, 5, 1, 7, 15, tzinfo=UTC), spec


def test_what_is_shown_as_next_passes_over_what_is_excluded() -> None:
    plain, monday = {"cron": "0 9 * * *", "timezone": "UTC"}, datetime(2026, 6, 1, 9, tzinfo=UTC)
    weekdays = plain | {"exclude": [{"cron": "* * * * 1-5", "timezone": "UTC", "duration": "1m"}]}
    assert next_kept(plain, monday) == monday
    assert next_kept(weekdays, monday) == monday + 5 * DAY
    assert next_kept([weekdays, plain], monday) == monday
    assert next_kept({"on": {"stream": "orders"}}, None) is next_kept(None, None) is None


POLICIES = [
    CatchUp("none"),
    CatchUp("latest"),
    CatchUp("all"),
    CatchUp("all", 3),
    CatchUp("all", None, 7200.0),
]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(RULES), min_size=1, max_size=2),
    exclusions.filter(bool),
    st.sampled_from(STARTS),
    st.sampled_from(POLICIES),
    st.integers(0, 3 * 86400),
)
def test_after_an_outage_each_instant_has_a_verdict_and_only_what_is_not_excluded_is_caught_up(
    rules: list[dict[str, Any]], exclude: list[Any], start: date, policy: CatchUp, outage: int
) -> None:
    rule = parse([member | {"exclude": exclude} for member in rules])
    first = rule.next_after(datetime(start.year, start.month, start.day, tzinfo=UTC))
    assert first is not None
    now = first + timedelta(seconds=outage)
    plan = plan_catch_up(rule, first, now, policy)
    named = walk(rule, first - TICK, now)
    told = dict.fromkeys(plan.fire, "fired")
    for skipped in plan.skipped:
        inside = [at for at in named if skipped.first <= at <= skipped.last]
        assert (skipped.count, inside[0], inside[-1]) == (len(inside), skipped.first, skipped.last)
        assert not told.keys() & set(inside)
        told |= dict.fromkeys(inside, skipped.reason)
    assert sorted(told) == named
    assert all((told[at] == "excluded") == rule.excludes(at) for at in named)
    kept = [at for at in named if told[at] != "excluded"]
    missed = list(takewhile(lambda at: told[at] == "missed", kept))
    assert kept[len(missed) :] == list(plan.fire), "what is missed is the oldest part"
    assert all(told[at] == "fired" for at in kept if now - at <= catch_up.GRACE)
    if policy.mode != "none" and kept and policy.window is None:
        assert told[kept[-1]] == "fired"


def test_a_weekend_of_minutes_is_passed_over_and_so_is_a_year_of_days() -> None:
    saturday = datetime(2026, 6, 6, tzinfo=UTC)
    weekdays = parse({"every": "1s", "exclude": [{"cron": "* * * * 6,0"}]})
    assert weekdays.kept_after(saturday) == saturday + 2 * DAY
    sabbatical = parse({"cron": "* * * * *", "exclude": ["2026-06-01/2027-05-31"]})
    assert sabbatical.kept_after(saturday) == datetime(2027, 6, 1, tzinfo=UTC)


def test_a_month_of_excluded_seconds_is_one_range_and_bounded() -> None:
    spec = {"every": "1s", "anchor": "2026-01-01T00:00:00Z", "exclude": ["2026-02-01/2026-02-28"]}
    due = datetime(2026, 2, 1, tzinfo=UTC)
    plan = plan_catch_up(parse(spec), due, due + 28 * DAY, CatchUp("all", 2))
    assert plan.fire == (due + 28 * DAY,)
    assert (plan.skipped[0].reason, plan.skipped[0].first) == ("excluded", due)
    assert sum(each.count for each in plan.skipped) == 28 * 86400


FAULTS: list[tuple[Any, str, str]] = [
    ([], "", "has 1 to 20"),
    ([{"cron": "0 9 * * *"}] * 21, "", "not 21"),
    ([{"cron": "0 9 * * *"}, {"cron": "0 25 * * *"}], "/1/cron", "hour"),
    (["0 9 * * *"], "/0", "an object"),
    ({"once": "2027-01-01T00:00:00", "end": "2027-01-02"}, "/end", "not a field of a once"),
    ({"cron": "0 9 * * *", "start": "2026-05-02", "end": "2026-05-01"}, "/end", "before the start"),
    ({"cron": "0 9 * * 1", "start": "2026-05-05", "end": "2026-05-06"}, "/end", "no instant between"),
    ({"cron": "0 9 * * *", "start": "soon"}, "/start", "not a day"),
    ({"cron": "0 9 * * *", "start": 5}, "/start", "must be text"),
    ({"cron": "0 9 * * *", "end": "9999-01-01"}, "/end", "outside the calendar"),
    ({"cron": "0 9 * * *", "exclude": "2026-05-01"}, "/exclude", "must be a list"),
    ({"cron": "0 9 * * *", "exclude": ["2026-05-01"] * 1001}, "/exclude", "at most 1000"),
    ({"cron": "0 9 * * *", "exclude": [{"cron": "0 9 * * *"}] * 21}, "/exclude", "more than 20 rules"),
    ([{"cron": "0 9 * * *", "exclude": [{"cron": "0 9 * * *"}] * 7}] * 3, "", "more than 20 rules"),
    ({"cron": "0 9 * * *", "exclude": ["2026-02-30"]}, "/exclude/0", "not a day"),
    ({"cron": "0 9 * * *", "exclude": ["2026-05-02/2026-05-01"]}, "/exclude/0", "is before"),
    (
        {"cron": "0 9 * * *", "exclude": ["2026-05-01T08:00:00/2026-05-01T08:00:00"]},
        "/exclude/0", "not behind",
    ),
    ({"cron": "0 9 * * *", "exclude": [7]}, "/exclude/0", "neither a day"),
    ({"cron": "0 9 * * *", "exclude": [{"cron": "61 * * * *"}]}, "/exclude/0/cron", "minute"),
    (
        {"cron": "0 9 * * *", "exclude": [{"cron": "* * * * *", "end": "2027-01-01"}]},
        "/exclude/0/end", "not a field",
    ),
    (
        {"cron": "0 9 * * *", "exclude": [{"cron": "* * * * *", "duration": "2 moons"}]},
        "/exclude/0/duration", "90s",
    ),
    (
        {"cron": "0 9 * * *", "exclude": [{"cron": "* * * * *", "duration": "0"}]},
        "/exclude/0/duration", "more than 0",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "pointer", "told"), FAULTS)
def test_a_wrong_limit_is_told_with_its_place(spec: Any, pointer: str, told: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(spec)
    (fault,) = caught.value.faults
    assert fault.pointer == pointer
    assert told in f"{fault.message} {fault.hint}"
