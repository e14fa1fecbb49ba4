"""The values in a schedule object: zones, moments and durations, with errors that name their place."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from ordinaut.domain.errors import Invalid
from ordinaut.domain.schedules import rrule_text, zones

_T = TypeVar("_T")


def named(pointer: str, read: Callable[[], _T]) -> _T:
    """What `read` gives; its ValueError becomes Invalid at `pointer`."""
    try:
        return read()
    except ValueError as wrong:
        raise Invalid.at(pointer, str(wrong)) from None


def zone_of(spec: Mapping[str, Any]) -> ZoneInfo:
    """The zone of the field `timezone`; UTC when absent. Raises Invalid."""
    return named_zone("/timezone", spec.get("timezone", "UTC"))


def named_zone(pointer: str, name: str) -> ZoneInfo:
    """The zone of that name. Raises Invalid, with what was probably meant."""
    try:
        return zones.zone(name)
    except KeyError:
        close = zones.suggest(name)
        hint = f"did you mean {close}?" if close else "use an IANA name such as Europe/Chisinau or UTC"
        raise Invalid.at(pointer, f"{name[:60]!r} is not a time zone", hint) from None


def moment(pointer: str, text: str) -> datetime:
    """A date and time; naive when no offset was written. Raises Invalid."""
    return named(pointer, lambda: rrule_text.parse_moment(text))


def instant_of(tz: ZoneInfo, at: datetime) -> datetime:
    """The instant, in UTC, of a moment: a naive one is a wall time in `tz`."""
    return at.astimezone(UTC) if at.tzinfo else zones.to_instant(tz, at)


def utc_text(instant: datetime) -> str:
    """An instant as it is kept: `2026-05-04T08:30:00Z`."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def moment_text(at: datetime) -> str:
    """A moment as it is kept: a wall time stays one."""
    return utc_text(at) if at.tzinfo else at.isoformat()
