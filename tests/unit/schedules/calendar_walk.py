"""Recurrence rules read the plain way: period after period from DTSTART, each with everything in it.

Written from the table of RFC 5545, section 3.3.10, and from no other code: nothing is computed that can be
looked up in a list of days.
"""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from functools import cache

DAY = timedelta(days=1)
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
UNITS = {"HOURLY": timedelta(hours=1), "MINUTELY": timedelta(minutes=1), "SECONDLY": timedelta(seconds=1)}


def walk(text: str, dtstart: datetime, end: datetime) -> list[datetime]:
    """The wall times of the rule from DTSTART to `end`, COUNT and UNTIL left aside."""
    rule = dict(part.split("=") for part in text.split(";"))
    return [at for period in _periods(rule, dtstart, end) for at in period if dtstart <= at <= end]


def _numbers(rule: dict[str, str], name: str) -> list[int]:
    return [int(number) for number in rule[name].split(",")] if name in rule else []


def _periods(rule: dict[str, str], dtstart: datetime, end: datetime) -> Iterator[list[datetime]]:
    """The times of every INTERVAL-th period, BYSETPOS applied."""
    for days, begin in list_periods(rule, dtstart, end):
        wanted = [day for day in days if _day_is_wanted(rule, day, dtstart)]
        times = [datetime.combine(day, at) for day in wanted for at in _times(rule, dtstart, begin)]
        if "BYSETPOS" in rule:
            positions = _numbers(rule, "BYSETPOS")
            forward = dict(enumerate(times, 1))
            backward = {-n: at for n, at in enumerate(reversed(times), 1)}
            both = forward | backward
            times = sorted({both[position] for position in positions if position in both})
        yield times


def list_periods(
    rule: dict[str, str], dtstart: datetime, end: datetime
) -> Iterator[tuple[list[date], datetime]]:
    """The days of every INTERVAL-th period, and its beginning."""
    interval, freq = int(rule.get("INTERVAL", 1)), rule["FREQ"]
    if freq in UNITS:
        begin = dtstart
        while begin <= end:
            yield [begin.date()], begin
            begin += interval * UNITS[freq]
        return
    numbered: dict[object, list[date]] = {}
    week_start = WEEKDAYS.index(rule.get("WKST", "MO"))
    day = date(dtstart.year, 1, 1) - 7 * DAY
    while day <= date(end.year, 12, 31):
        monday = day - (day.weekday() - week_start) % 7 * DAY
        period = {"YEARLY": day.year, "MONTHLY": (day.year, day.month), "WEEKLY": monday, "DAILY": day}[freq]
        numbered.setdefault(period, []).append(day)
        day += DAY
    periods = list(numbered.values())
    first = next(n for n, days in enumerate(periods) if dtstart.date() in days)
    for days in periods[first::interval]:
        yield days, dtstart


def _times(rule: dict[str, str], dtstart: datetime, begin: datetime) -> list[time]:
    """The times of day in a period: what its frequency fixes must be among what the rule names."""
    named = []
    for unit, fixed_by in (
        ("hour", ("HOURLY", "MINUTELY", "SECONDLY")),
        ("minute", ("MINUTELY", "SECONDLY")),
        ("second", ("SECONDLY",)),
    ):
        chosen = sorted(_numbers(rule, f"BY{unit.upper()}"))
        if rule["FREQ"] in fixed_by:
            fixed = getattr(begin, unit)
            chosen = [fixed] if not chosen or fixed in chosen else []
        named.append(chosen or ([] if rule["FREQ"] in fixed_by else [getattr(dtstart, unit)]))
    return [time(hour, minute, second) for hour in named[0] for minute in named[1] for second in named[2]]


@cache
def _year(year: int) -> list[date]:
    first = date(year, 1, 1)
    return [first + n * DAY for n in range(366) if (first + n * DAY).year == year]


@cache
def _week_numbers(year: int, week_start: int) -> list[list[date]]:
    """The weeks of a year: those with at least four days in it."""
    day = date(year, 1, 1) - 7 * DAY
    while day.weekday() != week_start:
        day += DAY
    weeks = [[day + (7 * week + n) * DAY for n in range(7)] for week in range(56)]
    return [week for week in weeks if sum(each.year == year for each in week) >= 4]


def _at(positions: list[int], day: date, days: list[date]) -> bool:
    """Whether `day` has one of these places among `days`, counted from 1, or from the end from -1."""
    place = days.index(day)
    return place + 1 in positions or place - len(days) in positions


def _day_is_wanted(rule: dict[str, str], day: date, dtstart: datetime) -> bool:
    freq, year = rule["FREQ"], _year(day.year)
    month = [each for each in year if each.month == day.month]
    if not {"BYWEEKNO", "BYYEARDAY", "BYMONTHDAY", "BYDAY"} & set(rule):
        if freq == "WEEKLY" and day.weekday() != dtstart.weekday():
            return False
        if freq in ("YEARLY", "MONTHLY") and day.day != dtstart.day:
            return False
        if freq == "YEARLY" and "BYMONTH" not in rule and day.month != dtstart.month:
            return False
    if "BYMONTH" in rule and day.month not in _numbers(rule, "BYMONTH"):
        return False
    if "BYWEEKNO" in rule:
        week_start = WEEKDAYS.index(rule.get("WKST", "MO"))
        for around in (day.year - 1, day.year, day.year + 1):
            weeks = _week_numbers(around, week_start)
            mine = [week for week in weeks if day in week]
            if mine and not _at(_numbers(rule, "BYWEEKNO"), mine[0][0], [week[0] for week in weeks]):
                return False
    if "BYYEARDAY" in rule and not _at(_numbers(rule, "BYYEARDAY"), day, year):
        return False
    if "BYMONTHDAY" in rule and not _at(_numbers(rule, "BYMONTHDAY"), day, month):
        return False
    if "BYDAY" not in rule:
        return True
    among = year if freq == "YEARLY" and "BYMONTH" not in rule else month
    same = [each for each in among if each.weekday() == day.weekday()]
    for item in rule["BYDAY"].split(","):
        if WEEKDAYS[day.weekday()] == item[-2:] and (len(item) == 2 or _at([int(item[:-2])], day, same)):
            return True
    return False
