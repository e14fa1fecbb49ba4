"""Services elsewhere tell what happens there: they call a webhook, and prove by a signature who they are."""

import json

import httpx

from tests.story.conftest import DOOR_KEY, Story, as_json
from tests.support.hooks import github

SHOW = [{"id": "show", "uses": "debug.echo", "with": "${input}"}]
PUSH = json.dumps({"ref": "refs/heads/main", "pusher": {"name": "Ana"}}).encode()


def test_a_push_to_a_repository_starts_a_task(story: Story) -> None:
    """A hook names a stream, the kind of signature, and a secret of the server's: never its value. The
    sender needs no API key. `event` says what it was, `data` is the body."""
    url = story.cli(
        "hook", "set", "github", "--kind", "github", "--stream", "code", "--secret", "door_key"
    ).splitlines()[0]
    story.define(
        "deploy",
        on={
            "stream": "code",
            "where": "event.type == 'push' && data.ref == 'refs/heads/main'",
            "input": {"by": "${data.pusher.name}", "over": "${event.hook}"},
        },
        pipeline=SHOW,
    )
    answer = httpx.post(url, content=PUSH, headers=github(PUSH, DOOR_KEY, "72d3162e"))
    assert answer.status_code == 202, "the event and its run are on disk"
    (run,) = story.runs_of("deploy", 1)
    assert answer.json()["runs"] == [run["id"]]
    assert run["output"] == {"by": "Ana", "over": "github"}
    again = httpx.post(url, content=PUSH, headers=github(PUSH, DOOR_KEY, "72d3162e"))
    assert again.json() == answer.json(), "a delivery that is sent again is the same one"
    assert "the webhook github delivered 72d3162e" in story.cli("run", "why", run["id"])


def test_who_cannot_sign_is_refused_and_on_record(story: Story) -> None:
    """A wrong signature is 401. The log says so, a few times a minute at most, however many come."""
    story.cli("hook", "set", "guarded", "--kind", "github", "--stream", "code", "--secret", "door_key")
    (hook,) = [one for one in as_json(story.cli("hook", "list", "--json")) if one["name"] == "guarded"]
    url = story.http.base_url.join(hook["path"])
    for _ in range(5):
        answer = httpx.post(url, content=PUSH, headers=github(PUSH, "a guess"))
        assert answer.status_code == 401
    (refused,) = story.items("/v1/log", type="HookRefused")
    assert (refused["actor"], refused["data"]["reasons"]) == ("hook:guarded", {"wrong": 1})
    story.cli("hook", "remove", "guarded", "--reason", "nobody uses it")
    assert httpx.post(url, content=PUSH, headers=github(PUSH, DOOR_KEY)).status_code == 404


def test_events_in_the_common_language_are_understood(story: Story) -> None:
    """CloudEvents: many systems send them, and here is a sink for them. The event's type is the stream."""
    story.define("greet", on={"stream": "com.example.visit"}, pipeline=SHOW)
    headers = {
        "ce-specversion": "1.0", "ce-type": "com.example.visit", "ce-source": "/door", "ce-id": "1",
        "Content-Type": "application/json",
    }  # fmt: skip
    answer = story.http.post("/v1/events", content=b'{"name": "Ion"}', headers=headers)
    assert answer.status_code == 202
    assert story.runs_of("greet", 1)[0]["output"] == {"name": "Ion"}


def test_many_events_at_once_are_one_request(story: Story) -> None:
    """All of them or, if one is not valid, none; the answer says which."""
    story.define("count", on={"stream": "visitors"}, pipeline=SHOW)
    events = [{"stream": "visitors", "data": number} for number in range(3)]
    told = story.tell("/v1/events:batch", events=events)
    outputs = [story.ended(run)["output"] for one in told["events"] for run in one["runs"]]
    assert outputs == [0, 1, 2]
    bad = story.http.post("/v1/events:batch", json={"events": [*events, {"data": 3}]})
    assert bad.status_code == 422
    assert bad.json()["errors"][0]["pointer"] == "/events/3/stream"
