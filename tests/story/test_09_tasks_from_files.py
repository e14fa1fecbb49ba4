"""Tasks live in files, beside the code they belong to; `ordinaut apply` makes the system what they say."""

from pathlib import Path

from tests.story.conftest import Story

BACKUP = """
name: backup
schedule: {cron: "0 3 * * *"}
pipeline:
  - id: copy
    uses: debug.echo
    with: {folder: /srv}
"""


def test_apply_shows_its_plan_and_carries_it_out(story: Story, tmp_path: Path) -> None:
    """All files are read and checked, then compared with what is there, then sent.
    Applied again, there is nothing to do."""
    file = tmp_path / "backup.yaml"
    file.write_text(BACKUP)
    assert "+ backup  new" in story.cli("apply", "-f", str(file))
    assert story.get("/v1/tasks/backup")["schedule"] == {"cron": "0 3 * * *", "timezone": "UTC"}
    assert "Nothing to do" in story.cli("apply", "-f", str(file))


def test_the_plan_shows_what_differs(story: Story, tmp_path: Path) -> None:
    """The places that change are told with the old value and the new. `--dry-run` leaves it at that."""
    file = tmp_path / "backup.yaml"
    file.write_text(BACKUP)
    story.cli("apply", "-f", str(file))
    before = story.get("/v1/tasks/backup")
    file.write_text(BACKUP.replace("/srv", "/home"))
    plan = story.cli("apply", "--dry-run", "-f", str(file))
    assert "~ backup  changes" in plan
    assert "/pipeline/0/with/folder" in plan
    assert '- "/srv"' in plan and '+ "/home"' in plan
    assert story.get("/v1/tasks/backup") == before


def test_one_bad_file_and_nothing_is_applied(story: Story, tmp_path: Path) -> None:
    """A directory is applied whole or not at all. What is wrong is told with file and line."""
    (tmp_path / "good.yaml").write_text(BACKUP.replace("name: backup", "name: good"))
    (tmp_path / "wrong.yaml").write_text(BACKUP.replace("0 3 * * *", "0 33 * * *"))
    said = story.cli("apply", "-f", str(tmp_path), code=1)
    assert "wrong.yaml:3: /schedule/cron: the hour field '33' is wrong" in said
    assert story.http.get("/v1/tasks/good").status_code == 404
