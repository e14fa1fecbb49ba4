"""Tasks change, and end. What has begun goes on as it was asked for."""

from tests.story.conftest import Story
from tests.story.service import Service


def say(word: str) -> dict[str, object]:
    return {"id": "say", "uses": "debug.echo", "with": word}


def test_the_same_definition_twice_changes_nothing(story: Story) -> None:
    """PUT says how a task shall be. If it is so already, no event is added and its version stays."""
    first = story.define("greeting", schedule={"every": "1h"}, pipeline=[say("hello")])
    again = story.define("greeting", schedule={"every": "1h"}, pipeline=[say("hello")])
    assert again["version"] == first["version"] == 1
    assert len(story.items("/v1/log", stream=f"task-{first['id']}")) == 1


def test_a_run_keeps_the_definition_it_was_asked_for_with(story: Story, service: Service) -> None:
    """A run that is under way when its task changes ends as it began.
    The next one is the first to follow the new definition."""
    service.close()
    ask = {"id": "ask", "uses": "http.get", "with": {"url": service.url}}
    story.define("letter", pipeline=[ask, say("old words")])
    old = story.start("letter")
    story.eventually(lambda: service.asked)
    changed = story.define("letter", pipeline=[ask, say("new words")])
    service.open()
    assert changed["version"] == 2
    assert story.ended(old)["output"] == "old words"
    assert story.run("letter")["output"] == "new words"


def test_a_retired_task_leaves_its_history_and_its_name(story: Story) -> None:
    """DELETE takes a task out of use. Nothing is erased: its runs stay, and its name is free again."""
    story.define("once-only", pipeline=[say("hello")])
    run = story.run("once-only")
    assert story.http.delete("/v1/tasks/once-only").json()["status"] == "retired"
    assert story.http.post("/v1/tasks/once-only/run").status_code == 404
    assert story.get(f"/v1/runs/{run['id']}")["output"] == "hello"
    assert story.define("once-only", pipeline=[say("hello again")])["status"] == "active"
