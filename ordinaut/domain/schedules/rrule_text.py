"""The text of a recurrence rule: `FREQ=WEEKLY;BYDAY=MO`, alone or in RFC 5545's content lines.

Content lines (section 3.8.5) may carry DTSTART, RDATE and EXDATE with TZID beside the RRULE. What the RFC
forbids (section 3.3.10) is refused here with the reason, instead of being given some meaning.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ordinaut.domain.schedules.recurrence import FREQUENCIES, Recurrence

WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
LARGEST_COUNT = 10_000
LARGEST_INTERVAL = 1_000_000
_LONGEST_TEXT = 4096
_RANGES = {
    "BYMONTH": (1, 12, False),
    "BYWEEKNO": (1, 53, True),
    "BYYEARDAY": (1, 366, True),
    "BYMONTHDAY": (1, 31, True),
    "BYHOUR": (0, 23, False),
    "BYMINUTE": (0, 59, False),
    "BYSECOND": (0, 60, False),
    "BYSETPOS": (1, 366, True),
}
_NAMES = ("FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYDAY", *_RANGES)
_DAY = re.compile(r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,12}", re.ASCII)
_BASIC = re.compile(r"(\d{8})(?:T(\d{6})(Z?))?", re.ASCII)


@dataclass(frozen=True)
class Lines:
    """What stood in the content lines. `dtstart`, `rdate` and `exdate` hold (text, TZID or "")."""

    rule: str = ""
    dtstart: tuple[str, str] | None = None
    rdate: tuple[tuple[str, str], ...] = ()
    exdate: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class RuleText:
    """A rule with its own two limits; `until` is aware when it was written with Z, else a wall time."""

    recurrence: Recurrence
    count: int | None
    until: datetime | None


def split_lines(text: str) -> Lines:
    """Take RFC 5545 content lines apart; a bare `FREQ=…` is the rule. Raises ValueError."""
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"a recurrence rule has at most {_LONGEST_TEXT} characters")
    lines = Lines()
    for line in re.sub(r"\r?\n[ \t]", "", text.strip()).splitlines():
        if line.strip():
            lines = _with_line(lines, line.strip())
    if not lines.rule:
        raise ValueError("there is no RRULE in it; write one as FREQ=WEEKLY;BYDAY=MO,TU")
    return lines


def _with_line(lines: Lines, line: str) -> Lines:
    head, colon, value = line.rpartition(":")
    if not colon:
        head, value = "RRULE", line
    name, *parameters = head.upper().split(";")
    tzid = ""
    for parameter in head.split(";")[1:]:
        key, _, content = parameter.partition("=")
        if key.upper() == "TZID":
            tzid = content
    if name == "RRULE":
        if lines.rule:
            raise ValueError("there is more than one RRULE; use one, or several schedules")
        return replace(lines, rule=value)
    if name == "EXRULE":
        raise ValueError("EXRULE is not supported: RFC 5545 dropped it; name the instants in EXDATE")
    if name == "DTSTART":
        return replace(lines, dtstart=(value, tzid))
    if any(parameter == "VALUE=PERIOD" for parameter in parameters):
        raise ValueError(f"{name} with periods is not supported; give instants")
    if name == "RDATE":
        return replace(lines, rdate=lines.rdate + tuple((part, tzid) for part in value.split(",")))
    if name == "EXDATE":
        return replace(lines, exdate=lines.exdate + tuple((part, tzid) for part in value.split(",")))
    raise ValueError(f"the line {name[:40]!r} is not known; allowed: DTSTART, RRULE, RDATE, EXDATE")


def parse_moment(text: str, *, date_allowed: bool = False) -> datetime:
    """`19970902T090000[Z]` or ISO 8601 with or without offset; naive when none was given. A date alone is
    midnight where allowed. Raises ValueError."""
    written = text.strip()
    date_only = re.fullmatch(r"\d{8}|\d{4}-\d{2}-\d{2}", written, re.ASCII) is not None
    if date_only and not date_allowed:
        raise ValueError(f"{written!r} needs a time of day, as in {written}T08:30:00")
    try:
        return datetime.fromisoformat(written)
    except ValueError:
        raise ValueError(
            f"{written[:40]!r} is not a date and time; "
            "write 2026-05-04T08:30:00, with Z or an offset when it is not local"
        ) from None


def parse_rule(text: str, dtstart: datetime) -> RuleText:
    """Read one rule for a naive `dtstart`. Raises ValueError with a sentence naming the part."""
    parts = _parts(text)
    freq = parts.get("FREQ", "")
    if freq not in FREQUENCIES:
        given = f"FREQ={freq} is not known" if freq else "FREQ is missing"
        raise ValueError(f"{given}; allowed: {', '.join(reversed(FREQUENCIES))}")
    _refuse_forbidden(parts, freq)
    sets = {
        "BYMONTH": "by_month",
        "BYWEEKNO": "by_week_no",
        "BYYEARDAY": "by_year_day",
        "BYMONTHDAY": "by_month_day",
        "BYHOUR": "by_hour",
        "BYMINUTE": "by_minute",
        "BYSECOND": "by_second",
    }
    by: dict[str, frozenset[int]] = {
        field_name: frozenset(_integers(part, parts[part]) if part in parts else ())
        for part, field_name in sets.items()
    }
    # Section 3.3.12: without leap seconds, second 60 is second 59.
    by["by_second"] = frozenset(min(second, 59) for second in by["by_second"])
    recurrence = Recurrence(
        freq=freq,
        dtstart=dtstart,
        interval=_positive(parts, "INTERVAL", LARGEST_INTERVAL) or 1,
        wkst=_weekday(parts.get("WKST", "MO")),
        by_day=frozenset(_by_days(parts.get("BYDAY", ""), freq)),
        by_set_pos=tuple(_integers("BYSETPOS", parts["BYSETPOS"])) if "BYSETPOS" in parts else (),
        **by,
    )
    return RuleText(recurrence, _positive(parts, "COUNT", LARGEST_COUNT), _until(parts))


def _parts(text: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in text.strip().rstrip(";").upper().split(";"):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise ValueError(f"{part[:40]!r} is not NAME=VALUE; a rule looks like FREQ=WEEKLY;BYDAY=MO")
        if name not in _NAMES:
            raise ValueError(f"{name[:40]} is not a rule part; allowed: {', '.join(_NAMES)}")
        if name in parts:
            raise ValueError(f"{name} is there twice")
        parts[name] = value
    return parts


def _refuse_forbidden(parts: Mapping[str, str], freq: str) -> None:
    """Section 3.3.10: combinations that MUST NOT be."""
    if "COUNT" in parts and "UNTIL" in parts:
        raise ValueError("COUNT and UNTIL exclude each other; keep one")
    if "BYWEEKNO" in parts and freq != "YEARLY":
        raise ValueError(f"BYWEEKNO is for FREQ=YEARLY, not for {freq}")
    if "BYYEARDAY" in parts and freq in ("DAILY", "WEEKLY", "MONTHLY"):
        raise ValueError(f"BYYEARDAY is not for FREQ={freq}; use FREQ=YEARLY")
    if "BYMONTHDAY" in parts and freq == "WEEKLY":
        raise ValueError("BYMONTHDAY is not for FREQ=WEEKLY; use FREQ=MONTHLY")
    if "BYSETPOS" in parts and not any(name.startswith("BY") and name != "BYSETPOS" for name in parts):
        raise ValueError("BYSETPOS chooses among what another BY part names; add one")
    numbered = re.search(r"\d", parts.get("BYDAY", "")) is not None
    if numbered and (freq not in ("MONTHLY", "YEARLY") or "BYWEEKNO" in parts):
        raise ValueError("BYDAY with a number (2MO) is for FREQ=MONTHLY or YEARLY without BYWEEKNO")


def _by_days(text: str, freq: str) -> list[tuple[int, int]]:
    days = []
    for item in text.split(",") if text else ():
        match = _DAY.fullmatch(item.strip())
        number = int(match[1] or 0) if match else 0
        if match is None or (match[1] and not 1 <= abs(number) <= (53 if freq == "YEARLY" else 5)):
            raise ValueError(f"BYDAY={item[:20]} is wrong; allowed: {', '.join(WEEKDAYS)}, 1MO to 5MO, -1FR")
        days.append((_weekday(match[2]), number))
    return days


def _integers(name: str, text: str) -> list[int]:
    low, high, signed = _RANGES[name]
    numbers = []
    for item in text.split(","):
        number = int(item) if _INTEGER.fullmatch(item) else None
        if number is None or not low <= (abs(number) if signed else number) <= high:
            allowed = f"{low} to {high}" + (f" or -{high} to -{low}" if signed else "")
            raise ValueError(f"{name}={item[:20]} is wrong; allowed: {allowed}")
        numbers.append(number)
    return numbers


def _positive(parts: Mapping[str, str], name: str, largest: int) -> int | None:
    if name not in parts:
        return None
    number = int(parts[name]) if _INTEGER.fullmatch(parts[name]) else 0
    if not 1 <= number <= largest:
        hint = "; use UNTIL for a later end" if name == "COUNT" else ""
        raise ValueError(f"{name}={parts[name][:20]} is wrong; allowed: 1 to {largest}{hint}")
    return number


def _weekday(text: str) -> int:
    if text not in WEEKDAYS:
        raise ValueError(f"{text[:20]!r} is not a weekday; allowed: {', '.join(WEEKDAYS)}")
    return WEEKDAYS.index(text)


def _until(parts: Mapping[str, str]) -> datetime | None:
    if "UNTIL" not in parts:
        return None
    match = _BASIC.fullmatch(parts["UNTIL"])
    if match is None:
        raise ValueError(f"UNTIL={parts['UNTIL'][:40]} is wrong; write UNTIL=20261231T235959Z")
    try:
        until = parse_moment(parts["UNTIL"], date_allowed=True)
    except ValueError:
        raise ValueError(f"UNTIL={parts['UNTIL'][:40]} names no day of the calendar") from None
    # A date alone includes the whole day.
    return until if match[2] else until + timedelta(days=1, microseconds=-1)
