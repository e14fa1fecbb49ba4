"""A task's `schedule`: one object or a list of them, read, checked, completed.

    {"cron": "30 8 * * 1-5", "timezone": "Europe/Chisinau"}
    {"rrule": "FREQ=WEEKLY;BYDAY=MO", "timezone": …, "dtstart": …, "rdate": […], "exdate": […]}
    {"once": "2026-05-04T08:30:00", "timezone": …}
    {"every": "15m", "anchor": …}

All but `once` take `start`, `end` and `exclude` (see spec_limits). `timezone` is UTC when absent (for `every`
it only serves for showing, and for the days of `exclude`). What depends on the moment of creation (the
DTSTART of a rule, the anchor of an interval) is filled in by `normalise_schedule`, so that whoever reads the
stored form needs no clock.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from ordinaut.domain.durations import format_duration, parse_duration
from ordinaut.domain.errors import Fault, Invalid
from ordinaut.domain.jsonvalues import escape, kind_of
from ordinaut.domain.schedules import rrule_text, spec_limits, zones
from ordinaut.domain.schedules.composite import Several
from ordinaut.domain.schedules.cron import Cron
from ordinaut.domain.schedules.interval import Every
from ordinaut.domain.schedules.once import Once
from ordinaut.domain.schedules.rrule import RRule
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.spec_values import (
    instant_of,
    moment,
    moment_text,
    named,
    named_zone,
    utc_text,
    zone_of,
)

KINDS = {
    "cron": ("cron", "timezone"),
    "rrule": ("rrule", "timezone", "dtstart", "rdate", "exdate"),
    "once": ("once", "timezone"),
    "every": ("every", "timezone", "anchor"),
}
"""The fields of each kind, without those of its limits."""

FIELDS = {kind: names if kind == "once" else (*names, *spec_limits.FIELDS) for kind, names in KINDS.items()}
LONGEST_LIST = 1000
"""The most instants RDATE or EXDATE may hold."""

MOST_MEMBERS = 20
"""The most schedules a task may have: each is asked for each instant."""

Spec = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""One schedule object or a list of them."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES = ", ".join(KINDS)


def parse_schedule(spec: Spec, *, created_at: datetime) -> Schedule:
    """The rule a schedule names. `created_at` (aware) stands in for an absent DTSTART or anchor.

    Raises Invalid; the pointers are relative to the schedule ("/cron", "/1/exdate/0").
    """
    return _read(spec, created_at)[1]


def normalise_schedule(spec: Spec, created_at: datetime) -> Any:
    """The same schedule with everything filled in; normalising it again, at any time, changes nothing.

    Raises Invalid as `parse_schedule` does.
    """
    return _read(spec, created_at)[0]


def is_timed(schedule: Any) -> bool:
    """Whether a normalised schedule names instants: it is neither absent nor `{"on": …}`."""
    return schedule is not None and "on" not in schedule


def trigger_of(schedule: Any) -> dict[str, Any] | None:
    """What stands under `on` in a normalised schedule; None for any other."""
    on: dict[str, Any] | None = schedule.get("on") if isinstance(schedule, Mapping) else None
    return on


def rule_of(schedule: Spec) -> Schedule:
    """The rule of a normalised schedule: complete in itself, and the same for many tasks."""
    return _known_rule(orjson.dumps(schedule))


def next_kept(schedule: Any, at: datetime | None) -> datetime | None:
    """`at`, the next instant a normalised schedule names, or the first one after it that is not excluded."""
    if at is None or not is_timed(schedule):
        return at
    members = schedule if isinstance(schedule, list) else [schedule]
    if not any("exclude" in member for member in members):
        return at  # so the rule need not be read
    return rule_of(schedule).first_kept(at)


@lru_cache(1024)
def _known_rule(normalised: bytes) -> Schedule:
    return parse_schedule(orjson.loads(normalised), created_at=_EPOCH)


def _read(spec: Spec, created_at: datetime) -> tuple[Any, Schedule]:
    if isinstance(spec, Mapping) or not isinstance(spec, list):
        return _read_one(spec, created_at)
    if not 1 <= len(spec) <= MOST_MEMBERS:
        raise Invalid.at("", f"a list of schedules has 1 to {MOST_MEMBERS} of them, not {len(spec)}")
    if sum(spec_limits.excluding_rules(each) for each in spec) > spec_limits.MOST_RULES:
        what = f"together they exclude what more than {spec_limits.MOST_RULES} rules name"
        raise Invalid.at("", what, "put their times into fewer rules")
    read: list[tuple[dict[str, Any], Schedule]] = []
    faults: list[Fault] = []
    for index, each in enumerate(spec):
        try:
            read.append(_read_one(each, created_at))
        except Invalid as invalid:
            faults += [fault.under(f"/{index}") for fault in invalid.faults]
    if faults:
        raise Invalid.all_of(faults)
    return [normal for normal, _ in read], Several([rule for _, rule in read])


def _read_one(spec: Any, created_at: datetime) -> tuple[dict[str, Any], Schedule]:
    kind = _kind(spec, FIELDS)
    try:
        normal, rule = _READERS[kind](spec, created_at)
        limits, within = spec_limits.limited(spec, rule, created_at, _read_rule)
    except OverflowError:
        raise Invalid.at("", "a date is outside the calendar", "use years between 2 and 9000") from None
    return normal | limits, within


def _read_rule(spec: Mapping[str, Any], created_at: datetime) -> tuple[dict[str, Any], Schedule]:
    """A rule without limits."""
    return _READERS[_kind(spec, KINDS)](spec, created_at)


def _kind(spec: Any, fields: Mapping[str, Sequence[str]]) -> str:
    """Which kind of schedule it is; every field is one of that kind's. Raises Invalid."""
    if not isinstance(spec, Mapping):
        raise Invalid.at("", "a schedule is an object", f"with exactly one of {_NAMES}")
    kinds = [kind for kind in KINDS if kind in spec]
    if len(kinds) > 1:
        hint = "keep exactly one, or make it a list of schedules"
        raise Invalid.at(f"/{kinds[1]}", f"{' and '.join(kinds)} in one schedule", hint)
    if not kinds:
        raise Invalid.at("", "the schedule does not say when", f"give exactly one of {_NAMES}")
    allowed = fields[kinds[0]]
    faults = [
        Fault(
            f"/{escape(name)}", f"is not a field of a {kinds[0]} schedule", f"allowed: {', '.join(allowed)}"
        )
        for name in spec
        if name not in allowed
    ]
    faults += [
        Fault(f"/{name}", f"must be text, not {kind_of(spec[name])}")
        for name in (kinds[0], "timezone", "dtstart", "anchor", "start", "end")
        if name in spec and name in allowed and not isinstance(spec[name], str)
    ]
    if faults:
        raise Invalid.all_of(faults)
    return kinds[0]


@lru_cache(1024)
def _known_cron(expression: str, tz: ZoneInfo) -> Cron:
    return Cron(expression, tz)  # immutable, and the same few in many tasks


def _cron(spec: Mapping[str, Any], created_at: datetime) -> tuple[dict[str, Any], Schedule]:
    tz = zone_of(spec)
    cron = named("/cron", lambda: _known_cron(spec["cron"], tz))
    return {"cron": cron.expression, "timezone": tz.key}, cron


def _once(spec: Mapping[str, Any], created_at: datetime) -> tuple[dict[str, Any], Schedule]:
    tz = zone_of(spec)
    at = moment("/once", spec["once"])
    return {"once": at.isoformat(), "timezone": tz.key}, Once(at, tz)


def _every(spec: Mapping[str, Any], created_at: datetime) -> tuple[dict[str, Any], Schedule]:
    tz = zone_of(spec)
    interval = named("/every", lambda: parse_duration(spec["every"]))
    anchor = spec_limits.default_start(spec, tz) or created_at.replace(microsecond=0)
    if "anchor" in spec:
        anchor = moment("/anchor", spec["anchor"])
    anchor = instant_of(tz, anchor)
    every = named("/every", lambda: Every(interval, anchor, tz))
    return {"every": format_duration(interval), "timezone": tz.key, "anchor": utc_text(every.anchor)}, every


def _rrule(spec: Mapping[str, Any], created_at: datetime) -> tuple[dict[str, Any], Schedule]:
    lines = named("/rrule", lambda: rrule_text.split_lines(spec["rrule"]))
    if lines.dtstart and "dtstart" in spec:
        raise Invalid.at("/dtstart", "DTSTART stands in the rule too", "keep one of the two")
    tz = zone_of(spec) if "timezone" in spec or not (lines.dtstart and lines.dtstart[1]) else None
    if lines.dtstart and lines.dtstart[1]:
        from_rule = named_zone("/rrule", lines.dtstart[1])
        if tz is not None and tz.key != from_rule.key:
            raise Invalid.at("/timezone", f"is {tz.key}, but DTSTART has TZID={from_rule.key}", "keep one")
        tz = from_rule
    assert tz is not None
    dtstart = _dtstart(spec, lines, tz, created_at)
    text = lines.rule.strip().rstrip(";").upper()
    rule = named("/rrule", lambda: rrule_text.parse_rule(text, dtstart))
    rdate = _instants(spec, "rdate", lines.rdate, tz)
    exdate = _instants(spec, "exdate", lines.exdate, tz)
    added, removed = _absolute(rdate, tz), _absolute(exdate, tz)
    walls = frozenset(at for at in rdate if at.tzinfo is None)
    schedule = named("/rrule", lambda: RRule(rule, text, tz, added, removed, walls))
    normal: dict[str, Any] = {"rrule": text, "timezone": tz.key, "dtstart": dtstart.isoformat()}
    for name, moments in (("rdate", rdate), ("exdate", exdate)):
        if moments:
            normal[name] = [moment_text(at) for at in moments]
    return normal, schedule


_READERS: dict[str, Callable[[Mapping[str, Any], datetime], tuple[dict[str, Any], Schedule]]] = {
    "cron": _cron,
    "rrule": _rrule,
    "once": _once,
    "every": _every,
}


def _dtstart(
    spec: Mapping[str, Any], lines: rrule_text.Lines, tz: ZoneInfo, created_at: datetime
) -> datetime:
    """DTSTART as a wall time in `tz`, without a fraction of a second.

    When none is given it is `start`; without that the moment of creation, and then its seconds are dropped
    too unless the rule itself speaks of seconds: BYHOUR=8;BYMINUTE=30 is meant to fire at 08:30:00.
    """
    if lines.dtstart or "dtstart" in spec:
        pointer, text = ("/rrule", lines.dtstart[0]) if lines.dtstart else ("/dtstart", spec["dtstart"])
        given = named(pointer, lambda: rrule_text.parse_moment(text, date_allowed=True))
        wall = zones.to_wall(tz, given) if given.tzinfo else given
        return wall.replace(microsecond=0)
    start = spec_limits.default_start(spec, tz)
    if start is not None:
        return start.replace(microsecond=0)
    wall = zones.to_wall(tz, created_at).replace(microsecond=0)
    rule = lines.rule.upper()
    return wall if "SECONDLY" in rule or "BYSECOND" in rule else wall.replace(second=0)


def _instants(
    spec: Mapping[str, Any], name: str, in_rule: tuple[tuple[str, str], ...], tz: ZoneInfo
) -> list[datetime]:
    """RDATE or EXDATE from both places: aware, or naive for wall times in `tz`."""
    given = spec.get(name, [])
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise Invalid.at(f"/{name}", "must be a list of instants", 'such as ["2026-05-01T08:30:00"]')
    if len(given) + len(in_rule) > LONGEST_LIST:
        raise Invalid.at(f"/{name}", f"holds more than {LONGEST_LIST} instants")
    moments = [moment(f"/{name}/{index}", item) for index, item in enumerate(given)]
    for text, tzid in in_rule:
        at = moment("/rrule", text)
        if tzid and at.tzinfo is None and tzid != tz.key:
            at = zones.to_instant(named_zone("/rrule", tzid), at)
        moments.append(at)
    return moments


def _absolute(moments: list[datetime], tz: ZoneInfo) -> frozenset[datetime]:
    return frozenset(instant_of(tz, at) for at in moments)
