"""`ordinaut schedule preview`: what a schedule will do; needs no server."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import typer

from ordinaut.cli.calendar import print_calendar
from ordinaut.cli.output import note, print_json, table
from ordinaut.cli.yaml_source import load_documents
from ordinaut.domain.schedules.preview import preview
from ordinaut.domain.schedules.schedule import Schedule
from ordinaut.domain.schedules.spec import parse_schedule
from ordinaut.domain.schedules.zones import to_instant


def preview_command(
    given: Mapping[str, Any],
    after: str | None,
    count: int,
    *,
    calendar: bool = False,
    as_json: bool,
) -> int:
    """Print the first `count` occurrences after `after` (now, when None), as a table or as months, or in JSON
    the first `count` instants it fires at; 1 when it never fires.

    `given` is a schedule object (`{"cron": …}`), or `{"schedule": …}` with all of it in YAML. Raises Invalid
    for a rule or a zone that is wrong.
    """
    start = datetime.now(UTC).replace(microsecond=0) if after is None else _instant(after)
    spec = _read(given["schedule"]) if "schedule" in given else dict(given)
    moment = start if start.tzinfo else start.replace(tzinfo=UTC)
    schedule = parse_schedule(spec, created_at=moment)
    if start.tzinfo is None:  # a wall time, in the schedule's zone
        moment = to_instant(schedule.tz, start)
        schedule = parse_schedule(spec, created_at=moment)
    found = [] if as_json else preview(schedule, moment, count)
    if as_json:
        print_json([at.isoformat() for at in _firing(schedule, moment, count)])
    elif found and calendar:
        note(f"{schedule.describe()}; shown are {len(found)} after {moment.isoformat()}")
        print_calendar(found)
    elif found:
        note(schedule.describe())
        table(
            ("local time", "UTC", "note"),
            [
                (
                    each.local.strftime("%a %Y-%m-%d %H:%M:%S %z"), each.utc.strftime("%Y-%m-%d %H:%M:%S"),
                    each.note,
                )
                for each in found
            ],
        )  # fmt: skip
    if schedule.kept_after(moment) is not None:
        return 0
    note(f"It never fires after {moment.isoformat()}: {schedule.describe()}")
    return 1


def _firing(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """The first `count` instants that are not excluded, each in the zone of the rule that names it."""
    found: list[datetime] = []
    at = schedule.kept_after(after)
    while at is not None and len(found) < count:
        found.append(at.astimezone(schedule.naming(at)[1].tz))
        at = schedule.kept_after(at)
    return found


def _read(text: str) -> Any:
    return load_documents(text, "--schedule")[0].value


def _instant(text: str) -> datetime:
    """An ISO instant, or a wall time without an offset."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text[:60]!r} is not an ISO instant, such as 2026-05-04T08:30:00+03:00", param_hint="--after"
        ) from None
