"""How near to one another the instants of a schedule come."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from heapq import merge
from itertools import groupby, islice, pairwise

from ordinaut.domain.schedules.composite import Several
from ordinaut.domain.schedules.schedule import Schedule

LOOKED_AT = 1000
"""How many instants are looked at, at the most: those of nearly three years of a daily rule, of 16 hours of
one every minute."""

AHEAD = timedelta(days=3653)
"""How far ahead is looked, at the most. What a rule names only later is let pass."""


def first_nearer_than(
    rule: Schedule, minimum: timedelta, after: datetime, enough: Callable[[], bool] = lambda: False
) -> tuple[datetime, datetime] | None:
    """The first two instants in a row that the rule fires at after `after` and that are less than `minimum`
    apart, in UTC; None when there are none among the next `LOOKED_AT` within `AHEAD`, or up to where `enough`
    says that it is (it is asked at each instant)."""
    for earlier, later in pairwise(islice(_instants(rule, after), LOOKED_AT)):
        if later - earlier < minimum:
            return earlier, later
        if enough() or later - after > AHEAD:
            return None
    return None


def _instants(rule: Schedule, after: datetime) -> Iterator[datetime]:
    """The instants that are not excluded, each once."""
    if isinstance(rule, Several):
        # Asking the whole would ask every member for every instant.
        named = merge(*(_instants(member, after) for member in rule.members))
        yield from (instant for instant, _ in groupby(named))
        return
    at = rule.kept_after(after)
    while at is not None:
        yield at
        at = rule.kept_after(at)
