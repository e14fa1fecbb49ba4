"""Spaces as the log has them, and whether a schedule keeps to the minimum interval of its space.

What is remembered may be old. That is safe where the decision is appended with the space's version as a
requirement: when the space has changed since, the append is refused, and `load` reads on.
"""

import time
from dataclasses import replace
from datetime import datetime

import asyncpg

from ordinaut.domain.durations import format_duration
from ordinaut.domain.errors import Fault
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.spacing import first_nearer_than
from ordinaut.domain.space import Space, evolve, space_stream
from ordinaut.log.read import read_stream

SECONDS = 0.05
"""How long the search for two instants too near to each other may take; what it has not met passes."""


class Spaces:
    """A memory of spaces. There are as few of them as there are tenants, so none is forgotten."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._spaces: dict[str, Space] = {}

    async def load(self, name: str) -> Space:
        """The space as its stream has it now."""
        known = self._spaces.get(name) or Space(name)
        async with self._pool.acquire() as connection:
            events = await read_stream(connection, space_stream(name), after=known.version)
        if events:
            known = replace(known)  # others may be deciding by the one they were given
            for event in events:
                evolve(known, event)
        self._spaces[name] = known
        return known

    async def recall(self, name: str) -> Space:
        """The space as it was last seen, possibly old; loaded when it is not remembered."""
        return self._spaces.get(name) or await self.load(name)


def too_near(space: Space, rule: Schedule, now: datetime) -> Fault | None:
    """What is wrong with a schedule by the space's minimum interval, looking ahead from `now`; None when
    nothing is. Takes `SECONDS` at the most."""
    if space.minimum_interval is None:
        return None
    deadline = time.monotonic() + SECONDS
    pair = first_nearer_than(rule, space.minimum_interval, now, lambda: time.monotonic() > deadline)
    if pair is None:
        return None
    earlier, later = (instant.astimezone(rule.tz).isoformat() for instant in pair)
    minimum = format_duration(space.minimum_interval)
    return Fault(
        "/schedule",
        f"names {earlier} and {later}, which are {format_duration(pair[1] - pair[0])} apart",
        f"the least in the space {space.name!r} is {minimum}",
    )
