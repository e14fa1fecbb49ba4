"""A rule that remembers its last answers, for those who ask it about instants that are near one another."""

from datetime import datetime
from typing import ClassVar

from ordinaut.domain.schedules.schedule import Schedule


class Remembering(Schedule):
    """Names what `rule` names. Between an instant and the answer to it nothing is named, so every instant in
    between has the same answer: a search through a sparse rule is not made again for each of them."""

    kind: ClassVar[str] = "remembering"

    def __init__(self, rule: Schedule) -> None:
        self.rule = rule
        self.tz = rule.tz
        # Two, because who looks back at an instant asks about the stretch before it. Replaced as a whole:
        # threads share rules.
        self._stretches: tuple[tuple[datetime, datetime], ...] = ()

    def next_after(self, instant: datetime) -> datetime | None:
        """See `Schedule`."""
        for since, found in self._stretches:
            if since <= instant < found:
                return found
        at = self.rule.next_after(instant)
        if at is not None:
            self._stretches = ((instant, at), *self._stretches[:1])
        return at

    def describe(self) -> str:
        """One sentence for people."""
        return self.rule.describe()
