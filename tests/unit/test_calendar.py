"""The month-calendar view of `ordinaut schedule preview`, as it is where there is no terminal."""

from datetime import UTC, datetime

import pytest

from ordinaut.cli.preview import preview_command


def shown(capsys: pytest.CaptureFixture[str], rule: dict[str, str], zone: str, after: str, count: int) -> str:
    """What it prints, without blanks at the ends of lines."""
    assert preview_command({**rule, "timezone": zone}, after, count, calendar=True, as_json=False) == 0
    return "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())


def test_days_that_fire_have_their_times_under_them_and_weeks_begin_on_monday(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rule = {"cron": "30 2,8 * * 5-7"}
    assert shown(capsys, rule, "Europe/Berlin", "2026-03-26T00:00:00Z", 8) == (
        "March 2026\n"
        "   Mo     Tu     We     Th     Fr     Sa     Su\n"
        "                                              1\n"
        "    2      3      4      5      6      7      8\n"
        "    9     10     11     12     13     14     15\n"
        "   16     17     18     19     20     21     22\n"
        "   23     24     25     26     27     28     29\n"
        "                            02:30  02:30  03:00\n"
        "                            08:30  08:30  08:30\n"
        "   30     31\n"
        "\n"
        "April 2026\n"
        "   Mo     Tu     We     Th     Fr     Sa     Su\n"
        "                  1      2      3      4      5\n"
        "                            02:30\n"
        "                            08:30\n"
        "    6      7      8      9     10     11     12\n"
        "   13     14     15     16     17     18     19\n"
        "   20     21     22     23     24     25     26\n"
        "   27     28     29     30\n"
        "\n"
        "2026-03-29 03:00  clocks go forward: 02:30 does not exist, runs at 03:00"
    )


def test_a_day_with_many_instants_shows_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, {"every": "1h"}, "Europe/Berlin", "2026-10-24T21:00:00Z", 49)
    assert "x25" in text  # the day on which clocks go back
    assert "x24" in text
    assert "2026-10-25 02:00  clocks go back" in text and "more that day)" in text


def test_only_months_with_an_instant_are_shown_and_at_most_twelve(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        preview_command(
            {"rrule": "FREQ=MONTHLY;INTERVAL=2;BYMONTHDAY=15"},
            "2026-01-01T00:00:00Z",
            20,
            calendar=True,
            as_json=False,
        )
        == 0
    )
    printed = capsys.readouterr()
    titles = [line.strip() for line in printed.out.splitlines() if line[:1].isalpha()]
    months = ("January", "March", "May", "July", "September", "November")
    assert titles == [f"{month} {year}" for year in (2026, 2027) for month in months]
    assert "first 12 months with an instant; 8 instants are later" in printed.err


def test_the_seconds_of_an_instant_are_shown_when_it_has_some(capsys: pytest.CaptureFixture[str]) -> None:
    rule = {"once": datetime(2026, 5, 4, 8, 30, 15, tzinfo=UTC).isoformat()}
    assert "08:30:15" in shown(capsys, rule, "UTC", "2026-01-01T00:00:00Z", 10)


def test_a_schedule_that_never_fires_has_no_calendar(capsys: pytest.CaptureFixture[str]) -> None:
    rule = {"once": "2020-02-03T08:00:00Z"}
    assert preview_command(rule, "2026-01-01T00:00:00Z", 10, calendar=True, as_json=False) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("It never fires after 2026-01-01")
