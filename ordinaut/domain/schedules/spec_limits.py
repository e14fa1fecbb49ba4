"""`start`, `end` and `exclude` of a schedule object.

    {"cron": "0 9 * * *", "start": "2026-05-01", "end": "2026-12-31T18:00:00",
     "exclude": ["2026-12-25", "2026-08-01/2026-08-14", "2026-06-05T22:00:00/2026-06-06T04:00:00",
                 {"rrule": "FREQ=YEARLY;BYMONTH=1;BYMONTHDAY=1"}, {"cron": "0 22 * * *", "duration": "8h"}]}

Both limits are included; a date means the whole day in the schedule's zone. What is excluded is a day, an
instant, two of them (a range of days includes its last, a range of instants does not), or a rule: each of
its instants opens a window that lasts for `duration`. Without one a cron excludes its minutes, an `rrule`
that says no time of day its whole day, and any other rule its very instants.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from ordinaut.domain.durations import format_duration, parse_duration
from ordinaut.domain.errors import Invalid
from ordinaut.domain.schedules import zones
from ordinaut.domain.schedules.composite import Limited
from ordinaut.domain.schedules.cron import Cron
from ordinaut.domain.schedules.exclusions import TICK, Exclusions, Minutes, Window
from ordinaut.domain.schedules.remembering import Remembering
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.spec_values import instant_of, moment_text, named

FIELDS = ("start", "end", "exclude")
LONGEST_LIST = 1000
"""The most entries `exclude` may hold."""

MOST_RULES = 20
"""The most rules among them, in all of a list of schedules: each is asked for each instant."""

LONGEST_WINDOW = timedelta(days=366)
_WHOLE_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
_CLOCK_PARTS = re.compile(r"BYHOUR|BYMINUTE|BYSECOND|HOURLY|MINUTELY|SECONDLY|DTSTART")
_LAST_YEAR = 9000

ReadRule = Callable[[Mapping[str, Any], datetime], tuple[dict[str, Any], Schedule]]
"""Reads a schedule object without limits: (its normal form, the rule)."""


@dataclass(slots=True)
class _Parts:
    """What an `exclude` holds, sorted by kind, and its normal form."""

    normal: list[Any]
    days: list[tuple[date, date]]
    spans: list[tuple[datetime, datetime]]
    windows: list[Window | Minutes]


def default_start(spec: Mapping[str, Any], tz: ZoneInfo) -> datetime | None:
    """`start` as a wall time in `tz`, where a rule without a beginning of its own begins; None without."""
    if "start" not in spec:
        return None
    given = _day_or_moment("/start", spec["start"])
    if not isinstance(given, datetime):
        return datetime.combine(given, time())
    return zones.to_wall(tz, given) if given.tzinfo else given


def excluding_rules(spec: Any) -> int:
    """How many of the entries of its `exclude` are rules."""
    entries = spec.get("exclude") if isinstance(spec, Mapping) else None
    return sum(isinstance(entry, Mapping) for entry in entries) if isinstance(entries, list) else 0


def limited(
    spec: Mapping[str, Any], rule: Schedule, created_at: datetime, read_rule: ReadRule
) -> tuple[dict[str, Any], Schedule]:
    """The normal form of the fields of `FIELDS`, and `rule` within them. Raises Invalid."""
    normal: dict[str, Any] = {}
    tz = rule.tz
    first, last = _limit(spec, "start", normal, tz), _limit(spec, "end", normal, tz)
    if first is not None and last is not None and last < first:
        raise Invalid.at("/end", f"{spec['end']} is before the start, {spec['start']}")
    exclusions = None
    if spec.get("exclude"):
        parts = _exclude(spec["exclude"], tz, created_at, read_rule)
        normal["exclude"] = parts.normal
        exclusions = Exclusions(tz, parts.days, parts.spans, parts.windows)
    if not normal:
        return normal, rule
    within = Limited(rule, first, last, exclusions)
    if first is not None and within.next_after(first - TICK) is None:
        raise Invalid.at(
            "/end" if last else "/start", "the rule names no instant between the start and the end"
        )
    return normal, within


def _limit(spec: Mapping[str, Any], name: str, normal: dict[str, Any], tz: ZoneInfo) -> datetime | None:
    if name not in spec:
        return None
    given = _day_or_moment(f"/{name}", spec[name])
    if isinstance(given, datetime):
        normal[name] = moment_text(given)
        return instant_of(tz, given)
    normal[name] = given.isoformat()
    if name == "start":
        return zones.to_instant(tz, datetime.combine(given, time()))
    return zones.to_instant(tz, datetime.combine(given + _WHOLE_DAY, time())) - TICK


def _day_or_moment(pointer: str, text: str) -> date | datetime:
    try:
        found: date = date.fromisoformat(text.strip())
    except ValueError:
        try:
            found = datetime.fromisoformat(text.strip())
        except ValueError:
            hint = "write 2026-12-25, or 2026-12-25T08:30:00 with Z or an offset when it is not local"
            raise Invalid.at(pointer, f"{text[:40]!r} is not a day and not a date and time", hint) from None
    if not 2 <= found.year <= _LAST_YEAR:
        raise Invalid.at(
            pointer, f"{text[:40]} is outside the calendar", f"use years between 2 and {_LAST_YEAR}"
        )
    return found


def _exclude(entries: Any, tz: ZoneInfo, created_at: datetime, read_rule: ReadRule) -> _Parts:
    hint = 'such as ["2026-12-25", "2026-08-01/2026-08-14", {"rrule": "FREQ=WEEKLY;BYDAY=SU"}]'
    if not isinstance(entries, list):
        raise Invalid.at("/exclude", "must be a list of days, ranges and rules", hint)
    if len(entries) > LONGEST_LIST:
        raise Invalid.at("/exclude", f"has {len(entries)} entries; at most {LONGEST_LIST} are allowed")
    if excluding_rules({"exclude": entries}) > MOST_RULES:
        raise Invalid.at("/exclude", f"has more than {MOST_RULES} rules", "put their times into one rule")
    parts = _Parts([], [], [], [])
    for index, entry in enumerate(entries):
        try:
            if isinstance(entry, str):
                _range(entry, tz, parts)
            elif isinstance(entry, Mapping):
                _window(entry, tz, created_at, read_rule, parts)
            else:
                raise Invalid.at("", "is neither a day, a range nor a rule", hint)
        except Invalid as invalid:
            raise Invalid.all_of([each.under(f"/exclude/{index}") for each in invalid.faults]) from None
    return parts


def _range(text: str, tz: ZoneInfo, parts: _Parts) -> None:
    first_text, slash, last_text = text.partition("/")
    first = _day_or_moment("", first_text)
    last = _day_or_moment("", last_text) if slash else first
    shown = [each.isoformat() if type(each) is date else moment_text(each) for each in (first, last)]  # type: ignore[arg-type]
    parts.normal.append("/".join(shown) if slash else shown[0])
    if not isinstance(first, datetime) and not isinstance(last, datetime):
        if last < first:
            raise Invalid.at("", f"{last_text} is before {first_text}")
        parts.days.append((first, last))
        return
    start, end = _edge(first, tz, timedelta(0)), _edge(last, tz, _WHOLE_DAY)
    if not slash:
        end = start + TICK
    if end <= start:
        raise Invalid.at("", f"{last_text} is not behind {first_text}")
    parts.spans.append((start, end))


def _edge(given: date | datetime, tz: ZoneInfo, day: timedelta) -> datetime:
    if isinstance(given, datetime):
        return instant_of(tz, given)
    return zones.to_instant(tz, datetime.combine(given + day, time()))


def _window(
    spec: Mapping[str, Any], tz: ZoneInfo, created_at: datetime, read_rule: ReadRule, parts: _Parts
) -> None:
    rule_spec = {key: value for key, value in spec.items() if key != "duration"}
    if "TZID" not in str(spec.get("rrule")).upper():
        rule_spec.setdefault("timezone", tz.key)
    length = None
    if "duration" in spec:
        if not isinstance(spec["duration"], str):
            raise Invalid.at("/duration", "must be text", "such as 8h or 1d")
        length = named("/duration", lambda: parse_duration(spec["duration"]))
        if not timedelta(0) < length <= LONGEST_WINDOW:
            raise Invalid.at("/duration", "must be more than 0 and at most 366d")
    elif "cron" in spec:
        length = _MINUTE
    elif _is_of_days(spec):
        length = _WHOLE_DAY
        rule_spec.setdefault("dtstart", created_at.astimezone(tz).date().isoformat())
    normal, rule = read_rule(rule_spec, created_at)
    parts.normal.append(normal | ({} if length is None else {"duration": format_duration(length)}))
    if isinstance(rule, Cron) and length == _MINUTE:
        parts.windows.append(Minutes(rule))
    else:
        parts.windows.append(Window(Remembering(rule), length or TICK))


def _is_of_days(spec: Mapping[str, Any]) -> bool:
    """Whether a rule names days and no time of day."""
    if "rrule" not in spec or "rdate" in spec or not isinstance(spec["rrule"], str):
        return False
    if isinstance(start := spec.get("dtstart"), str):
        return re.fullmatch(r"\d{8}|\d{4}-\d{2}-\d{2}", start.strip()) is not None
    return _CLOCK_PARTS.search(spec["rrule"].upper()) is None
