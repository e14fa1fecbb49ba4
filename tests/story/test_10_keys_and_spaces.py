"""Everybody has a key of their own. A key opens one space, and allows what its role says."""

import httpx

from tests.story.conftest import Story, as_json

SAY = [{"id": "say", "uses": "debug.echo", "with": "hello"}]


def client(story: Story, agent: str, *, role: str = "operator", space: str = "default") -> httpx.Client:
    """A client with a new key."""
    issued = as_json(story.cli("key", "issue", agent, "--role", role, "--space", space, "--json"))
    headers = {"Authorization": f"Bearer {issued['key']}"}
    return httpx.Client(base_url=story.http.base_url, headers=headers, timeout=20)


def test_without_a_key_nothing_is_told(story: Story) -> None:
    """Everything under /v1 needs `Authorization: Bearer KEY`. Only /health, /metrics and /docs are open."""
    with httpx.Client(base_url=story.http.base_url) as stranger:
        assert stranger.get("/v1/tasks").status_code == 401
        assert stranger.get("/health/ready").status_code == 200
        assert stranger.get("/docs").status_code == 200


def test_a_reader_reads(story: Story) -> None:
    """`reader` may look, `operator` may also command, `admin` is for those who run the place."""
    with client(story, "dashboard", role="reader") as dashboard:
        assert dashboard.get("/v1/tasks").status_code == 200
        assert dashboard.put("/v1/tasks/mine", json={"pipeline": SAY}).status_code == 403


def test_spaces_know_nothing_of_each_other(story: Story) -> None:
    """Tasks, runs, events and names belong to a space. In another one they do not exist."""
    story.define("private", pipeline=SAY)
    run = story.run("private")
    with client(story, "neighbour", space="next-door") as neighbour:
        assert neighbour.get("/v1/tasks/private").status_code == 404
        assert neighbour.get(f"/v1/runs/{run['id']}").status_code == 404
        assert neighbour.put("/v1/tasks/private", json={"pipeline": SAY}).status_code == 201
        assert {event["space"] for event in neighbour.get("/v1/log").json()["items"]} == {"next-door"}


def test_the_log_knows_who_did_what_but_never_a_key(story: Story) -> None:
    """Events name the agent. Of a key only a hash is kept, and not in the log."""
    with client(story, "deploy-bot") as bot:
        task = bot.put("/v1/tasks/deployed", json={"pipeline": SAY}).json()
        (created,) = story.items("/v1/log", stream=f"task-{task['id']}")
        assert created["actor"] == "key:deploy-bot"
        key = bot.headers["Authorization"].removeprefix("Bearer ")
    assert key not in story.http.get("/v1/log", params={"limit": 500, "type": "KeyIssued"}).text


def test_what_a_step_was_given_is_recorded_without_its_secrets(story: Story) -> None:
    """A value under a name such as `authorization` or `password` is left out. But a definition is recorded
    as it is written: a real secret has no place in it, let a tool of your own fetch it."""
    given = {"user": "ana", "password": "correct horse"}
    story.define(
        "login", pipeline=[{"id": "log-in", "uses": "log.write", "with": {"message": "hi", "fields": given}}]
    )
    run = story.run("login")
    assert run["steps"][0]["input"]["fields"] == {"user": "ana", "password": "[redacted]"}
