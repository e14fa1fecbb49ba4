"""The checker of the occurrence ledger (I8): do verdicts leave an instant out, or name one too many? Pure.

A task's history is given as the periods in which its schedules were in force. Each period's rule is
expanded anew, whatever the verdicts say, and both are walked together, oldest first: memory does not grow
with the number of instants or verdicts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import merge

from ordinaut.domain.schedules.catch_up import COUNT_CAP
from ordinaut.domain.schedules.schedule import Schedule

NEWEST = 100_000
"""At most so many instants of a task are looked at: its newest."""

BEGINNING = datetime.min.replace(tzinfo=UTC)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Period:
    """A schedule while it was in force. All instants are UTC.

    `first` is the instant it was planned with, which is one of its instants. Those before `due_before`
    must have a verdict; those from there up to `upto` (included) may have one. `versions` are the versions
    of the task's definition in this period, oldest first, each with the instant it was recorded at; `ends`
    is the version of the definition that followed, None when there is none. `tz` is the release of the tz
    database it was planned with.
    """

    rule: Schedule
    first: datetime
    due_before: datetime
    upto: datetime
    versions: Sequence[tuple[datetime, int]]
    ends: int | None = None
    tz: str = ""

    def owns(self, version: int) -> bool:
        """Whether a verdict by this version of the task's definition is about this period's rule."""
        return version >= self.versions[0][1] and (self.ends is None or version < self.ends)

    def version_at(self, instant: datetime) -> int:
        """The version of the task's definition that was in force at an instant of this period."""
        earlier = [version for since, version in self.versions if since <= instant]
        return earlier[-1] if earlier else self.versions[0][1]

    def instants(self, since: datetime = BEGINNING) -> Iterator[datetime]:
        """The period's instants from `since` on, one by one."""
        at = self.first if self.first >= since else self.rule.next_after(since - _TICK)
        while at is not None and at <= self.upto:
            yield at
            at = self.rule.next_after(at)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A row of the ledger: `count` instants from `at` to `until` (both included, UTC), decided by the
    version `version` of the task's definition. One that fired is about `at` alone."""

    at: datetime
    until: datetime
    count: int
    fired: bool
    version: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong about the instant `at` (UTC), at which `version` of the task was in force."""

    at: datetime
    version: int
    what: str


@dataclass(slots=True)
class _Open:
    """A verdict whose range has begun, and how many instants of its rule were met in it so far."""

    verdict: Verdict
    met: int = 0
    hit: bool = False


@dataclass(slots=True)
class Comparison:
    """Walks periods and verdicts side by side; what lies before `since` is left alone.

    `take` the verdicts in the order of their `at`, each at most once and none that ends before `since`,
    then `finish`. `instants` counts what was expanded.
    """

    periods: Sequence[Period]
    since: datetime = BEGINNING
    instants: int = 0
    _open: list[_Open] = field(default_factory=list)
    _walk: Iterator[tuple[datetime, int]] = field(init=False)
    _ahead: tuple[datetime, int] | None = field(init=False)

    def __post_init__(self) -> None:
        self._walk = merge(*(_numbered(n, period, self.since) for n, period in enumerate(self.periods)))
        self._ahead = next(self._walk, None)

    def take(self, verdict: Verdict) -> Iterator[Fault]:
        """What is known to be wrong before `verdict`."""
        yield from self._up_to(verdict.at)
        self._open.append(_Open(verdict))

    def finish(self) -> Iterator[Fault]:
        """What is wrong with the rest."""
        yield from self._up_to(None)
        yield from self._close(None)

    def _up_to(self, at: datetime | None) -> Iterator[Fault]:
        while self._ahead is not None and (at is None or self._ahead[0] < at):
            instant, number = self._ahead
            yield from self._close(instant)
            yield from self._judge(instant, self.periods[number])
            self._ahead = next(self._walk, None)

    def _judge(self, at: datetime, period: Period) -> Iterator[Fault]:
        self.instants += 1
        decided = False
        for each in self._open:
            own = period.owns(each.verdict.version)
            each.met += own
            if each.verdict.at == at:
                # One verdict an instant: another period's counts as well.
                decided = each.hit = True
            elif own and not each.verdict.fired:
                decided = True
        if not decided and at < period.due_before:
            yield Fault(at, period.version_at(at), "has no verdict")

    def _close(self, before: datetime | None) -> Iterator[Fault]:
        """Take leave of the verdicts that end before an instant."""
        still: list[_Open] = []
        for each in self._open:
            if before is None or each.verdict.until < before:
                yield from self._wrong(each)
            else:
                still.append(each)
        self._open = still

    def _wrong(self, each: _Open) -> Iterator[Fault]:
        verdict = each.verdict
        if verdict.at < self.since:
            return  # its beginning was not looked at
        if not each.hit:
            word = "fired" if verdict.fired else "skipped"
            yield Fault(verdict.at, verdict.version, f"was {word}, but no rule in force named it")
        elif max(each.met, 1) != verdict.count:
            if verdict.count == COUNT_CAP and each.met > COUNT_CAP:
                return  # counted no further
            what = (
                f"begins a range up to {verdict.until.isoformat()} of {verdict.count} skipped instants, but"
                f" the rule in force names {each.met}"
            )
            yield Fault(verdict.at, verdict.version, what)


def newest(periods: Sequence[Period], limit: int = NEWEST) -> datetime:
    """From where on there are at most `limit` instants: `BEGINNING` when there are no more than that.

    When there are more it is somewhere within the newest `limit`. `periods` are given oldest first.
    """
    left = limit
    for period in reversed(periods):
        number, more = period.rule.count_between(period.first, period.upto, left)
        if more or number > left:
            return _last_of(period, left)
        left -= number
    return BEGINNING


def _last_of(period: Period, limit: int) -> datetime:
    """An instant from which on the period, which has more, has at most `limit` instants."""
    if limit <= 0:
        return period.upto + _TICK
    span = timedelta(seconds=1)
    while True:
        number, more = period.rule.count_between(period.upto - 2 * span, period.upto, limit)
        if more or number > limit or period.upto - 2 * span <= period.first:
            return period.upto - span
        span *= 2


def _numbered(number: int, period: Period, since: datetime) -> Iterator[tuple[datetime, int]]:
    return ((at, number) for at in period.instants(since))
