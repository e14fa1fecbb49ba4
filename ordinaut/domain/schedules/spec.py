"""A task's `schedule` object: read, checked, completed.

    {"cron": "30 8 * * 1-5", "timezone": "Europe/Chisinau"}
    {"rrule": "FREQ=WEEKLY;BYDAY=MO", "timezone": …, "dtstart": …, "rdate": […], "exdate": […]}
    {"once": "2026-05-04T08:30:00", "timezone": …}
    {"every": "15m", "anchor": …}

`timezone` is UTC when absent (for `every` it only serves for showing). What depends on the moment of
creation (the DTSTART of a rule, the anchor of an interval) is filled in by `normalise_schedule`, so that
whoever reads the stored form needs no clock.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from ordinaut.domain.durations import format_duration, parse_duration
from ordinaut.domain.errors import Fault, Invalid
from ordinaut.domain.schedules import rrule_text, zones
from ordinaut.domain.schedules.cron import Cron
from ordinaut.domain.schedules.interval import Every
from ordinaut.domain.schedules.once import Once
from ordinaut.domain.schedules.rrule import RRule
from ordinaut.domain.schedules.schedule import Schedule

FIELDS = {
    "cron": ("cron", "timezone"),
    "rrule": ("rrule", "timezone", "dtstart", "rdate", "exdate"),
    "once": ("once", "timezone"),
    "every": ("every", "timezone", "anchor"),
}
LONGEST_LIST = 1000
"""The most instants RDATE or EXDATE may hold."""

_T = TypeVar("_T")
_KINDS = ", ".join(FIELDS)


def parse_schedule(spec: Mapping[str, Any], *, created_at: datetime) -> Schedule:
    """The rule a schedule object names. `created_at` (aware) stands in for an absent DTSTART or anchor.

    Raises Invalid; the pointers are relative to the schedule object ("/cron", "/exdate/0").
    """
    return _read(spec, created_at)[1]


def normalise_schedule(spec: Mapping[str, Any], created_at: datetime) -> dict[str, Any]:
    """The same schedule with everything filled in; normalising it again, at any time, changes nothing.

    Raises Invalid as `parse_schedule` does.
    """
    return _read(spec, created_at)[0]


def _read(spec: Mapping[str, Any], created_at: datetime) -> tuple[dict[str, Any], Schedule]:
    kind = _kind(spec)
    allowed = f"allowed: {', '.join(FIELDS[kind])}"
    faults = [
        Fault(f"/{_escaped(name)}", f"is not a field of a {kind} schedule", allowed)
        for name in spec
        if name not in FIELDS[kind]
    ]
    faults += [
        Fault(f"/{name}", f"must be text, not {type(spec[name]).__name__}")
        for name in (kind, "timezone", "dtstart", "anchor")
        if name in spec and name in FIELDS[kind] and not isinstance(spec[name], str)
    ]
    if faults:
        raise Invalid.all_of(faults)
    try:
        return _READERS[kind](spec, created_at)
    except OverflowError:
        raise Invalid.at("", "a date is outside the calendar", "use years between 2 and 9000") from None


def _kind(spec: Mapping[str, Any]) -> str:
    if not isinstance(spec, Mapping):
        raise Invalid.at("", "a schedule is an object", f"with exactly one of {_KINDS}")
    kinds = [kind for kind in FIELDS if kind in spec]
    if len(kinds) == 1:
        return kinds[0]
    if kinds:
        raise Invalid.at(f"/{kinds[1]}", f"{' and '.join(kinds)} in one schedule", "keep exactly one")
    raise Invalid.at("", "the schedule does not say when", f"give exactly one of {_KINDS}")


@lru_cache(1024)
def _known_cron(expression: str, tz: ZoneInfo) -> Cron:
    return Cron(expression, tz)  # immutable, and the same few in many tasks


def _cron(spec: Mapping[str, Any], created_at: datetime) -> tuple[dict[str, Any], Schedule]:
    tz = _zone(spec)
    cron = _named("/cron", lambda: _known_cron(spec["cron"], tz))
    return {"cron": cron.expression, "timezone": tz.key}, cron


def _once(spec: Mapping[str, Any], created_at: datetime) -> tuple[dict[str, Any], Schedule]:
    tz = _zone(spec)
    at = _moment("/once", spec["once"])
    return {"once": at.isoformat(), "timezone": tz.key}, Once(at, tz)


def _every(spec: Mapping[str, Any], created_at: datetime) -> tuple[dict[str, Any], Schedule]:
    tz = _zone(spec)
    interval = _named("/every", lambda: parse_duration(spec["every"]))
    anchor = created_at.replace(microsecond=0)
    if "anchor" in spec:
        anchor = _moment("/anchor", spec["anchor"])
        anchor = anchor if anchor.tzinfo else zones.to_instant(tz, anchor)
    every = _named("/every", lambda: Every(interval, anchor, tz))
    return {"every": format_duration(interval), "timezone": tz.key, "anchor": _utc(every.anchor)}, every


def _rrule(spec: Mapping[str, Any], created_at: datetime) -> tuple[dict[str, Any], Schedule]:
    lines = _named("/rrule", lambda: rrule_text.split_lines(spec["rrule"]))
    if lines.dtstart and "dtstart" in spec:
        raise Invalid.at("/dtstart", "DTSTART stands in the rule too", "keep one of the two")
    tz = _zone(spec) if "timezone" in spec or not (lines.dtstart and lines.dtstart[1]) else None
    if lines.dtstart and lines.dtstart[1]:
        from_rule = _named_zone("/rrule", lines.dtstart[1])
        if tz is not None and tz.key != from_rule.key:
            raise Invalid.at("/timezone", f"is {tz.key}, but DTSTART has TZID={from_rule.key}", "keep one")
        tz = from_rule
    assert tz is not None
    dtstart = _dtstart(spec, lines, tz, created_at)
    text = lines.rule.strip().rstrip(";").upper()
    rule = _named("/rrule", lambda: rrule_text.parse_rule(text, dtstart))
    rdate = _instants(spec, "rdate", lines.rdate, tz)
    exdate = _instants(spec, "exdate", lines.exdate, tz)
    added, removed = _absolute(rdate, tz), _absolute(exdate, tz)
    walls = frozenset(at for at in rdate if at.tzinfo is None)
    schedule = _named("/rrule", lambda: RRule(rule, text, tz, added, removed, walls))
    normal: dict[str, Any] = {"rrule": text, "timezone": tz.key, "dtstart": dtstart.isoformat()}
    for name, moments in (("rdate", rdate), ("exdate", exdate)):
        if moments:
            normal[name] = [_utc(at) if at.tzinfo else at.isoformat() for at in moments]
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

    When none is given it is the moment of creation, and then its seconds are dropped too unless the rule
    itself speaks of seconds: BYHOUR=8;BYMINUTE=30 is meant to fire at 08:30:00.
    """
    if lines.dtstart or "dtstart" in spec:
        pointer, text = ("/rrule", lines.dtstart[0]) if lines.dtstart else ("/dtstart", spec["dtstart"])
        given = _named(pointer, lambda: rrule_text.parse_moment(text, date_allowed=True))
        wall = zones.to_wall(tz, given) if given.tzinfo else given
        return wall.replace(microsecond=0)
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
    moments = [_moment(f"/{name}/{index}", item) for index, item in enumerate(given)]
    for text, tzid in in_rule:
        at = _moment("/rrule", text)
        if tzid and at.tzinfo is None and tzid != tz.key:
            at = zones.to_instant(_named_zone("/rrule", tzid), at)
        moments.append(at)
    return moments


def _absolute(moments: list[datetime], tz: ZoneInfo) -> frozenset[datetime]:
    return frozenset(at.astimezone(UTC) if at.tzinfo else zones.to_instant(tz, at) for at in moments)


def _zone(spec: Mapping[str, Any]) -> ZoneInfo:
    return _named_zone("/timezone", spec.get("timezone", "UTC"))


def _named_zone(pointer: str, name: str) -> ZoneInfo:
    try:
        return zones.zone(name)
    except KeyError:
        close = zones.suggest(name)
        hint = f"did you mean {close}?" if close else "use an IANA name such as Europe/Chisinau or UTC"
        raise Invalid.at(pointer, f"{name[:60]!r} is not a time zone", hint) from None


def _moment(pointer: str, text: str) -> datetime:
    return _named(pointer, lambda: rrule_text.parse_moment(text))


def _named(pointer: str, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except ValueError as wrong:
        raise Invalid.at(pointer, str(wrong)) from None


def _utc(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _escaped(name: object) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")
