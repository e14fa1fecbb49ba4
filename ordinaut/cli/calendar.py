"""The month-calendar view of a preview: one grid a month, the days on which something fires marked."""

from calendar import Calendar, month_name
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from itertools import groupby

from rich.table import Table
from rich.text import Text

from ordinaut.cli.output import note, out, say
from ordinaut.domain.schedules.preview import Occurrence

MOST_MONTHS = 12
MOST_TIMES = 3
"""A day with more instants than this shows how many there are instead of their times."""

_WEEKDAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")


def print_calendar(found: Sequence[Occurrence]) -> None:
    """Print the months, in the schedule's zone, that hold one of these rising occurrences: at most
    `MOST_MONTHS` of them, and under them the notes of the days at which clocks change."""
    days: dict[date, list[Occurrence]] = defaultdict(list)
    for each in found:
        days[each.local.date()].append(each)
    months = [month for month, _ in groupby(days, key=lambda day: (day.year, day.month))]
    shown = months[:MOST_MONTHS]
    for year, month in shown:
        if (year, month) != shown[0]:
            say("")
        out().print(month_grid(year, month, days))
    visible = {day: each for day, each in days.items() if (day.year, day.month) in shown}
    notes = _notes(visible)
    for text in ["", *notes] if notes else []:
        say(text)
    left_out = len(found) - sum(map(len, visible.values()))
    if left_out:
        note(f"These are the first {MOST_MONTHS} months with an instant; {left_out} instants are later.")


def month_grid(year: int, month: int, days: dict[date, list[Occurrence]]) -> Table:
    """One month, weeks beginning on Monday. A day with occurrences has their times under it, or `x5`; what is
    excluded stands in brackets."""
    grid = Table(
        title=f"{month_name[month]} {year}", title_style="bold", title_justify="left",
        box=None, padding=(0, 2, 0, 0), header_style="bold",
    )  # fmt: skip
    for name in _WEEKDAYS:
        grid.add_column(name, min_width=5, no_wrap=True, justify="right")
    for week in Calendar().monthdatescalendar(year, month):
        grid.add_row(*(_cell(day, days.get(day, [])) if day.month == month else "" for day in week))
    return grid


def _cell(day: date, found: Sequence[Occurrence]) -> Text:
    if not found:
        return Text(str(day.day), style="dim")
    times = [_time(each) for each in found] if len(found) <= MOST_TIMES else [f"x{len(found)}"]
    style = "dim strike" if all(each.excluded for each in found) else "bold reverse"
    return Text("\n").join([Text(str(day.day), style=style), *(Text(time) for time in times)])


def _time(one: Occurrence) -> str:
    text = one.local.strftime("%H:%M:%S" if one.local.second else "%H:%M")
    return f"({text})" if one.excluded else text


def _notes(days: dict[date, list[Occurrence]]) -> list[str]:
    """A line for each day that has a note: its first one, and how many more there are."""
    lines = []
    for day, found in days.items():
        noted = [each for each in found if each.note]
        if noted:
            more = f" (and {len(noted) - 1} more that day)" if len(noted) > 1 else ""
            lines.append(f"{day} {_time(noted[0])}  {noted[0].note}{more}")
    return lines
