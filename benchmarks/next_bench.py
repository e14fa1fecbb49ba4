"""`next()` of recurrence rules whose DTSTART is twenty years ago, for every FREQ; nothing else runs.

Each rule is asked for what follows each of `ASKED` instants spread over a year. Of `TRIES` such rounds the
fastest answer to each counts, because a machine interrupts; the slowest of these is reported. Reading the
rule from its text is timed as well: what there is to count out for a COUNT is done then.
"""

import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.measure import percentile
from ordinaut.domain.schedules.recurrence import FREQUENCIES
from ordinaut.domain.schedules.spec import parse_schedule

ASKED = 200
TRIES = 5
ZONE = "Europe/Chisinau"
DTSTART = datetime(2006, 2, 28, 1, 2, 3)
NOW = datetime(2026, 3, 1, tzinfo=UTC)

BY = {
    "YEARLY": "BYMONTH=3,10;BYDAY=-1SU;BYHOUR=2,3",
    "MONTHLY": "BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
    "WEEKLY": "BYDAY=MO,WE,FR;BYHOUR=8;BYMINUTE=30",
    "DAILY": "BYMONTH=1,7;BYHOUR=9,17",
    "HOURLY": "BYDAY=SA,SU;BYMINUTE=0,30",
    "MINUTELY": "INTERVAL=7;BYHOUR=9,10,11",
    "SECONDLY": "INTERVAL=11;BYHOUR=3;BYMINUTE=0",
}
COUNTS = {"YEARLY": 100, "MONTHLY": 1000}
"""The others count to 10,000, which is the most."""


def _timed(spec: dict[str, str]) -> tuple[float, list[float]]:
    """(seconds to read it, seconds of each `next_after`)."""
    rounds = [_round(spec) for _ in range(TRIES)]
    read = min(seconds for seconds, _ in rounds)
    return read, [min(same) for same in zip(*(each for _, each in rounds), strict=True)]


def _round(spec: dict[str, str]) -> tuple[float, list[float]]:
    start = time.perf_counter()
    schedule = parse_schedule(spec, created_at=NOW)
    read = time.perf_counter() - start
    chance, each = random.Random(1), []
    for _ in range(ASKED):
        after = NOW + timedelta(seconds=chance.uniform(0, 365 * 86400))
        start = time.perf_counter()
        schedule.next_after(after)
        each.append(time.perf_counter() - start)
    return read, each


def measured() -> list[dict[str, Any]]:
    """A row for each FREQ: milliseconds for the plain rule, with BY parts, and with a COUNT."""
    rows = []
    for freq in reversed(FREQUENCIES):
        row: dict[str, Any] = {"freq": freq}
        count = f"COUNT={COUNTS.get(freq, 10_000)}"
        for name, more in (("plain", "INTERVAL=1"), ("by", BY[freq]), ("count", count)):
            spec = {"rrule": f"FREQ={freq};{more}", "timezone": ZONE, "dtstart": DTSTART.isoformat()}
            read, each = _timed(spec)
            row |= {
                f"{name}_read_ms": read * 1e3,
                f"{name}_p50_ms": percentile(each, 0.5) * 1e3,
                f"{name}_max_ms": max(each) * 1e3,
            }
        row["next_ms"] = max(row[f"{name}_max_ms"] for name in ("plain", "by", "count"))
        rows.append(row)
    return rows
