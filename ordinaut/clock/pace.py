"""Catching up at a bounded rate: after an outage, what was missed starts one run after another.

A run that is caught up (`is_caught_up`) gets the next free *slot* as its `run_at`. Slots are 1/rate apart, so
that no second has more than the rate, whatever the number of schedules, batches and clocks. Which slot is
free next is in the table `catch_up_pace`; its row is locked until the runs are in the log. The lock is taken
before that of the log's head, as all who take both do.

What is on time gets no slot and waits for none.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil

from ordinaut.clock.decide import Verdict
from ordinaut.domain.schedules.catch_up import GRACE
from ordinaut.log.append import Append, Connection

_TAKE = """
UPDATE catch_up_pace SET next_slot = greatest(next_slot, $1) + $2::interval RETURNING next_slot - $2::interval
"""


def is_caught_up(verdict: Verdict, now: datetime) -> bool:
    """Whether a run is so late that others may be with it: by more than `GRACE`, as catch-up counts it.

    One that jitter puts off beyond `now` is not: jitter has spread it already.
    """
    if not verdict.fired or now - verdict.at <= GRACE:
        return False
    put_off = verdict.event.data.get("run_at")
    return put_off is None or datetime.fromisoformat(put_off) <= now


def step(rate: float) -> timedelta:
    """How far apart slots are at `rate` a second: never so near that a second has one more."""
    return timedelta(microseconds=ceil(1_000_000 / rate))


async def take_slots(connection: Connection, number: int, now: datetime, rate: float) -> list[datetime]:
    """The next `number` free slots, the first at `now` or later; UTC. They are taken when the transaction
    that `connection` is in commits; until then nobody else gets any."""
    apart = step(rate)
    first: datetime = await connection.fetchval(_TAKE, now, number * apart)
    return [first + n * apart for n in range(number)]


async def spread(
    connection: Connection,
    appends: list[Append],
    verdicts: Sequence[Verdict | None],
    now: datetime,
    rate: float,
) -> None:
    """Give each run among `appends` that is caught up its slot, in place and in their order.

    `verdicts` says, append by append, what it records (None: not a verdict).
    """
    late = [n for n, verdict in enumerate(verdicts) if verdict is not None and is_caught_up(verdict, now)]
    if not late:
        return
    for n, slot in zip(late, await take_slots(connection, len(late), now, rate), strict=True):
        (event,) = appends[n].events
        paced = replace(event, data={**event.data, "run_at": slot.isoformat()})
        appends[n] = replace(appends[n], events=[paced])
