"""Time zones from the `tzdata` package, and how a wall time becomes an instant.

The zones always come from the package and never from the machine's own files, so that every machine
with the same package agrees, and `tz_version()` is true of every instant computed here. An *instant* is
an aware datetime in UTC; a *wall time* is a naive datetime, read in some zone.
"""

import difflib
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import import_module, resources
from zoneinfo import ZoneInfo

_SECOND = timedelta(seconds=1)


@cache
def tz_version() -> str:
    """The release of the tz database in use, such as `2025b`."""
    return str(import_module("tzdata").IANA_VERSION)


@cache
def zone_names() -> frozenset[str]:
    """Every zone name the tz database knows, links included."""
    listing = resources.files("tzdata").joinpath("zones").read_text(encoding="ascii")
    return frozenset(listing.split())


@cache
def _load(name: str) -> ZoneInfo:
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def zone(name: str) -> ZoneInfo:
    """The zone of that name. KeyError when there is none; `suggest` says what may have been meant."""
    if name not in zone_names():
        raise KeyError(name)
    return _load(name)


def suggest(name: str) -> str:
    """The zone name that was probably meant, or "" when nothing is close."""
    written = name[:100].replace(" ", "_").casefold()
    by_fold = {known.casefold(): known for known in sorted(zone_names())}
    if written in by_fold:
        return by_fold[written]
    by_city = {fold.rsplit("/", 1)[-1]: known for fold, known in by_fold.items() if "/" in fold}
    for table, word in ((by_fold, written), (by_city, written.rsplit("/", 1)[-1])):
        close = difflib.get_close_matches(word, list(table), n=1, cutoff=0.75)
        if close:
            return table[close[0]]
    return ""


def to_wall(tz: ZoneInfo, instant: datetime) -> datetime:
    """What a clock on the wall shows at `instant`, naive."""
    return instant.astimezone(tz).replace(tzinfo=None, fold=0)


def to_instant(tz: ZoneInfo, wall: datetime) -> datetime:
    """The instant of a wall time: one that does not exist is read with the offset before the gap
    (02:30 becomes 03:30), one that exists twice is its first (RFC 5545, section 3.3.5)."""
    return wall.replace(tzinfo=tz, fold=0).astimezone(UTC)


def exists(tz: ZoneInfo, wall: datetime) -> bool:
    """False when the clocks jump over `wall`."""
    return to_wall(tz, to_instant(tz, wall)) == wall


def offset(tz: ZoneInfo, instant: datetime) -> timedelta:
    """The zone's offset from UTC in force at `instant`."""
    return instant.astimezone(tz).utcoffset() or timedelta(0)


def change_between(tz: ZoneInfo, start: datetime, end: datetime) -> datetime:
    """The first instant, to the second, in (start, end] at which the offset is not that of `start`.

    The two ends must have different offsets, and be so near that the offset changes once between.
    """
    before = offset(tz, start)
    low = start.replace(microsecond=0)
    high = end.replace(microsecond=0) + (_SECOND if end.microsecond else timedelta(0))
    while high - low > _SECOND:
        middle = low + ((high - low) // 2 // _SECOND) * _SECOND
        if offset(tz, middle) == before:
            low = middle
        else:
            high = middle
    return high


def gap_at(tz: ZoneInfo, wall: datetime) -> datetime:
    """The instant at which the clocks jump over `wall`, which must be a time that does not exist."""
    read = to_instant(tz, wall)
    width = offset(tz, read) - (wall.replace(tzinfo=tz, fold=0).utcoffset() or timedelta(0))
    return change_between(tz, read - width, read)


def in_gap_before(tz: ZoneInfo, instant: datetime) -> datetime | None:
    """The wall time that does not exist and is read as `instant`, if there is one."""
    wall = (instant + offset(tz, instant - timedelta(days=1))).replace(tzinfo=None)
    if to_instant(tz, wall) == instant and not exists(tz, wall):
        return wall
    return None


def fold_end(tz: ZoneInfo, instant: datetime) -> datetime | None:
    """When `instant` is in the second pass of an overlap: the first wall time behind the overlap."""
    local = instant.astimezone(tz)
    if not local.fold:
        return None
    before = local.replace(fold=0).utcoffset() or timedelta(0)
    width = before - offset(tz, instant)
    return (change_between(tz, instant - width, instant) + before).replace(tzinfo=None)
