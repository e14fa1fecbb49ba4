"""`ordinaut schedule refresh`: plan anew what was planned with another tz database."""

from typing import Any

from ordinaut.cli.client import Client
from ordinaut.cli.output import note, print_json, say, table


def refresh_command(*, dry_run: bool, as_json: bool) -> int:
    """Say which tasks moved (with `dry_run`: would move) and by how many schedules nothing changed."""
    moved: list[dict[str, Any]] = []
    same = due = 0
    tz, after = "", None
    with Client() as client:
        while True:
            page = client.post("/v1/schedules/refresh", {"dry_run": dry_run, "after": after})
            moved += page["moved"]
            same, due, tz, after = same + page["same"], due + page["due"], page["tz"], page["next"]
            if after is None:
                break
    if as_json:
        print_json({"tz": tz, "moved": moved, "same": same, "due": due})
        return 0
    if moved:
        table(
            ("task", "planned with", "was", "is now" if not dry_run else "would be", "note"),
            [
                (one["task"], one["tz"], one["was"], one["next_fire_at"] or "never", _note(one))
                for one in moved
            ],
        )
    verb = "would move" if dry_run else "moved"
    say(f"tz database {tz}: {len(moved)} {verb}, {same} planned with another release stay where they are")
    if due:
        note(f"{due} were due or being changed and not looked at; ask again when the clock has decided them.")
    return 0


def _note(one: dict[str, Any]) -> str:
    return f"{one['passed']} has passed, not run" if one["passed"] else ""
