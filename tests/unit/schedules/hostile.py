"""Schedules that ask for too much, and a process that reads them with little memory and time to spend.

Run as a program it limits itself to `MEMORY` more than it has after its imports, and to `SECONDS` of
processor time for everything: what takes more ends it. It prints a JSON list of [schedule, what became of
it].
"""

import json
import random
import resource
import sys
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from ordinaut.domain.errors import Invalid
from ordinaut.domain.schedules.preview import preview
from ordinaut.domain.schedules.spec import parse_schedule

MEMORY = 64 * 2**20
SECONDS = 30
LONGEST = 4096

CREATED = datetime(2026, 1, 2, 8, 41, 17, tzinfo=UTC)
LATER = datetime(2026, 7, 7, 3, 4, 5, tzinfo=UTC)
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
PARTS = {
    "BYMONTH": (1, 12), "BYWEEKNO": (-53, 53), "BYYEARDAY": (-366, 366), "BYMONTHDAY": (-31, 31),
    "BYHOUR": (0, 23), "BYMINUTE": (0, 59), "BYSECOND": (0, 60), "BYSETPOS": (-366, 366),
}  # fmt: skip
INTERVALS = (2, 7, 24, 25, 59, 60, 61, 365, 1439, 1440, 1441, 3599, 3601, 17_000, 86_399, 86_401, 999_983)


def every(low: int, high: int) -> str:
    return ",".join(str(n) for n in range(low, high + 1) if n)


ALL_DAY = f"BYHOUR={every(0, 23)};BYMINUTE={every(0, 59)};BYSECOND={every(0, 59)}"

ALL_HOURS = {"rrule": "FREQ=HOURLY", "duration": "1h"}
"""Excludes everything."""

REFUSED: list[tuple[Any, str]] = [
    ({"cron": "0 0 30 2 *"}, "can never fire"),
    ({"cron": "0 0 31 2,4,6,9,11 *"}, "can never fire"),
    ({"cron": "1-99999999999999999999 * * * *"}, "0-59"),
    ({"cron": "* * * * *", "timezone": "Mars/Olympus_Mons"}, "not a time zone"),
    ({"cron": "* * * * *", "timezone": "Europe/" + "x" * 4000}, "not a time zone"),
    ({"rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=31"}, "never fires"),
    ({"rrule": "FREQ=YEARLY;BYMONTHDAY=30;BYMONTH=" + ",".join(["2"] * 1900)}, "never fires"),
    ({"rrule": "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30,31"}, "never fires"),
    ({"rrule": "FREQ=SECONDLY;INTERVAL=86400;BYHOUR=9"}, "never fires"),
    ({"rrule": "FREQ=SECONDLY;INTERVAL=2;BYSECOND=2;BYMINUTE=0;BYHOUR=0"}, "never fires"),
    ({"rrule": "FREQ=MINUTELY;BYSECOND=1,2;BYSETPOS=3"}, "never fires"),
    ({"rrule": "FREQ=DAILY;BYHOUR=1;BYSETPOS=366"}, "never fires"),
    ({"rrule": "FREQ=YEARLY;BYMONTH=1;BYDAY=MO;BYSETPOS=300"}, "never fires"),
    ({"rrule": "FREQ=YEARLY;INTERVAL=200"}, "too seldom"),
    ({"rrule": "FREQ=DAILY;INTERVAL=999999"}, "too seldom"),
    ({"rrule": "FREQ=DAILY;INTERVAL=1000000000"}, "INTERVAL=1000000000"),
    ({"rrule": "FREQ=SECONDLY;COUNT=1000000000"}, "COUNT=1000000000"),
    (
        {"rrule": f"FREQ=MONTHLY;BYSETPOS=-1;BYMONTHDAY={every(1, 31)};{ALL_DAY};COUNT=10000"},
        "takes too long",
    ),
    ({"rrule": f"FREQ=WEEKLY;BYSETPOS={every(1, 200)};BYMONTH=9;COUNT=10000"}, "takes too long"),
    ({"rrule": "FREQ=DAILY;UNTIL=20200101T000000Z"}, "UNTIL is before"),
    ({"rrule": "FREQ=DAILY;BYSETPOS=1"}, "another BY part"),
    ({"rrule": "FREQ=YEARLY;BYEASTER=0"}, "not a rule part"),
    ({"rrule": "FREQ=DAILY;" * 300}, "twice"),
    ({"rrule": "FREQ=DAILY\n" + "RDATE;TZID=Mars/Base:20260101T000000\n" * 90}, "not a time zone"),
    ({"rrule": "FREQ=DAILY", "rdate": ["2026-01-01T00:00:00"] * 100_000}, "more than 1000"),
    ({"rrule": "FREQ=DAILY", "exdate": ["x" * 100_000] * 1000}, "not a date"),
    ({"rrule": "FREQ=DAILY", "dtstart": "0001-01-01T00:00:00", "timezone": "Asia/Tokyo"}, "calendar"),
    ({"rrule": "FREQ=DAILY", "dtstart": "9999-12-31T00:00:00"}, "never fires"),
    ({"once": "9999-12-31T23:59:59", "timezone": "America/New_York"}, "calendar"),
    ({"every": "9" * 4000 + "s"}, "not a duration"),
    ({"every": "1s" * 2000}, "not a duration"),
    ({"every": "P99999999D"}, "100 years"),
    ([{"every": "1s", "exclude": [ALL_HOURS] * 20}] * 20, "more than 20 rules"),
]
"""What must be refused, with a word of the reason."""

BOUNDED: list[Any] = [
    {"cron": "* * * * *"},
    {"cron": "0 0 29 2 MON#5"},
    {"cron": "0 0 30 2 MON#5"},
    {"cron": f"{every(1, 59)} * * * *"},
    {"rrule": "FREQ=SECONDLY"},
    {"rrule": "FREQ=SECONDLY;UNTIL=21260101T000000Z"},
    {"rrule": "FREQ=SECONDLY;COUNT=10000"},
    {"rrule": "FREQ=SECONDLY", "dtstart": "0002-01-01T00:00:00"},
    {"rrule": "FREQ=SECONDLY;INTERVAL=3599;BYHOUR=23;BYMINUTE=59;BYSECOND=17"},
    {"rrule": "FREQ=SECONDLY;INTERVAL=999983;BYSECOND=1;BYDAY=MO"},
    {"rrule": "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO;BYHOUR=3"},
    {"rrule": "FREQ=MINUTELY;INTERVAL=1441;BYHOUR=3;BYMINUTE=3"},
    {"rrule": "FREQ=HOURLY;INTERVAL=25;BYHOUR=3;BYMONTH=2;BYMONTHDAY=29"},
    {"rrule": f"FREQ=YEARLY;BYSETPOS=366,-366;BYYEARDAY={every(1, 366)};{ALL_DAY}"},
    {"rrule": f"FREQ=YEARLY;BYSETPOS={every(1, 366)};BYDAY={','.join(WEEKDAYS)}"},
    {"rrule": f"FREQ=DAILY;{ALL_DAY};COUNT=10000"},
    {"rrule": f"FREQ=HOURLY;BYSETPOS=-1;BYMINUTE={every(0, 59)};BYSECOND={every(0, 59)}"},
    {"rrule": "FREQ=DAILY", "rdate": ["2026-01-01T00:00:00"] * 1000},
    {"every": "1s", "anchor": "0002-01-01T00:00:00"},
    {"every": "1s", "exclude": [{"every": "1s", "duration": "1s"}]},
    {"rrule": "FREQ=SECONDLY;INTERVAL=3599;BYHOUR=23;BYMINUTE=59;BYSECOND=17", "exclude": [ALL_HOURS]},
    [{"cron": f"{minute} * 29 2 *", "exclude": [ALL_HOURS]} for minute in range(20)],
    {"every": "1s", "anchor": "9999-12-31T23:59:59"},
]
"""What is a schedule, however much there is of it."""


def excluded_one_after_another() -> dict[str, Any]:
    """A rule that is slow to follow, and a thousand EXDATEs that are its next occurrences."""
    spec: dict[str, Any] = {"rrule": "FREQ=SECONDLY;INTERVAL=7;BYHOUR=3;BYMINUTE=3;BYSECOND=5"}
    upcoming = preview(parse_schedule(spec, created_at=CREATED), LATER, 1000)
    return {**spec, "dtstart": CREATED.isoformat(), "exdate": [each.utc.isoformat() for each in upcoming]}


def drawn(chance: random.Random) -> dict[str, Any]:
    """A recurrence rule made to be hard: sparse, far, with long lists."""
    freq = chance.choice(("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY"))
    parts = [f"FREQ={freq}", f"INTERVAL={chance.choice(INTERVALS)}"]
    for name, (low, high) in PARTS.items():
        if chance.random() < 0.3:
            numbers = [n for n in range(low, high + 1) if n or low == 0]
            some = chance.sample(numbers, chance.choice((1, 1, 2, 5, len(numbers))))
            parts.append(f"{name}={','.join(map(str, some))}")
    if chance.random() < 0.4:
        parts.append(f"BYDAY={','.join(chance.sample(WEEKDAYS, chance.randint(1, 7)))}")
    if chance.random() < 0.2:
        parts.append(f"COUNT={chance.choice((1, 100, 10_000))}")
    zone = chance.choice(("UTC", "Europe/Chisinau", "Pacific/Apia", "Australia/Lord_Howe"))
    start = chance.choice(("2006-02-28T01:02:03", "2000-01-01T00:00:00", "2026-03-29T03:30:00"))
    return {"rrule": ";".join(parts)[:LONGEST], "timezone": zone, "dtstart": start}


def outcome(spec: Any) -> str:
    """Why the schedule is refused, or "" when it can be read and asked for what comes."""
    try:
        schedule = parse_schedule(spec, created_at=CREATED)
    except Invalid as refused:
        return str(refused)
    for start in (CREATED, LATER):
        at = schedule.next_after(start)
        for _ in range(3):
            at = schedule.next_after(at) if at is not None else None
        schedule.kept_after(start)
    return ""


def main() -> None:
    """Print what becomes of each, within the limits."""
    seed, number = int(sys.argv[1]), int(sys.argv[2])
    outcome({"cron": "0 9 * * *", "timezone": "Asia/Tokio"})  # lists of names and zones that stay
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    chance = random.Random(seed)
    asked = chain([spec for spec, _ in REFUSED], BOUNDED, [excluded_one_after_another()])
    table = [[spec, outcome(spec)] for spec in asked]
    drawn_ones = [drawn(chance) for _ in range(number)]
    json.dump([*table, *([spec, outcome(spec)] for spec in drawn_ones)], sys.stdout)


if __name__ == "__main__":
    main()
