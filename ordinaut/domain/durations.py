"""Lengths of time as people write them: `90s`, `15m`, `1h30m`, `500ms`, or ISO 8601 (`PT15M`, `P1D`).

A duration is elapsed time: a day is 24 hours, a week is 7 days. Months and years have no fixed length
and are refused.
"""

import re
from datetime import timedelta

LONGEST = timedelta(days=36525)
"""A hundred years. Whoever writes a longer duration has mistyped it."""

_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_NUMBER = r"(\d{1,12}(?:\.\d{1,6})?)"
_SHORT = re.compile("".join(rf"(?:{_NUMBER}{unit}(?![a-z]))?" for unit in _UNITS), re.ASCII)
_ISO = re.compile(
    rf"P(?:{_NUMBER}W)?(?:{_NUMBER}D)?(?:T(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?", re.ASCII
)
_ISO_CALENDAR = re.compile(r"P[^T]*[YM]", re.ASCII)
_HELP = "write it as 90s, 15m, 2h, 1d, 1h30m or 500ms, or in ISO 8601 as PT15M or P1D"


def parse_duration(text: str) -> timedelta:
    """The length of time `text` names; never negative, at most `LONGEST`.

    Short form: numbers with `w`, `d`, `h`, `m`, `s`, `ms`, largest unit first, each at most once; a bare
    `0` is zero. ISO 8601 form: `PnW`, `PnDTnHnMnS`. Raises ValueError with a sentence that says what
    would be right.
    """
    written = text.strip()
    if written == "0":
        return timedelta(0)
    if written[:1] in ("P", "p"):
        return _parse_iso(text, written.upper())
    match = _SHORT.fullmatch(written.lower())
    if not written or match is None:
        raise ValueError(f"{_shown(text)} is not a duration; {_HELP}")
    return _total(match.groups(), list(_UNITS.values()))


def seconds(text: str) -> float:
    """The length of time `text` names, in seconds. Raises ValueError as `parse_duration` does."""
    return parse_duration(text).total_seconds()


def format_duration(length: timedelta) -> str:
    """The canonical short form: `1h30m`, `2d`, `500ms`; zero is `0s`.

    `parse_duration(format_duration(x)) == x` for every `x` that is not negative and at most `LONGEST`.
    """
    if length < timedelta(0):
        raise ValueError("a duration is never negative")
    if length == timedelta(0):
        return "0s"
    parts = []
    rest = length
    for name in ("d", "h", "m", "s"):
        amount, rest = divmod(rest, _UNITS[name])
        if amount:
            parts.append(f"{amount}{name}")
    if rest:
        parts.append(f"{rest.microseconds / 1000:.3f}".rstrip("0").rstrip(".") + "ms")
    return "".join(parts)


def _parse_iso(text: str, written: str) -> timedelta:
    if _ISO_CALENDAR.match(written):
        raise ValueError(
            f"{_shown(text)} counts months or years, which have no fixed length; "
            "use days (P30D), or a cron or rrule schedule for calendar time"
        )
    match = _ISO.fullmatch(written)
    if match is None or written[-1] in "PT":
        raise ValueError(f"{_shown(text)} is not an ISO 8601 duration; {_HELP}")
    return _total(match.groups(), [_UNITS[name] for name in ("w", "d", "h", "m", "s")])


def _total(amounts: tuple[str | None, ...], units: list[timedelta]) -> timedelta:
    # Whole microseconds, not floats: 0.1s times ten is one second.
    micro = 0
    for amount, unit in zip(amounts, units, strict=True):
        if amount is None:
            continue
        whole, _, fraction = amount.partition(".")
        size = unit // timedelta(microseconds=1)
        micro += int(whole) * size + int((fraction or "0").ljust(6, "0")) * size // 1_000_000
    if micro > LONGEST // timedelta(microseconds=1):
        raise ValueError("the duration is longer than 100 years; " + _HELP)
    return timedelta(microseconds=micro)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
