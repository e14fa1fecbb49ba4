"""A rule that remembers answers as one that does not, and is searched less often."""

from datetime import UTC, datetime, timedelta
from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.schedules.exclusions import Exclusions, Window
from ordinaut.domain.schedules.remembering import Remembering
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.spec import parse_schedule

BORN = datetime(2026, 1, 1, 10, 20, 30, tzinfo=UTC)
START = datetime(2026, 10, 24, 20, tzinfo=UTC)
SPECS = st.sampled_from(
    [
        {"cron": "*/20 2 * * *", "timezone": "Europe/Berlin"},
        {"cron": "15 2 * * *", "timezone": "Australia/Lord_Howe"},
        {"rrule": "FREQ=MINUTELY;INTERVAL=7;BYHOUR=2,3", "timezone": "Europe/Berlin"},
        {"rrule": "FREQ=DAILY;COUNT=300;BYHOUR=1"},
        {"every": "90s", "anchor": "2026-10-25T00:00:00Z"},
        {"once": "2026-10-25T02:30:00", "timezone": "Europe/Berlin"},
    ]
)
MOMENTS = st.timedeltas(timedelta(hours=-30), timedelta(hours=30)).map(lambda offset: START + offset)


@given(SPECS, st.lists(MOMENTS, max_size=30))
def test_the_answers_are_the_rules_in_whatever_order_they_are_asked_for(
    spec: dict[str, str], moments: list[datetime]
) -> None:
    rule = parse_schedule(spec, created_at=BORN)
    remembering = Remembering(rule)
    for moment in moments:
        at = rule.next_after(moment)
        assert remembering.next_after(moment) == at
        if at is not None:
            assert remembering.next_after(at) == rule.next_after(at)


class Counted(Schedule):
    """Counts how often it is asked."""

    kind: ClassVar[str] = "counted"

    def __init__(self, rule: Schedule) -> None:
        self.rule, self.tz, self.asked = rule, rule.tz, 0

    def next_after(self, instant: datetime) -> datetime | None:
        self.asked += 1
        return self.rule.next_after(instant)

    def describe(self) -> str:
        return "counted"


def test_a_sparse_exclusion_is_not_searched_for_at_each_instant() -> None:
    counted = Counted(parse_schedule({"rrule": "FREQ=DAILY;BYMONTHDAY=13;BYDAY=FR"}, created_at=BORN))
    exclusions = Exclusions(counted.tz, windows=[Window(Remembering(counted), timedelta(hours=1))])
    assert not any(exclusions.until(START + timedelta(seconds=n)) for n in range(1000))
    assert counted.asked == 1
