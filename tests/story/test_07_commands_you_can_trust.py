"""Commands can be repeated, tried out and taken back, and you can read what you have written."""

from tests.story.conftest import Story
from tests.story.service import Service

SAY = [{"id": "say", "uses": "debug.echo", "with": "hello"}]


def test_you_can_read_what_you_have_written(story: Story) -> None:
    """Lists are read tables, which follow the log a moment behind. Every command answers with its position
    in the log; a GET that sends it as `Ordinaut-Wait` is at least as new."""
    story.define("shout", pipeline=SAY)
    accepted = story.http.post("/v1/tasks/shout/run")
    wait = {"Ordinaut-Wait": accepted.headers["Ordinaut-Position"]}
    runs = story.http.get("/v1/runs", params={"task": "shout"}, headers=wait).json()["items"]
    assert [run["id"] for run in runs] == [accepted.json()["run"]]


def test_a_command_with_an_idempotency_key_counts_once(story: Story) -> None:
    """Did it get through? Send it again, with the same `Idempotency-Key`: the answer is the same,
    and there is one run. The key with another request is an error (422)."""
    story.define("charge", pipeline=SAY)
    key = {"Idempotency-Key": "invoice-4711"}
    first, second = (story.http.post("/v1/tasks/charge/run", json={"input": 1}, headers=key) for _ in "12")
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"
    assert len(story.runs_of("charge", 1)) == 1
    other = story.http.post("/v1/tasks/charge/run", json={"input": 2}, headers=key)
    assert other.status_code == 422
    assert other.json()["type"] == "urn:ordinaut:problem:idempotency-key-reused"


def test_a_simulated_run_calls_nobody(story: Story, service: Service) -> None:
    """`simulate: true` renders, checks and records every step. Instead of being called,
    each tool gives a sample of what it would answer."""
    get = {"id": "ask", "uses": "http.get", "with": {"url": f"{service.url}/${{input}}"}}
    tell = {"id": "tell", "uses": "debug.echo", "with": "it answered ${steps.ask.status}"}
    story.define("rehearsal", pipeline=[get, tell])
    run = story.run("rehearsal", "page", simulate=True)
    assert run["steps"][0]["input"] == {"url": f"{service.url}/page"}
    assert run["output"] == "it answered 200"
    assert run["simulate"] is True
    assert service.asked == []


def test_a_run_can_be_canceled(story: Story, service: Service) -> None:
    """The step under way is given up, the run ends, and what it had finished stays on record.
    Canceling it twice changes nothing."""
    service.close()
    ask = {"id": "ask", "uses": "http.get", "with": {"url": service.url}}
    note = {"id": "note", "uses": "log.write", "with": {"message": "begun"}}
    story.define("long", pipeline=[note, ask])
    run_id = story.start("long")
    story.eventually(lambda: service.asked)
    run = story.tell(f"/v1/runs/{run_id}/cancel", reason="not needed any more")
    assert run["state"] == "canceled"
    assert run["error"] == {"message": "not needed any more"}
    assert [step["id"] for step in run["steps"] if step["state"] == "succeeded"] == ["note"]
    assert story.tell(f"/v1/runs/{run_id}/cancel")["finished_at"] == run["finished_at"]


def test_what_is_not_possible_is_told_apart_from_what_is_not_there(story: Story) -> None:
    """404: there is no such thing. 409: it is there, and its state does not allow this."""
    story.define("done", pipeline=SAY)
    run = story.run("done")
    assert story.http.post(f"/v1/runs/{run['id']}/retry").status_code == 409
    assert story.http.post("/v1/tasks/undone/run").status_code == 404
