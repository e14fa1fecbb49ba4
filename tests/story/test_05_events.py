"""Things happen elsewhere: an entry in a Redis stream or an event over HTTP starts the tasks that listen."""

import json
from typing import Any

from tests.story.conftest import Story, as_json

SHOW = [{"id": "show", "uses": "debug.echo", "with": "${input}"}]


def test_an_entry_in_a_stream_becomes_a_run(story: Story) -> None:
    """Whoever can XADD can start a task; no library of ours is needed. The field `data` holds JSON."""
    story.define("welcome", on={"stream": "customers"}, pipeline=SHOW)
    entry = story.redis.xadd("customers", {"data": json.dumps({"name": "Ana"})})
    (run,) = story.runs_of("welcome", 1)
    assert run["output"] == {"name": "Ana"}
    assert run["cause"] == {"kind": "stream", "stream": "customers", "id": entry}


def test_where_chooses_and_input_reshapes(story: Story) -> None:
    """`where` is a condition, `input` a mapping; both see `data`, `stream`, `id` and `time` of the entry."""
    on = {
        "stream": "orders",
        "where": "data.amount > `100`",
        "input": {"order": "${data.id}", "entry": "${id}"},
    }
    story.define("big", on=on, pipeline=SHOW)
    story.redis.xadd("orders", {"data": '{"id": 1, "amount": 20}'})
    entry = story.redis.xadd("orders", {"data": '{"id": 2, "amount": 200}'})
    (run,) = story.runs_of("big", 1)
    assert run["output"] == {"order": 2, "entry": entry}


def test_fields_without_json_are_texts(story: Story) -> None:
    """Flat fields work too. They stay text, digits as well: to_number() says that it is a number."""
    story.define("hot", on={"stream": "sensors", "where": "to_number(data.celsius) > `30`"}, pipeline=SHOW)
    story.redis.xadd("sensors", {"celsius": "21", "room": "attic"})
    story.redis.xadd("sensors", {"celsius": "35", "room": "attic"})
    (run,) = story.runs_of("hot", 1)
    assert run["output"] == {"celsius": "35", "room": "attic"}


def test_one_entry_gives_each_listening_task_one_run(story: Story) -> None:
    """Two tasks listen, two entries come: each task gets one run for each entry, however often
    something was read again on the way. A run's id is computed from its cause."""
    for name in ("pack", "bill"):
        story.define(name, on={"stream": "shop"}, pipeline=SHOW)
    entries = {story.redis.xadd("shop", {"data": str(number)}) for number in (1, 2)}
    for name in ("pack", "bill"):
        runs = story.runs_of(name, 2)
        assert len(runs) == 2
        assert {run["cause"]["id"] for run in runs} == entries


def test_an_event_over_http_is_durable_when_you_are_answered(story: Story) -> None:
    """POST /v1/events is the same door without Redis. The answer names the runs it started."""
    story.define("greet", on={"stream": "visitors"}, pipeline=SHOW)
    answer = story.http.post("/v1/events", json={"stream": "visitors", "data": {"name": "Ion"}})
    assert answer.status_code == 202
    (run_id,) = answer.json()["runs"]
    assert story.ended(run_id)["output"] == {"name": "Ion"}


def test_an_event_with_an_id_of_its_own_counts_once(story: Story) -> None:
    """Senders that are not sure whether they were heard send again. The same stream and `id`
    is the same event, and starts nothing a second time."""
    story.define("count", on={"stream": "visitors"}, pipeline=SHOW)
    event = {"stream": "visitors", "data": 1, "id": "visit-4711"}
    first, second = story.tell("/v1/events", **event), story.tell("/v1/events", **event)
    assert first == second
    assert len(first["runs"]) == 1


def test_a_step_can_publish_what_starts_the_next_task(story: Story) -> None:
    """`event.publish` makes chains of tasks. What belongs together carries one correlation id."""
    story.define("second", on={"stream": "done"}, pipeline=SHOW)
    publish = {
        "id": "publish",
        "uses": "event.publish",
        "with": {"stream": "done", "data": {"by": "${run.task}"}},
    }
    story.define("first", pipeline=[publish])
    first = story.run("first")
    (second,) = story.runs_of("second", 1)
    assert first["output"]["runs"] == [second["id"]]
    assert second["output"] == {"by": "first"}
    assert second["correlation"] == first["correlation"]
    (received,) = story.items("/v1/log", stream=f"event-{second['cause']['id']}")
    assert received["causation"] == f"run-{first['id']}/2", "the run's last event before: RunStarted"
    assert received["actor"].startswith("worker:")


def test_an_entry_that_cannot_be_read_is_set_aside_with_the_reason(story: Story) -> None:
    """Bad input stops nobody: it is put into `ordinaut:dead`, the log keeps the reason, the rest goes on."""
    story.define("seat", on={"stream": "guests"}, pipeline=SHOW)
    bad = story.redis.xadd("guests", {"data": "{not json"})
    story.redis.xadd("guests", {"data": '"good"'})
    (run,) = story.runs_of("seat", 1)
    assert run["output"] == "good"

    def set_aside() -> list[dict[str, str]]:
        return [fields for _, fields in story.redis.xrange("ordinaut:dead") if fields["id"] == bad]

    (dead,) = story.eventually(set_aside)
    assert (dead["stream"], dead["data"]) == ("guests", "{not json")
    assert "is not JSON" in dead["reason"]


def test_what_was_set_aside_is_put_to_work_when_its_task_is_mended(story: Story) -> None:
    """A dead letter says why it was rejected. Requeued, it is decided by the task as it is now, under its old
    id and cause: the run is the one the entry would have had, and there is never a second one."""
    on = {"stream": "parcels", "where": "length(data.items) > `1`"}
    story.define("parcel", on=on, pipeline=SHOW)
    entry = story.redis.xadd("parcels", {"data": '{"items": 3}'})

    def rejected() -> list[dict[str, Any]]:
        return list(as_json(story.cli("stream", "dead", "ls", "--task", "parcel", "--json")))

    (letter,) = story.eventually(rejected)
    assert "length()" in letter["reason"]
    story.define("parcel", on=on | {"where": "data.items > `1`"}, pipeline=SHOW)
    said = story.cli("stream", "dead", "requeue", letter["id"], "--reason", "a number is all right")
    (run,) = story.runs_of("parcel", 1)
    assert run["id"] in said
    assert run["cause"] == {"kind": "stream", "stream": "parcels", "id": entry}
    assert "a number is all right" in story.cli("stream", "dead", "show", letter["id"])
    assert "a number is all right" in story.cli("run", "why", run["id"])


def test_what_nobody_wants_is_dropped_with_a_reason(story: Story) -> None:
    """Dropped is out of the list, not out of the log."""
    story.define("table", on={"stream": "tables"}, pipeline=SHOW)
    story.redis.xadd("tables", {"data": "{not json"})

    def rejected() -> list[dict[str, Any]]:
        return story.items("/v1/dead-letters", stream="tables")

    (letter,) = story.eventually(rejected)
    story.cli("stream", "dead", "drop", letter["id"], "--reason", "a test of ours")
    assert story.eventually(lambda: not rejected())
    (dropped,) = story.items("/v1/log", stream=f"event-{letter['id']}", type="EventDropped")
    assert (dropped["actor"], dropped["data"]) == ("key:admin", {"reason": "a test of ours"})


def test_a_step_can_add_to_a_stream_too(story: Story) -> None:
    """`stream.add` is XADD. The entry carries the step's idempotency key, for readers that must not
    act twice: a step happens at least once."""
    add = {"id": "add", "uses": "stream.add", "with": {"stream": "outbox", "data": {"n": 1}}}
    story.define("send", pipeline=[add])
    run = story.run("send")
    ((entry, fields),) = story.redis.xrange("outbox")
    assert run["output"] == {"id": entry}
    assert fields["data"] == '{"n":1}'
    assert fields["ordinaut-key"] == f"{run['id']}/add"


def test_a_changed_trigger_is_tried_first_and_old_entries_are_run_after_all(story: Story) -> None:
    """The trigger was too strict. A trial shows which entries the mended one would match, and does nothing;
    a replay runs those that have no run yet, each once."""
    on = {"stream": "returns", "where": "data.amount > `100`"}
    story.define("refund", on=on, pipeline=SHOW)
    for amount in (50, 200):
        story.redis.xadd("returns", {"data": json.dumps({"amount": amount})})
    story.runs_of("refund", 1)

    mended = {"name": "refund", "on": {**on, "where": "data.amount > `10`"}, "pipeline": SHOW}
    trial = story.http.post("/v1/triggers/test", json={"definition": mended}).json()
    assert trial["counts"] == {
        "entries": 2, "match": 2, "none": 0, "error": 0, "newly": 1, "no_longer": 0, "input": 0,
        "runs": 2, "runs_now": 1,
    }  # fmt: skip
    assert [item["change"] for item in trial["items"]] == ["newly", None]

    story.define(**mended)
    plan = story.tell("/v1/tasks/refund/replay", stream="returns", dry_run=True)
    assert [item["will_run"] for item in plan["items"]] == [True, False]
    story.tell("/v1/tasks/refund/replay", stream="returns", reason="the trigger was too strict")
    runs = story.runs_of("refund", 2)
    assert sorted(run["output"]["amount"] for run in runs) == [50, 200]
    again = story.tell("/v1/tasks/refund/replay", stream="returns", dry_run=True)
    assert again["counts"]["has_run"] == 2
