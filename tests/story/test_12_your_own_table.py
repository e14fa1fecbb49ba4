"""Read tables are folds of the log, written in SQL. Yours is one more (see own_package.py)."""

from tests.story.conftest import Story, as_json


def test_your_fold_becomes_a_table_that_follows_the_log(story: Story) -> None:
    """`ordinaut migrate` makes its table, and the projector keeps it: it counts the visits per name.
    Any client of PostgreSQL may read it."""
    last = [
        story.http.post("/v1/events", json={"stream": "front-door", "data": name}) for name in ("Ana", "Ion")
    ][-1]

    def followed() -> bool:
        (mine,) = [one for one in story.items("/v1/projections") if one["name"] == "visitors"]
        return bool(mine["position"] >= int(last.headers["Ordinaut-Position"]))

    assert story.eventually(followed)
    (verdict,) = as_json(story.cli("projections", "verify", "visitors", "--json"))
    assert verdict["agrees"] and verdict["rows"] == 2


def test_a_table_can_be_thrown_away_and_made_again(story: Story) -> None:
    """The log is the truth: `rebuild` folds all of it anew beside the live table, and swaps the two."""
    (rebuilt,) = as_json(story.cli("projections", "rebuild", "visitors", "--json"))
    assert rebuilt["events"] > 0
    (verdict,) = as_json(story.cli("projections", "verify", "visitors", "--json"))
    assert verdict["agrees"]


def test_every_table_agrees_with_the_log(story: Story) -> None:
    """After all that happened in this story, each read table is exactly what the log says."""
    verdicts = as_json(story.cli("projections", "verify", "--json"))
    assert {"tasks", "schedules", "due_work", "runs", "occurrences", "visitors"} <= {
        verdict["projection"] for verdict in verdicts
    }
    assert all(verdict["agrees"] for verdict in verdicts), verdicts
