"""Cron expressions read and walked without any cron library: the plain way, minute by minute."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from ordinaut.domain.schedules.cron import Cron

MINUTE = timedelta(minutes=1)


def field(low: int, high: int) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    """A field's text with the numbers it stands for, made without any cron library."""
    number = st.integers(low, high)
    star = st.just(("*", frozenset(range(low, high + 1))))
    step = st.integers(1, 20).map(lambda n: (f"*/{n}", frozenset(range(low, high + 1, n))))
    span = st.tuples(number, number).map(
        lambda pair: (f"{min(pair)}-{max(pair)}", frozenset(range(min(pair), max(pair) + 1)))
    )
    listing = st.lists(number, min_size=1, max_size=3).map(lambda ns: (",".join(map(str, ns)), frozenset(ns)))
    return st.one_of(star, step, span, listing)


FIELDS = st.tuples(
    field(0, 59), field(0, 23), field(1, 31), st.just(("*", frozenset(range(1, 13)))), field(0, 7)
)
Fields = tuple[tuple[str, frozenset[int]], ...]


def _day_matches(day: date, fields: Fields) -> bool:
    (_, _, (dom, doms), (_, months), (dow, dows)) = fields
    weekday = day.isoweekday()
    by_month_day, by_weekday = day.day in doms, weekday in dows or weekday % 7 in dows
    either = not dom.startswith("*") and not dow.startswith("*")
    return day.month in months and ((by_month_day or by_weekday) if either else (by_month_day and by_weekday))


def walk(fields: Fields, tz: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """Every instant in (start, end] at which the rule fires, by looking at every minute of the wall."""
    (minute, minutes), (hour, hours) = fields[0], fields[1]
    fixed = not minute.startswith("*") and not hour.startswith("*")
    fires = set()
    at, pending = start - timedelta(days=2), _wall(tz, start - timedelta(days=2))
    while at <= end:
        wall = _wall(tz, at)
        seen = [wall]
        if fixed:
            # The wall's own minutes since the last look: none when it was set back, many when it jumped.
            seen = []
            while pending <= wall:
                seen.append(pending)
                pending += MINUTE
        if any(w.minute in minutes and w.hour in hours and _day_matches(w.date(), fields) for w in seen):
            fires.add(at)
        at += MINUTE
    return sorted(at for at in fires if start < at)


def expand(cron: Cron, start: datetime, end: datetime) -> list[datetime]:
    found, at = [], cron.next_after(start)
    while at is not None and at <= end:
        found.append(at)
        at = cron.next_after(at)
    return found


def _wall(tz: ZoneInfo, at: datetime) -> datetime:
    return at.astimezone(tz).replace(tzinfo=None, fold=0)
