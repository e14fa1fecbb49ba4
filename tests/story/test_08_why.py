"""The log is the truth: everything that happened, in one order, each with its cause."""

import json
from collections.abc import Iterator

from tests.story.conftest import Story
from tests.story.service import Service

SAY = [{"id": "say", "uses": "debug.echo", "with": "hello"}]


def test_the_log_tells_a_run_from_its_first_event_to_its_last(story: Story) -> None:
    """Each run has a stream of its own in the log, `run-<id>`. State is nothing but the fold of it."""
    story.define("greet-log", pipeline=SAY)
    run = story.run("greet-log")
    events = story.items("/v1/log", stream=f"run-{run['id']}")
    assert [event["type"] for event in events] == [
        "RunRequested",
        "RunStarted",
        "StepSucceeded",
        "RunSucceeded",
    ]
    assert [event["version"] for event in events] == [1, 2, 3, 4]


def test_positions_have_no_gaps(story: Story) -> None:
    """All events are numbered 1, 2, 3 … in the order they were committed. `ordinaut:log` in Redis carries
    them all under these numbers; it is a copy, and losing it loses nothing."""
    task = story.define("copied", pipeline=SAY)
    (created,) = story.items("/v1/log", stream=f"task-{task['id']}")
    position = f"{created['position']}-0"
    copy = story.eventually(lambda: dict(story.redis.xrange("ordinaut:log", "-", position)).get(position))
    assert json.loads(copy["event"])["data"] == created["data"]
    numbers = [entry for entry, _ in story.redis.xrange("ordinaut:log", "-", position)]
    assert numbers == [f"{number}-0" for number in range(1, created["position"] + 1)]


def test_every_event_says_who_did_it_and_because_of_what(story: Story) -> None:
    """`actor` is who, `causation` is what came just before, `correlation` is what all of it belongs to;
    the sender may name that (X-Request-Id)."""
    story.define("answer", on={"stream": "questions"}, pipeline=SAY)
    asked = story.http.post(
        "/v1/events", json={"stream": "questions"}, headers={"X-Request-Id": "question-42"}
    )
    story.ended(asked.json()["runs"][0])
    events = story.items("/v1/log", correlation="question-42")
    received, requested, started = events[:3]
    assert (received["type"], received["actor"]) == ("EventReceived", "key:admin")
    assert received["causation"] == "request:question-42"
    assert (requested["type"], requested["causation"]) == ("RunRequested", f"{received['stream']}/1")
    assert started["actor"].startswith("worker:")
    assert events[-1]["type"] == "RunSucceeded"


def test_a_run_keeps_the_correlation_of_what_began_it(story: Story, service: Service) -> None:
    """Whoever interferes later, by whatever request: the run belongs where it began."""
    service.close()
    story.define("patrol", pipeline=[{"id": "ask", "uses": "http.get", "with": {"url": service.url}}])
    started = story.http.post("/v1/tasks/patrol/run", headers={"X-Request-Id": "night-shift"})
    story.eventually(lambda: service.asked)
    story.tell(f"/v1/runs/{started.json()['run']}/cancel")

    def canceled() -> bool:
        (run,) = story.items("/v1/runs", correlation="night-shift")
        return bool(run["state"] == "canceled")

    assert story.eventually(canceled)


def test_an_entry_can_be_traced_to_its_run_and_back(story: Story) -> None:
    """ "What did this entry do?" and "why did this run?" are the same question: the run's cause names the
    entry, and the event that asked for the run does too."""
    story.define("trace", on={"stream": "traces"}, pipeline=SAY)
    entry = story.redis.xadd("traces", {"data": "1"})
    (run,) = story.runs_of("trace", 1)
    (requested,) = story.items("/v1/log", stream=f"run-{run['id']}", type="RunRequested")
    assert requested["causation"] == f"redis:traces/{entry}"
    assert requested["data"]["cause"] == run["cause"]


def test_the_log_can_be_followed_live(story: Story) -> None:
    """GET /v1/log/live is a stream of server-sent events. Each one's id is its position:
    a client that reconnects with `Last-Event-ID` misses nothing."""
    with story.http.stream("GET", "/v1/log/live", params={"type": "TaskCreated"}) as live:
        lines = live.iter_lines()
        assert next(lines) == ": following the log"
        created = story.define("seen-live", pipeline=SAY)
        event = dict(line.split(": ", 1) for line in _until_blank(lines))
    told = json.loads(event["data"])
    assert (event["event"], event["id"]) == ("TaskCreated", str(told["position"]))
    assert told["stream"] == f"task-{created['id']}"


def _until_blank(lines: Iterator[str]) -> list[str]:
    found: list[str] = []
    for line in lines:
        if line and not line.startswith(":"):
            found.append(line)
        elif found:
            break
    return found
