"""Services fail. A step says how often it is tried; a run that ended badly can be taken up again."""

from datetime import datetime

from tests.story.conftest import Story
from tests.story.service import Service

BUSY = (503, {"error": "busy"})


def test_a_step_that_fails_is_tried_again_and_waits_longer_each_time(story: Story, service: Service) -> None:
    """`retry` belongs to the step: 1 attempt unless it says more. The run waits in the queue meanwhile;
    no worker sleeps."""
    service.answers = [BUSY, BUSY]
    retry = {"max_attempts": 3, "backoff": "exponential", "base": "100ms", "jitter": False}
    story.define(
        "call", pipeline=[{"id": "ask", "uses": "http.get", "with": {"url": service.url}, "retry": retry}]
    )
    run = story.run("call")
    assert run["state"] == "succeeded"
    assert run["steps"][0]["attempt"] == 3
    failed = story.items("/v1/log", stream=f"run-{run['id']}", type="StepFailed")
    again = story.items("/v1/log", stream=f"run-{run['id']}", type="RunRetryScheduled")
    waits = [
        _instant(b["data"]["run_at"]) - _instant(a["data"]["finished_at"])
        for a, b in zip(failed, again, strict=True)
    ]
    assert [wait.total_seconds() for wait in waits] == [0.1, 0.2]


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_every_attempt_sends_the_same_idempotency_key(story: Story, service: Service) -> None:
    """Outside, a step happens at least once: an answer may be lost on its way back.
    A service that knows `Idempotency-Key` does the work once all the same."""
    service.answers = [BUSY]
    retry = {"max_attempts": 2, "base": "0s"}
    story.define(
        "pay", pipeline=[{"id": "charge", "uses": "http.post", "with": {"url": service.url}, "retry": retry}]
    )
    run = story.run("pay")
    assert [asked.headers["idempotency-key"] for asked in service.asked] == [f"{run['id']}/charge"] * 2


def test_what_cannot_get_better_is_not_tried_again(story: Story, service: Service) -> None:
    """A 404 will be a 404 next time: 408, 425, 429, every 5xx and lost connections are worth another try,
    nothing else. The run fails, and its error says where and why."""
    service.answers = [(404, {"error": "no such page"})]
    step = {"id": "ask", "uses": "http.get", "with": {"url": service.url}, "retry": {"max_attempts": 9}}
    story.define("call", pipeline=[step])
    run = story.run("call")
    assert run["state"] == "failed"
    assert run["error"]["step"] == "ask"
    assert "answered 404" in run["error"]["message"]
    assert len(service.asked) == 1


def test_a_failed_run_goes_on_behind_its_last_finished_step(story: Story, service: Service) -> None:
    """POST /v1/runs/{id}/retry opens a run again when what was broken is mended.
    A finished step is not done again."""
    service.answers = [(200, {"reserved": 7}), BUSY]
    story.define(
        "order",
        pipeline=[
            {"id": "reserve", "uses": "http.post", "with": {"url": f"{service.url}/reserve"}},
            {"id": "charge", "uses": "http.post", "with": {"url": f"{service.url}/charge"}},
        ],
    )
    run = story.run("order")
    assert (run["state"], run["error"]["step"]) == ("failed", "charge")
    story.tell(f"/v1/runs/{run['id']}/retry")
    assert story.ended(run["id"])["state"] == "succeeded"
    assert [asked.path for asked in service.asked] == ["/reserve", "/charge", "/charge"]
