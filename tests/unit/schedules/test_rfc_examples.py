"""The examples of RFC 5545, section 3.8.5.3, all of them, in its order and with the times it lists.

Expected times are written much as the RFC writes them: `EDT 1997 Sep 2-30 Oct 1-25 EST Oct 26-31`. A zone, a
year, a month or a list of times of day (09:00 at first) holds until the next; days are `2,9`, `2-30` or,
every other one, `2-30/2`.
"""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest

from ordinaut.domain.schedules.spec import parse_schedule

ZONES = {name: timezone(timedelta(hours=hours), name) for name, hours in (("EDT", -4), ("EST", -5))}
MONTHS = {datetime(2000, month, 1).strftime("%b"): month for month in range(1, 13)}

WEEKS = "EDT 1997 Sep 2,9,16,23,30 Oct 7,14,21 EST Oct 28 Nov 4"
JANUARIES = "EST 1998 Jan 1-31 1999 Jan 1-31 2000 Jan 1-31"
FIVE_WEEKS = "EDT 1997 Sep 2,4,9,11,16,18,23,25,30 Oct 2"
DAY_TIMES = ",".join(f"{hour:02}:{minute:02}" for hour in range(9, 17) for minute in (0, 20, 40))
THURSDAYS = (
    "EDT 1997 Jun 5,12,19,26 Jul 3,10,17,24,31 Aug 7,14,21,28 1998 Jun 4,11,18,25 Jul 2,9,16,23,30"
    " Aug 6,13,20,27 1999 Jun 3,10,17,24 Jul 1,8,15,22,29 Aug 5,12,19,26"
)
TWENTY_MINUTES = f"EDT {DAY_TIMES} 1997 Sep 2,3,4"

DAYS = [
    ("19970902T090000", "FREQ=DAILY;COUNT=10", "EDT 1997 Sep 2-11"),
    (
        "19970902T090000",
        "FREQ=DAILY;UNTIL=19971224T000000Z",
        "EDT 1997 Sep 2-30 Oct 1-25 EST Oct 26-31 Nov 1-30 Dec 1-23",
    ),
    (
        "19970902T090000",
        "FREQ=DAILY;INTERVAL=2",
        "EDT 1997 Sep 2-30/2 Oct 2-24/2 EST Oct 26,28,30 Nov 1-29/2 Dec 1,3",
    ),
    ("19970902T090000", "FREQ=DAILY;INTERVAL=10;COUNT=5", "EDT 1997 Sep 2,12,22 Oct 2,12"),
    (
        "19980101T090000",
        "FREQ=YEARLY;UNTIL=20000131T140000Z;BYMONTH=1;BYDAY=SU,MO,TU,WE,TH,FR,SA",
        JANUARIES,
    ),
    ("19980101T090000", "FREQ=DAILY;UNTIL=20000131T140000Z;BYMONTH=1", JANUARIES),
]

WEEKLY = [
    ("19970902T090000", "FREQ=WEEKLY;COUNT=10", WEEKS),
    ("19970902T090000", "FREQ=WEEKLY;UNTIL=19971224T000000Z", f"{WEEKS} Nov 11,18,25 Dec 2,9,16,23"),
    (
        "19970902T090000",
        "FREQ=WEEKLY;INTERVAL=2;WKST=SU",
        "EDT 1997 Sep 2,16,30 Oct 14 EST Oct 28 Nov 11,25 Dec 9,23 1998 Jan 6,20 Feb 3,17",
    ),
    ("19970902T090000", "FREQ=WEEKLY;UNTIL=19971007T000000Z;WKST=SU;BYDAY=TU,TH", FIVE_WEEKS),
    ("19970902T090000", "FREQ=WEEKLY;COUNT=10;WKST=SU;BYDAY=TU,TH", FIVE_WEEKS),
    (
        "19970901T090000",
        "FREQ=WEEKLY;INTERVAL=2;UNTIL=19971224T000000Z;WKST=SU;BYDAY=MO,WE,FR",
        "EDT 1997 Sep 1,3,5,15,17,19,29 Oct 1,3,13,15,17"
        " EST Oct 27,29,31 Nov 10,12,14,24,26,28 Dec 8,10,12,22",
    ),
    (
        "19970902T090000",
        "FREQ=WEEKLY;INTERVAL=2;COUNT=8;WKST=SU;BYDAY=TU,TH",
        "EDT 1997 Sep 2,4,16,18,30 Oct 2,14,16",
    ),
]

MONTHLY = [
    (
        "19970905T090000",
        "FREQ=MONTHLY;COUNT=10;BYDAY=1FR",
        "EDT 1997 Sep 5 Oct 3 EST Nov 7 Dec 5 1998 Jan 2 Feb 6 Mar 6 Apr 3 EDT May 1 Jun 5",
    ),
    (
        "19970905T090000",
        "FREQ=MONTHLY;UNTIL=19971224T000000Z;BYDAY=1FR",
        "EDT 1997 Sep 5 Oct 3 EST Nov 7 Dec 5",
    ),
    (
        "19970907T090000",
        "FREQ=MONTHLY;INTERVAL=2;COUNT=10;BYDAY=1SU,-1SU",
        "EDT 1997 Sep 7,28 EST Nov 2,30 1998 Jan 4,25 Mar 1,29 EDT May 3,31",
    ),
    (
        "19970922T090000",
        "FREQ=MONTHLY;COUNT=6;BYDAY=-2MO",
        "EDT 1997 Sep 22 Oct 20 EST Nov 17 Dec 22 1998 Jan 19 Feb 16",
    ),
    (
        "19970928T090000",
        "FREQ=MONTHLY;BYMONTHDAY=-3",
        "EDT 1997 Sep 28 EST Oct 29 Nov 28 Dec 29 1998 Jan 29 Feb 26",
    ),
    (
        "19970902T090000",
        "FREQ=MONTHLY;COUNT=10;BYMONTHDAY=2,15",
        "EDT 1997 Sep 2,15 Oct 2,15 EST Nov 2,15 Dec 2,15 1998 Jan 2,15",
    ),
    (
        "19970930T090000",
        "FREQ=MONTHLY;COUNT=10;BYMONTHDAY=1,-1",
        "EDT 1997 Sep 30 Oct 1 EST Oct 31 Nov 1,30 Dec 1,31 1998 Jan 1,31 Feb 1",
    ),
    (
        "19970910T090000",
        "FREQ=MONTHLY;INTERVAL=18;COUNT=10;BYMONTHDAY=10,11,12,13,14,15",
        "EDT 1997 Sep 10-15 EST 1999 Mar 10-13",
    ),
    (
        "19970902T090000",
        "FREQ=MONTHLY;INTERVAL=2;BYDAY=TU",
        "EDT 1997 Sep 2,9,16,23,30 EST Nov 4,11,18,25 1998 Jan 6,13,20,27 Mar 3,10,17,24,31",
    ),
]

YEARLY = [
    (
        "19970610T090000",
        "FREQ=YEARLY;COUNT=10;BYMONTH=6,7",
        "EDT 1997 Jun 10 Jul 10 1998 Jun 10 Jul 10 1999 Jun 10 Jul 10 2000 Jun 10 Jul 10 2001 Jun 10 Jul 10",
    ),
    (
        "19970310T090000",
        "FREQ=YEARLY;INTERVAL=2;COUNT=10;BYMONTH=1,2,3",
        "EST 1997 Mar 10 1999 Jan 10 Feb 10 Mar 10 2001 Jan 10 Feb 10 Mar 10 2003 Jan 10 Feb 10 Mar 10",
    ),
    (
        "19970101T090000",
        "FREQ=YEARLY;INTERVAL=3;COUNT=10;BYYEARDAY=1,100,200",
        "EST 1997 Jan 1 EDT Apr 10 Jul 19 EST 2000 Jan 1 EDT Apr 9 Jul 18"
        " EST 2003 Jan 1 EDT Apr 10 Jul 19 EST 2006 Jan 1",
    ),
    ("19970519T090000", "FREQ=YEARLY;BYDAY=20MO", "EDT 1997 May 19 1998 May 18 1999 May 17"),
    ("19970512T090000", "FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO", "EDT 1997 May 12 1998 May 11 1999 May 17"),
    (
        "19970313T090000",
        "FREQ=YEARLY;BYMONTH=3;BYDAY=TH",
        "EST 1997 Mar 13,20,27 1998 Mar 5,12,19,26 1999 Mar 4,11,18,25",
    ),
    ("19970605T090000", "FREQ=YEARLY;BYDAY=TH;BYMONTH=6,7,8", THURSDAYS),
]

CHOSEN_DAYS = [
    (
        "19970902T090000",
        "FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13\nEXDATE;TZID=America/New_York:19970902T090000",
        "EST 1998 Feb 13 Mar 13 Nov 13 EDT 1999 Aug 13 2000 Oct 13",
    ),
    (
        "19970913T090000",
        "FREQ=MONTHLY;BYDAY=SA;BYMONTHDAY=7,8,9,10,11,12,13",
        "EDT 1997 Sep 13 Oct 11 EST Nov 8 Dec 13 1998 Jan 10 Feb 7 Mar 7 EDT Apr 11 May 9 Jun 13",
    ),
    (
        "19961105T090000",
        "FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8",
        "EST 1996 Nov 5 2000 Nov 7 2004 Nov 2",
    ),
    ("19970904T090000", "FREQ=MONTHLY;COUNT=3;BYDAY=TU,WE,TH;BYSETPOS=3", "EDT 1997 Sep 4 Oct 7 EST Nov 6"),
    (
        "19970929T090000",
        "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2",
        "EDT 1997 Sep 29 EST Oct 30 Nov 27 Dec 30 1998 Jan 29 Feb 26 Mar 30",
    ),
]

TIMES = [
    # Erratum: the RFC prints 170000Z, which is 13:00 EDT; five o'clock in New York is 210000Z.
    ("19970902T090000", "FREQ=HOURLY;INTERVAL=3;UNTIL=19970902T210000Z", "EDT 09:00,12:00,15:00 1997 Sep 2"),
    ("19970902T090000", "FREQ=HOURLY;INTERVAL=3;UNTIL=19970902T170000Z", "EDT 09:00,12:00 1997 Sep 2"),
    (
        "19970902T090000",
        "FREQ=MINUTELY;INTERVAL=15;COUNT=6",
        "EDT 09:00,09:15,09:30,09:45,10:00,10:15 1997 Sep 2",
    ),
    ("19970902T090000", "FREQ=MINUTELY;INTERVAL=90;COUNT=4", "EDT 09:00,10:30,12:00,13:30 1997 Sep 2"),
    ("19970902T090000", "FREQ=DAILY;BYHOUR=9,10,11,12,13,14,15,16;BYMINUTE=0,20,40", TWENTY_MINUTES),
    ("19970902T090000", "FREQ=MINUTELY;INTERVAL=20;BYHOUR=9,10,11,12,13,14,15,16", TWENTY_MINUTES),
]

WEEK_STARTS_AND_INVALID_DATES = [
    ("19970805T090000", "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=MO", "EDT 1997 Aug 5,10,19,24"),
    ("19970805T090000", "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=SU", "EDT 1997 Aug 5,17,19,31"),
    ("20070115T090000", "FREQ=MONTHLY;BYMONTHDAY=15,30;COUNT=5", "EST 2007 Jan 15,30 Feb 15 EDT Mar 15,30"),
]

EXAMPLES = [*DAYS, *WEEKLY, *MONTHLY, *YEARLY, *CHOSEN_DAYS, *TIMES, *WEEK_STARTS_AND_INVALID_DATES]


def listed(text: str) -> list[str]:
    """The times of an `expected` text, in ISO form with their offset."""
    zone, year, month, times = ZONES["EDT"], 1997, 1, ["09:00"]
    found: list[str] = []
    for word in text.split():
        if word in ZONES:
            zone = ZONES[word]
        elif word in MONTHS:
            month = MONTHS[word]
        elif ":" in word:
            times = word.split(",")
        elif len(word) == 4 and word.isdigit():
            year = int(word)
        else:
            for day in days(word):
                for at in times:
                    hour, minute = map(int, at.split(":"))
                    found.append(datetime(year, month, day, hour, minute, tzinfo=zone).isoformat())
    return found


def days(word: str) -> list[int]:
    span, _, step = word.partition("/")
    if "-" not in span:
        return [int(day) for day in span.split(",")]
    first, last = map(int, span.split("-"))
    return list(range(first, last + 1, int(step or 1)))


@pytest.mark.parametrize(("dtstart", "rule", "expected"), EXAMPLES, ids=[rule for _, rule, _ in EXAMPLES])
def test_an_example_of_the_rfc_fires_when_the_rfc_says(dtstart: str, rule: str, expected: str) -> None:
    schedule = parse_schedule(
        {"rrule": f"DTSTART;TZID=America/New_York:{dtstart}\nRRULE:{rule}"},
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    wanted = listed(expected)
    ends = "COUNT=" in rule or "UNTIL=" in rule
    found: list[str] = []
    at = schedule.next_after(datetime(1990, 1, 1, tzinfo=UTC))
    while at is not None and len(found) < len(wanted) + ends:  # one more would be one too many
        found.append(at.astimezone(schedule.tz).isoformat())
        at = schedule.next_after(at)
    assert found == wanted


def test_the_times_of_the_examples_rise() -> None:
    for _, _, expected in EXAMPLES:
        instants = [datetime.fromisoformat(at) for at in listed(expected)]
        assert all(one < later for one, later in pairwise(instants))
