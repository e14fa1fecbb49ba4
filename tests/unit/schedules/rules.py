"""Recurrence rules drawn at random for Hypothesis."""

from hypothesis import strategies as st

from tests.unit.schedules.calendar_walk import WEEKDAYS

COARSE = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY")
FINE = ("HOURLY", "MINUTELY", "SECONDLY")


def _numbers(low: int, high: int, most: int = 3) -> st.SearchStrategy[str]:
    return st.lists(st.integers(low, high), min_size=1, max_size=most, unique=True).map(
        lambda numbers: ",".join(map(str, numbers))
    )


@st.composite
def rules(
    draw: st.DrawFn, *, freqs: tuple[str, ...] = COARSE + FINE, like_dateutil: bool = False, most: int = 12
) -> str:
    """Any rule of RFC 5545 without COUNT and UNTIL, with an INTERVAL up to `most`.

    `like_dateutil` leaves out what python-dateutil has otherwise: plain and numbered weekdays together (it
    combines them with AND), the weeks at the turn of the year (it takes 1 January 2011 for week 53), and a
    WEEKLY BYSETPOS (it sees only part of the first week).
    """
    freq = draw(st.sampled_from(freqs))
    parts = [f"FREQ={freq}", f"INTERVAL={draw(st.integers(1, most))}"]

    def maybe(text: st.SearchStrategy[str], name: str) -> bool:
        if draw(st.integers(0, 3)):
            return False
        parts.append(f"{name}={draw(text)}")
        return True

    maybe(st.sampled_from(WEEKDAYS), "WKST")
    maybe(_numbers(1, 12), "BYMONTH")
    if freq != "WEEKLY":
        maybe(_numbers(1, 31) | _numbers(-31, -1), "BYMONTHDAY")
    if freq in ("YEARLY", *FINE):
        maybe(_numbers(1, 366) | _numbers(-366, -1), "BYYEARDAY")
    weeks = _numbers(2, 51) if like_dateutil else _numbers(1, 53) | _numbers(-53, -1)
    week = freq == "YEARLY" and maybe(weeks, "BYWEEKNO")
    plain = st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=3, unique=True)
    numbered = st.tuples(st.sampled_from([1, 2, 4, 5, -1, -2]), st.sampled_from(WEEKDAYS)).map(
        lambda t: [f"{t[0]}{t[1]}"]
    )
    days = plain
    if freq in ("YEARLY", "MONTHLY") and not week:
        days = plain | numbered
        if not like_dateutil:
            days = days | st.tuples(plain, numbered).map(lambda both: both[0] + both[1])
    maybe(days.map(",".join), "BYDAY")
    maybe(_numbers(0, 23), "BYHOUR")
    maybe(_numbers(0, 59), "BYMINUTE")
    maybe(_numbers(0, 59), "BYSECOND")
    if any(part.startswith("BY") for part in parts) and not (like_dateutil and freq == "WEEKLY"):
        maybe(_numbers(1, 4) | _numbers(-4, -1), "BYSETPOS")
    return ";".join(parts)
