"""Zones come from the package `tzdata`, whatever the machine has, and are read as RFC 5545 says."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import pytest
import tzdata
from hypothesis import given, settings

from ordinaut.domain.schedules.zones import exists, gap_at, to_instant, to_wall, tz_version, zone, zone_names
from tests.support.processes import ROOT
from tests.unit.schedules.transitions import near_changes, offset

ASKED = """
import json, zoneinfo
from datetime import datetime, UTC
from ordinaut.domain.schedules.cron import Cron
from ordinaut.domain.schedules.zones import zone, zone_names, tz_version
at = datetime(2026, 7, 1, tzinfo=UTC)
print(json.dumps({
    "package": at.astimezone(zone("Europe/Chisinau")).isoformat(),
    "cron": Cron("0 9 * * *", zone("Europe/Chisinau")).next_after(at).isoformat(),
    "machine": at.astimezone(zoneinfo.ZoneInfo("Europe/Chisinau")).isoformat(),
    "zones": len(zone_names()), "version": tz_version(),
}))
"""


def asked_on_a_machine_with(directory: Path | str) -> dict[str, object]:
    """What a process says whose standard library finds its zones in `directory`."""
    env = {**os.environ, "PYTHONTZPATH": str(directory), "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, "-c", ASKED], env=env, capture_output=True, text=True, check=True
    )
    told: dict[str, object] = json.loads(answer.stdout)
    return told


def test_a_machine_with_other_zone_files_agrees(tmp_path: Path) -> None:
    """Its Europe/Chisinau is Tokyo's; the standard library believes it, schedules do not."""
    (tmp_path / "Europe").mkdir()
    tokyo = resources.files("tzdata").joinpath("zoneinfo", "Asia", "Tokyo")
    with resources.as_file(tokyo) as file:
        shutil.copy(file, tmp_path / "Europe" / "Chisinau")
    told = asked_on_a_machine_with(tmp_path)
    assert told["machine"] == "2026-07-01T09:00:00+09:00"
    assert told["package"] == "2026-07-01T03:00:00+03:00"
    assert told["cron"] == "2026-07-01T06:00:00+00:00"
    assert told["version"] == tzdata.IANA_VERSION == tz_version()


def test_a_machine_without_zone_files_knows_every_zone() -> None:
    assert asked_on_a_machine_with("")["zones"] == len(zone_names()) > 500


def test_every_zone_of_the_package_can_be_read() -> None:
    for name in zone_names():
        assert zone(name).key == name
        assert abs(offset(zone(name), datetime(2026, 1, 15, 12, tzinfo=UTC))) <= timedelta(hours=14)


@settings(max_examples=400, deadline=None)
@given(near_changes(hours=26))
def test_a_wall_time_is_read_as_its_first_or_with_the_offset_before_the_gap(
    where: tuple[str, datetime],
) -> None:
    name, at = where
    tz = zone(name)
    wall = to_wall(tz, at)
    first = to_instant(tz, wall)
    assert exists(tz, wall) and to_wall(tz, first) == wall and first <= at
    # Any wall time near the change, there or not.
    for minutes in range(-90, 91, 15):
        near = wall + timedelta(minutes=minutes)
        read = to_instant(tz, near)
        if exists(tz, near):
            assert to_wall(tz, read) == near
            continue
        jump = gap_at(tz, near)
        before = offset(tz, jump - timedelta(seconds=1))
        assert read - near.replace(tzinfo=UTC) == -before
        assert to_wall(tz, jump - timedelta(seconds=1)) < near < to_wall(tz, jump)


@pytest.mark.parametrize("name", ["Australia/Lord_Howe", "Pacific/Apia"])
def test_half_an_hour_and_a_whole_day_are_gaps_like_others(name: str) -> None:
    tz = zone(name)
    missing, width = {
        "Australia/Lord_Howe": (datetime(2024, 10, 6, 2, 15), timedelta(minutes=30)),
        "Pacific/Apia": (datetime(2011, 12, 30, 12), timedelta(days=1)),
    }[name]
    assert not exists(tz, missing)
    assert to_wall(tz, to_instant(tz, missing)) == missing + width
