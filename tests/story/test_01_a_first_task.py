"""A task is a name and steps. You tell it to run, and look at what came of it."""

from tests.story.conftest import Story

SAY_HELLO = [{"id": "say", "uses": "debug.echo", "with": {"text": "hello"}}]


def test_a_task_is_a_name_and_steps(story: Story) -> None:
    """PUT says how a task shall be, and answers with all of it, defaults included.
    `debug.echo` is the simplest tool: it gives back what it was given."""
    task = story.define("hello", pipeline=SAY_HELLO)
    assert (task["name"], task["status"], task["version"]) == ("hello", "active", 1)
    assert task["pipeline"][0]["timeout"] == "30s"
    assert task["policy"]["max_attempts"] == 5


def test_a_task_runs_when_you_tell_it_to(story: Story) -> None:
    """A run is accepted at once (202 and its id) and carried out by a worker.
    Its output is the output of its last step."""
    story.define("hello", pipeline=SAY_HELLO)
    answer = story.http.post("/v1/tasks/hello/run", json={})
    assert answer.status_code == 202
    run = story.ended(answer.json()["run"])
    assert run["state"] == "succeeded"
    assert run["output"] == {"text": "hello"}


def test_a_run_shows_what_each_step_was_given_and_gave(story: Story) -> None:
    """Every step of a run is on record: input, output, how often it was tried, when it began and ended.
    It was on disk before the next step began."""
    story.define("hello", pipeline=SAY_HELLO)
    (step,) = story.run("hello")["steps"]
    assert (step["id"], step["state"], step["attempt"]) == ("say", "succeeded", 1)
    assert step["input"] == step["output"] == {"text": "hello"}
    assert step["started_at"] <= step["finished_at"]


def test_what_is_wrong_with_a_task_is_said_with_its_place(story: Story) -> None:
    """Nothing wrong gets in: the answer (RFC 9457) names every fault by a JSON Pointer,
    and what would be right where that is known."""
    wrong = [{"id": "say", "uses": "debug.ecko", "with": {"text": "${steps.later.text}"}}]
    answer = story.http.put("/v1/tasks/mistaken", json={"pipeline": wrong, "titel": "Hello"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    faults = {fault["pointer"]: fault for fault in answer.json()["errors"]}
    assert set(faults) == {"/titel", "/pipeline/0/uses", "/pipeline/0/with/text"}
    assert faults["/titel"]["hint"] == "did you mean 'title'?"
    assert faults["/pipeline/0/uses"]["hint"] == "did you mean 'debug.echo'?"
    assert story.http.get("/v1/tasks/mistaken").status_code == 404
