"""A schedule starts runs by itself, and every instant it names gets a verdict: fired, or why not."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.story.conftest import Story

SAY = [{"id": "say", "uses": "debug.echo", "with": "${run.cause}"}]


def occurrences(story: Story, name: str, verdict: str) -> list[dict[str, Any]]:
    return [one for one in story.items(f"/v1/tasks/{name}/occurrences") if one["verdict"] == verdict]


def test_a_schedule_fires_by_itself(story: Story) -> None:
    """`every` counts elapsed time, `cron` and `rrule` follow the clock on the wall, `once` is one instant.
    The run knows which instant it is for."""
    task = story.define("tick", schedule={"every": "1s"}, pipeline=SAY)
    assert task["next_fire_at"] is not None
    first = story.runs_of("tick", 1)[-1]
    assert first["cause"]["kind"] == "schedule"
    assert first["cause"]["at"] == task["next_fire_at"]
    assert first["output"] == first["cause"]


def test_a_preview_says_when_before_you_trust_it(story: Story) -> None:
    """`1-5` is Monday to Friday. At a clock change the preview says what happens:
    on 29 March 2026 the clocks of Chisinau jumped from 03:00 to 04:00."""
    weekdays = {
        "cron": "30 8 * * 1-5",
        "timezone": "Europe/Chisinau",
        "after": "2026-10-23T12:00:00Z",
        "count": 2,
    }
    assert [one["at"] for one in story.tell("/v1/schedules/preview", **weekdays)["items"]] == [
        "2026-10-26T08:30:00+02:00",
        "2026-10-27T08:30:00+02:00",
    ]
    night = {
        "rrule": "FREQ=DAILY;BYHOUR=3;BYMINUTE=30",
        "timezone": "Europe/Chisinau",
        "dtstart": "2026-01-01",
    }
    (jumped,) = story.tell("/v1/schedules/preview", **night, after="2026-03-28T12:00:00Z", count=1)["items"]
    assert jumped["at"] == "2026-03-29T04:30:00+03:00"
    assert "03:30 does not exist" in jumped["note"]


def test_a_task_may_have_several_schedules_and_days_off(story: Story) -> None:
    """A list is one schedule: an instant that two of them name is one run. What `exclude` leaves out is
    expected like everything else, and on record as `excluded` when its time has come."""
    today = datetime.now(UTC).date()
    days_off = f"{today - timedelta(days=1)}/{today + timedelta(days=1)}"
    off = {"every": "1s", "exclude": [days_off]}
    story.define("shop", schedule=[off, {"cron": "0 9 1 1 *", "timezone": "Europe/Chisinau"}], pipeline=SAY)
    assert story.get("/v1/tasks/shop")["next_fire_at"] >= (today + timedelta(days=2)).isoformat()
    (skipped, *_) = story.eventually(lambda: occurrences(story, "shop", "skipped"))
    assert skipped["reason"] == "excluded"
    story.define("open", schedule=[off, {"every": "1s"}], pipeline=SAY)
    assert story.runs_of("open", 1)[-1]["cause"]["index"] == 1


def test_what_did_not_run_because_of_a_pause_is_on_record(story: Story) -> None:
    """A paused task does not fire; each instant that passes gets the verdict `skipped`, with the reason.
    After `resume` it fires again."""
    story.define("beat", schedule={"every": "1s"}, pipeline=SAY)
    story.tell("/v1/tasks/beat/pause", reason="maintenance")
    (skipped, *_) = story.eventually(
        lambda: [one for one in occurrences(story, "beat", "skipped") if one["reason"] == "paused"]
    )
    assert story.get("/v1/tasks/beat")["paused_reason"] == "maintenance"
    story.tell("/v1/tasks/beat/resume")
    assert story.eventually(
        lambda: [one for one in occurrences(story, "beat", "fired") if one["at"] > skipped["at"]]
    )


def test_a_paused_task_still_runs_when_you_tell_it_to(story: Story) -> None:
    """A pause is about schedules and streams. Your own command is not a surprise to you."""
    story.define("hourly", schedule={"every": "1h"}, pipeline=SAY)
    story.tell("/v1/tasks/hourly/pause")
    assert story.run("hourly")["cause"] == {"kind": "manual"}


def test_a_snooze_ends_by_itself(story: Story) -> None:
    """Snoozing skips what is due until then, and nothing has to be resumed.
    What will be skipped can be seen beforehand."""
    story.define("nap", schedule={"every": "1s"}, pipeline=SAY)
    until = datetime.now(UTC) + timedelta(minutes=5)
    task = story.tell("/v1/tasks/nap/snooze", until=until.isoformat())
    assert datetime.fromisoformat(task["snoozed_until"]) == until
    expected = story.eventually(lambda: occurrences(story, "nap", "expected"))
    assert expected[0]["reason"] == "snoozed"
    story.tell("/v1/tasks/nap/snooze", **{"for": "1ms"})
    assert story.eventually(lambda: occurrences(story, "nap", "fired"))


def test_what_was_skipped_can_be_run_after_all(story: Story) -> None:
    """A backfill shows first what it will run, then runs it: each instant once, and never what has a run. The
    ledger still tells that it was skipped at the time."""
    task = story.define("late", schedule={"every": "1s"}, pipeline=SAY)
    story.tell("/v1/tasks/late/pause")
    story.eventually(lambda: len(occurrences(story, "late", "skipped")) >= 2)
    wanted = {"from": task["created_at"]}
    plan = story.tell("/v1/tasks/late/backfill", dry_run=True, **wanted)
    wanted["to"] = plan["to"]
    skipped = [one["at"] for one in plan["items"] if one["will_run"]]
    assert skipped and all(one["run"] for one in plan["items"] if one["verdict"] == "fired")
    begun = story.tell("/v1/tasks/late/backfill", reason="the pause was a mistake", **wanted)

    def finished() -> bool:
        return bool(story.get(f"/v1/backfills/{begun['backfill']}")["state"] == "finished")

    assert story.eventually(finished)
    runs = [run for run in story.items("/v1/runs", task="late") if run["cause"]["kind"] == "backfill"]
    assert [run["output"]["at"] for run in reversed(runs)] == skipped
    assert story.tell("/v1/tasks/late/backfill", dry_run=True, **wanted)["counts"]["run"] == 0
    ledger = story.items("/v1/tasks/late/occurrences", **wanted)
    assert skipped[0] in [one["at"] for one in ledger if one["verdict"] == "skipped"]
