"""Everybody has a key of their own. A key opens one space, and allows what its role says."""

import httpx

from tests.story.conftest import DOOR_KEY, Story, as_json
from tests.story.service import Service

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


def test_an_admin_says_how_often_a_task_of_the_space_may_run(story: Story) -> None:
    """Faster schedules are refused from then on, with the instants that are too near to each other."""
    with client(story, "quiet-admin", role="admin", space="quiet") as admin:
        limit = {"minimum_interval": "10m", "reason": "the mail server asked for it"}
        assert admin.put("/v1/spaces/quiet", json=limit).json()["changed_by"] == "key:quiet-admin"
        task = {"schedule": {"cron": "0,5 8 * * *"}, "pipeline": SAY}
        refused = admin.put("/v1/tasks/mail", json=task)
        assert refused.status_code == 422
        (error,) = refused.json()["errors"]
        assert error["pointer"] == "/schedule"
        assert "which are 5m apart" in error["detail"]


def test_the_log_knows_who_did_what_but_never_a_key(story: Story) -> None:
    """Events name the agent. Of a key only a hash is kept, and not in the log."""
    with client(story, "deploy-bot") as bot:
        task = bot.put("/v1/tasks/deployed", json={"pipeline": SAY}).json()
        (created,) = story.items("/v1/log", stream=f"task-{task['id']}")
        assert created["actor"] == "key:deploy-bot"
        key = bot.headers["Authorization"].removeprefix("Bearer ")
    assert key not in story.http.get("/v1/log", params={"limit": 500, "type": "KeyIssued"}).text


def test_a_task_names_its_secrets_and_only_the_workers_know_them(story: Story, service: Service) -> None:
    """`${secrets.door_key}` is what the worker finds in `ORDINAUT_SECRET_DOOR_KEY`. The log has a mark."""
    with_key = {"url": service.url, "json": {"user": "ana", "key": "${secrets.door_key}"}}
    story.define("open", pipeline=[{"id": "knock", "uses": "http.post", "with": with_key}])
    run = story.run("open")
    assert service.asked[0].body == {"user": "ana", "key": DOOR_KEY}
    assert run["steps"][0]["input"]["json"] == {"user": "ana", "key": "[redacted]"}
    assert DOOR_KEY not in story.http.get("/v1/log", params={"limit": 500}).text


def test_a_secret_is_never_written_into_a_task(story: Story) -> None:
    """What goes under a name such as `password` or `authorization` must be named, not written."""
    step = {"id": "log-in", "uses": "debug.echo", "with": {"user": "ana", "password": "correct horse"}}
    refused = story.http.put("/v1/tasks/login", json={"pipeline": [step]})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/pipeline/0/with/password"
