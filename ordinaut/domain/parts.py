"""Patterns of several parts: events that belong together, or one that does not come. Pure.

- `all_of`: an event of each part within `within`; the latest of each counts.
- `sequence`: the parts one after another within `within`; of several ways the shortest counts.
- `absent`: after an event, no event that was expected within `within`.

An event is in one run at the most: what completes a pattern ends the wait of all that was there before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ordinaut.domain.patterns import AFTER, EXPECTED, Drop, Held, Pattern, Reason, Start


@dataclass(frozen=True, slots=True)
class Decision:
    """What is decided first of the events that wait: about which (in the order of their time), at which
    instant of event time, unless something comes before, why, and what becomes of them."""

    members: tuple[Held, ...]
    deadline: datetime
    reason: Reason
    outcomes: tuple[Start | Drop, ...]


def decide(pattern: Pattern, held: Sequence[Held]) -> Decision:
    """The first decision on events (at least one, in the order of their time) of a pattern with parts."""
    return _absent(pattern, held) if pattern.kind == "absent" else _together(pattern, held)


def _together(pattern: Pattern, held: Sequence[Held]) -> Decision:
    """`all_of` and `sequence`. For each part there is at most one chain of events that it completes so far:
    the event itself or, in a sequence, that behind the chain of the part before it. A newer chain begins no
    earlier than the one it takes the place of, so the older is not needed any more."""
    within = timedelta(seconds=pattern.within)
    chains: list[tuple[Held, ...]] = [()] * len(pattern.parts)
    waiting: list[Held] = []
    for event in held:
        expired = _expired(chains, waiting, within)
        if expired is not None and expired.deadline < event.at:
            return expired
        complete = _extend(pattern, chains, event)
        waiting.append(event)
        if complete:
            return _completed(pattern, complete, waiting)
        needed = {one for chain in chains for one in chain}
        if gone := tuple(one for one in waiting if one not in needed):
            # An event that no chain took is a part whose forerunner is missing.
            reason: Reason = "incomplete" if gone == (event,) else "superseded"
            return Decision(gone, event.at, reason, _dropped(gone, reason))
    expired = _expired(chains, waiting, within)
    assert expired is not None
    return expired


def _extend(pattern: Pattern, chains: list[tuple[Held, ...]], event: Held) -> tuple[Held, ...]:
    """Take an event into the chains; the events of all parts, if that completes them."""
    ordered = pattern.kind == "sequence"
    # From the last part on: an event that is several parts does not follow itself.
    for number in reversed(range(len(chains))):
        if pattern.parts[number] not in event.parts:
            continue
        if not ordered or number == 0:
            chains[number] = (event,)
        elif chains[number - 1]:
            chains[number] = (*chains[number - 1], event)
    if ordered:
        return chains[-1]
    return tuple(chain[0] for chain in chains) if all(chains) else ()


def _completed(pattern: Pattern, complete: tuple[Held, ...], waiting: Sequence[Held]) -> Decision:
    events = tuple(one for one in waiting if one in complete)
    start = Start(events, tuple(zip(pattern.parts, complete, strict=True)))
    others = tuple(one for one in waiting if one not in complete)
    return Decision(tuple(waiting), waiting[-1].at, "complete", (start, *_dropped(others, "superseded")))


def _expired(
    chains: Sequence[tuple[Held, ...]], waiting: Sequence[Held], within: timedelta
) -> Decision | None:
    """What ends first for want of the others: the events whose last chain began longest ago."""
    begun: dict[Held, datetime] = {}
    for chain in chains:
        for one in chain:
            begun[one] = max(chain[0].at, begun.get(one, chain[0].at))
    if not begun:
        return None
    oldest = min(begun.values())
    members = tuple(one for one in waiting if begun[one] == oldest)
    return Decision(members, oldest + within, "incomplete", _dropped(members, "incomplete"))


def _absent(pattern: Pattern, held: Sequence[Held]) -> Decision:
    within = timedelta(seconds=pattern.within)
    waiting: list[Held] = []
    for event in held:
        if waiting and waiting[0].at + within < event.at:
            break
        if EXPECTED in event.parts:
            # One that is both ends the waits there are, and then begins one of its own.
            begins = AFTER in event.parts
            if waiting:
                return Decision((*waiting, *(() if begins else (event,))), event.at, "arrived", ())
            if not begins:
                return Decision((event,), event.at, "unmatched", ())
        waiting.append(event)
    first = waiting[0]
    return Decision((first,), first.at + within, "absent", (Start((first,), ((AFTER, first),)),))


def _dropped(events: Sequence[Held], reason: Reason) -> tuple[Drop, ...]:
    return tuple(Drop(event, reason) for event in events)
