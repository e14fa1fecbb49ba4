"""The commands that work on the database itself, and those that need no server at all."""

from enum import StrEnum
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Projections; all by default.")]

projections = typer.Typer(help="The read tables: how far they are, whether they are right, making them anew.")
schedule = typer.Typer(help="What schedules will do, and which tz database they go by.")
key = typer.Typer(help="API keys (works on the database).")


class KeyRole(StrEnum):
    """What a key allows."""

    ADMIN = "admin"
    OPERATOR = "operator"
    READER = "reader"


def migrate() -> None:
    """Bring the database up to date: tables, read tables, and rebuilding those of an older version."""
    from ordinaut.cli import database

    raise typer.Exit(database.migrate_command())


def doctor(as_json: Json = False) -> None:
    """Check everything this system stands on, and say what to do about what is not well."""
    from ordinaut.cli import doctor as module

    raise typer.Exit(module.doctor(as_json=as_json))


@projections.command("status")
def projections_status(as_json: Json = False) -> None:
    """Show how far each projection has read the log."""
    from ordinaut.cli import database

    raise typer.Exit(database.status_command(as_json=as_json))


@projections.command("verify")
def projections_verify(names: Names = None, as_json: Json = False) -> None:
    """Fold the log anew and compare with the live tables; exit code 1 when a row differs."""
    from ordinaut.cli import database

    raise typer.Exit(database.verify_command(names or [], as_json=as_json))


@projections.command("rebuild")
def projections_rebuild(names: Names = None, as_json: Json = False) -> None:
    """Make read tables anew beside the live ones, then exchange them."""
    from ordinaut.cli import database

    raise typer.Exit(database.rebuild_command(names or [], as_json=as_json))


@schedule.command("preview")
def schedule_preview(
    cron: Annotated[str | None, typer.Option(help="Such as '30 8 * * 1-5'.")] = None,
    rrule: Annotated[str | None, typer.Option(help="Such as 'FREQ=WEEKLY;BYDAY=MO;BYHOUR=8'.")] = None,
    once: Annotated[str | None, typer.Option(help="An instant or a local time.")] = None,
    every: Annotated[str | None, typer.Option(help="A duration such as 15m.")] = None,
    timezone: Annotated[str | None, typer.Option(help="IANA name; UTC by default.")] = None,
    start: Annotated[str | None, typer.Option(help="Nothing before this day or moment.")] = None,
    end: Annotated[str | None, typer.Option(help="Nothing behind this day or moment.")] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="A day, or a range as 2026-08-01/2026-08-14; repeatable."),
    ] = None,
    whole: Annotated[
        str | None,
        typer.Option("--schedule", help="All of it, in YAML or JSON; a list too."),
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="Only what comes after this ISO instant; now by default.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 10,
    calendar: Annotated[bool, typer.Option("--calendar", help="Show months instead of a table.")] = False,
    as_json: Json = False,
) -> None:
    """Show when a schedule will fire, in local time and UTC, with notes at clock changes."""
    from ordinaut.cli import preview

    rules = {"cron": cron, "rrule": rrule, "once": once, "every": every, "schedule": whole}
    if sum(text is not None for text in rules.values()) != 1:
        raise typer.BadParameter(
            "give exactly one of --cron, --rrule, --once, --every, --schedule", param_hint="the schedule"
        )
    fields = rules | {"timezone": timezone, "start": start, "end": end, "exclude": exclude}
    given = {name: value for name, value in fields.items() if value}
    if whole is not None and len(given) > 1:
        raise typer.BadParameter("says all of it: leave the other options out", param_hint="--schedule")
    if calendar and as_json:
        raise typer.BadParameter("one of the two at a time", param_hint="--calendar and --json")
    code = preview.preview_command(given, after, count, calendar=calendar, as_json=as_json)
    raise typer.Exit(code)


@schedule.command("refresh")
def schedule_refresh(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would move.")] = False,
    as_json: Json = False,
) -> None:
    """Plan anew what was planned with another tz database, and say which tasks moved."""
    from ordinaut.cli import refresh

    raise typer.Exit(refresh.refresh_command(dry_run=dry_run, as_json=as_json))


@key.command("issue")
def key_issue(
    agent: Annotated[str, typer.Argument(help="Who gets it; events name them.")],
    role: Annotated[KeyRole, typer.Option(help="What it allows.")] = KeyRole.OPERATOR,
    space: Annotated[str | None, typer.Option(help="The space it is for.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key and show it, once."""
    from ordinaut.cli import keys

    raise typer.Exit(keys.issue_command(agent, role.value, space, as_json=as_json))


@key.command("list")
def key_list(
    space: Annotated[str | None, typer.Option(help="The space to list.")] = None, as_json: Json = False
) -> None:
    """List every key there is or was; the keys themselves are not known to anybody."""
    from ordinaut.cli import keys

    raise typer.Exit(keys.list_command(space, as_json=as_json))


@key.command("revoke")
def key_revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `ordinaut key list` shows it.")],
    space: Annotated[str | None, typer.Option(help="The space it is of.")] = None,
) -> None:
    """Make a key worthless, for good."""
    from ordinaut.cli import keys

    raise typer.Exit(keys.revoke_command(key_id, space))
