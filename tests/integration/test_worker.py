"""The worker carries out pipelines: on a real PostgreSQL, step by step, each recorded in the log."""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from ordinaut.domain.redact import MARK
from ordinaut.work.tools import registry as tools
from ordinaut.work.tools.registry import Registry
from tests.support.eventually import eventually
from tests.support.probes import Asked, HttpProbe, Probe, Reply, http_probe, lasting, passing
from tests.support.world import World, open_world


@pytest.fixture
async def world(database_url: str, redis_url: str) -> AsyncIterator[World]:
    async with open_world(database_url, redis_url, drain_seconds=0.0) as opened:
        yield opened


@pytest.fixture
async def server() -> AsyncIterator[HttpProbe]:
    async with http_probe() as probe:
        yield probe


def echo(id: str, given: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": id, "uses": "debug.echo", "with": given, **more}


def probing(id: str = "probe", given: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": id, "uses": "test.probe", "with": given, **more}


RETRY = {"max_attempts": 3, "base": "10ms", "jitter": False}


async def test_outputs_are_passed_on_and_every_step_is_in_the_log(world: World) -> None:
    probe = Probe()
    world.start_worker(probe.tool)
    steps = [
        echo("city", "${params.city}"),
        probing("weather", {"of": "${steps.city}", "n": "${input.n}", "note": "for ${steps.city}"}),
        echo("tell", "${steps.weather.n}"),
    ]
    await world.define("briefing", steps, params={"city": "Chisinau"})
    run = await world.finished(run_id := await world.request("briefing", {"n": 3}))
    assert (run.state, run.output, run.attempt) == ("succeeded", 3, 1)
    assert probe.given == [{"of": "Chisinau", "n": 3, "note": "for Chisinau"}]
    assert await world.types(run_id) == [
        "RunRequested", "RunStarted", "StepSucceeded", "StepSucceeded", "StepSucceeded", "RunSucceeded",
    ]  # fmt: skip
    assert [step.id for step in run.steps.values()] == ["city", "weather", "tell"]
    assert await world.due_work() == {}


async def test_every_event_of_a_run_knows_its_cause_and_its_worker(world: World) -> None:
    worker = world.start_worker()
    await world.define("briefing")
    await world.finished(run_id := await world.request("briefing"))
    _, *mine = await world.events(run_id)
    assert {event.actor for event in mine} == {f"worker:{worker.name}"}
    assert {event.correlation for event in mine} == {run_id}
    assert [event.causation for event in mine] == [f"run-{run_id}/1", f"run-{run_id}/2", f"run-{run_id}/2"]


async def test_a_step_whose_if_is_not_true_is_skipped_and_the_run_goes_on(world: World) -> None:
    probe = Probe()
    world.start_worker(probe.tool)
    steps = [echo("first", 1), probing(**{"if": "steps.first == `2`"}), echo("last", "${steps.probe}")]
    await world.define("briefing", steps)
    run = await world.finished(await world.request("briefing"))
    assert run.state == "succeeded"
    assert [step.state for step in run.steps.values()] == ["succeeded", "skipped", "succeeded"]
    assert run.output is None
    assert probe.calls == []


async def test_the_output_of_a_run_is_that_of_its_last_step_that_was_not_skipped(world: World) -> None:
    world.start_worker()
    await world.define("briefing", [echo("first", 1), echo("second", 2, **{"if": "`false`"})])
    assert (await world.finished(await world.request("briefing"))).output == 1


async def test_a_step_can_be_known_by_another_name(world: World) -> None:
    world.start_worker()
    steps = [echo("a", {"n": 1}, save_as="first"), echo("b", ["${steps.first.n}", "${steps.a.n}"])]
    await world.define("briefing", steps)
    assert (await world.finished(await world.request("briefing"))).output == [1, 1]


async def test_a_failed_step_is_tried_again_until_it_succeeds(world: World) -> None:
    probe = Probe()
    probe.failures = [passing("first"), passing("second")]
    world.start_worker(probe.tool)
    await world.define("briefing", [probing(given="hello", retry=RETRY)])
    run = await world.finished(run_id := await world.request("briefing"))
    assert (run.state, run.output, run.crashes) == ("succeeded", "hello", 1)
    assert run.steps["probe"].attempt == 3
    assert [context.attempt for context in probe.calls] == [1, 2, 3]
    again = ["StepFailed", "RunRetryScheduled", "RunStarted"]
    assert await world.types(run_id) == [
        "RunRequested", "RunStarted", *again, *again, "StepSucceeded", "RunSucceeded",
    ]  # fmt: skip


async def test_a_waiting_retry_is_a_row_that_is_due_later_and_nobody_waits_for_it(world: World) -> None:
    probe = Probe()
    probe.failures = [passing()]
    worker = world.start_worker(probe.tool, worker_concurrency=1)
    await world.define(
        "slow", [probing(retry={"max_attempts": 2, "base": "1h", "max": "2h", "jitter": False})]
    )
    await world.define("quick")
    waiting = await world.in_state(await world.request("slow"), "waiting")
    row = (await world.due_work())[waiting.id]
    assert (row["run_at"], row["leased_by"], row["lease_until"]) == (waiting.run_at, None, None)
    assert waiting.run_at is not None and waiting.run_at > world.system.time.now() + timedelta(minutes=59)
    # The only hand of the only worker is free for something else.
    assert (await world.finished(await world.request("quick"))).state == "succeeded"
    worker.stop()
    await worker.ended()
    assert (await world.run(waiting.id)).state == "waiting"


async def test_the_other_side_says_how_long_to_wait(world: World, server: HttpProbe) -> None:
    server.answer = lambda asked: (503, {"Retry-After": "3600"}, {})
    world.start_worker()
    await world.define(
        "briefing", [{"id": "get", "uses": "http.get", "with": {"url": server.url}, "retry": RETRY}]
    )
    run = await world.in_state(await world.request("briefing"), "waiting")
    failed = datetime.fromisoformat(str(run.steps["get"].finished_at))
    assert run.run_at == failed + timedelta(hours=1)


async def test_a_step_that_will_never_succeed_is_not_tried_again(world: World) -> None:
    probe = Probe()
    probe.failures = [lasting("no such account")]
    world.start_worker(probe.tool)
    await world.define("briefing", [probing(retry=RETRY), echo("never")])
    run = await world.finished(await world.request("briefing"))
    assert run.state == "failed"
    assert run.error == {"message": "step 'probe' failed (attempt 1 of 3): no such account", "step": "probe"}
    assert list(run.steps) == ["probe"]
    assert len(probe.calls) == 1


async def test_a_run_fails_when_a_steps_attempts_are_spent_and_says_which_step(world: World) -> None:
    probe = Probe()
    probe.failures = [passing(), passing(), passing("still not")]
    world.start_worker(probe.tool)
    await world.define("briefing", [echo("first"), probing(retry=RETRY)])
    run = await world.finished(await world.request("briefing"))
    assert run.error == {"message": "step 'probe' failed (attempt 3 of 3): still not", "step": "probe"}
    assert len(probe.calls) == 3
    assert await world.due_work() == {}


async def test_a_step_that_takes_too_long_is_stopped(world: World) -> None:
    probe = Probe(holding=True)
    world.start_worker(probe.tool)
    await world.define("briefing", [probing(timeout="50ms")])
    run = await world.finished(await world.request("briefing"))
    assert run.error == {
        "message": "step 'probe' failed: test.probe took longer than 0.05 s",
        "step": "probe",
    }
    assert run.steps["probe"].error["retryable"] is True
    assert probe.canceled == [run.id]


async def test_a_run_that_takes_too_long_fails_for_good_and_says_so(world: World) -> None:
    probe = Probe(holding=True)
    world.start_worker(probe.tool)
    await world.define("briefing", [echo("first"), probing(retry=RETRY)], policy={"timeout": "500ms"})
    run = await world.finished(await world.request("briefing"))
    assert run.error == {
        "message": "step 'probe' failed (attempt 1 of 3): the run took longer than its timeout of 0.5 s",
        "step": "probe",
    }
    assert probe.canceled == [run.id]


async def test_waiting_for_a_retry_counts_towards_the_timeout_of_the_run(world: World) -> None:
    probe = Probe()
    probe.failures = [passing()]
    world.start_worker(probe.tool)
    slow = {**RETRY, "base": "1s"}
    await world.define("briefing", [probing(retry=slow)], policy={"timeout": "200ms"})
    run = await world.finished(await world.request("briefing"))
    assert run.state == "failed"
    assert "the run took longer than its timeout of 0.2 s" in run.error["message"]
    assert len(probe.calls) == 1


async def test_a_simulated_run_calls_nothing_and_records_every_step(world: World, server: HttpProbe) -> None:
    probe = Probe()
    world.start_worker(probe.tool)
    steps = [
        echo("first", {"n": "${input.n}"}),
        probing("second", "${steps.first.n}"),
        {"id": "third", "uses": "http.post", "with": {"url": server.url, "json": "${steps.second}"}},
        echo("fourth", **{"if": "`false`"}),
    ]
    await world.define("briefing", steps)
    run = await world.finished(await world.request("briefing", {"n": 1}, simulate=True))
    assert run.simulate and run.state == "succeeded"
    assert [step.state for step in run.steps.values()] == ["succeeded"] * 3 + ["skipped"]
    assert run.steps["second"].output == "sample"
    assert run.steps["third"].input == {"url": server.url, "json": "sample"}
    assert (probe.calls, server.asked) == ([], [])


async def test_a_simulated_run_finds_what_is_of_the_wrong_shape(world: World) -> None:
    world.start_worker()
    await world.define("briefing", [{"id": "get", "uses": "http.get", "with": {"url": "${input}"}}])
    run = await world.finished(await world.request("briefing", 7, simulate=True))
    assert run.state == "failed"
    assert "/url" in run.error["message"]


async def test_a_tool_that_is_gone_fails_the_run_and_names_what_there_is(world: World) -> None:
    world.start_worker()
    await world.define("briefing", [{"id": "shout", "uses": "debug.ecko", "with": None}])
    run = await world.finished(await world.request("briefing"))
    message = "step 'shout' failed: there is no tool 'debug.ecko'; did you mean 'debug.echo'?"
    assert run.error == {"message": message, "step": "shout"}


async def test_an_expression_that_cannot_be_told_fails_the_run_and_names_the_step(world: World) -> None:
    world.start_worker()
    await world.define("briefing", [echo("count", "${length(input)}")])
    run = await world.finished(await world.request("briefing", 7))
    assert run.state == "failed"
    assert run.error["step"] == "count"
    assert "length" in run.error["message"]


def shout(text: str, times: int = 1) -> str:
    """Says it louder."""
    return text.upper() + "!" * times


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The registry of a machine on which a package offers `text.shout`."""
    entry = EntryPoint("text.shout", f"{__name__}:shout", tools.GROUP)
    monkeypatch.setattr(tools, "entry_points", lambda group: [entry] if group == tools.GROUP else [])
    yield Registry.load()


async def test_a_python_function_from_a_package_is_a_tool(world: World, offered: Registry) -> None:
    world.start_worker(registry=offered)
    step = {"id": "shout", "uses": "text.shout", "with": {"text": "${input}", "times": 2}}
    await world.define("briefing", [step])
    assert (await world.finished(await world.request("briefing", "hello"))).output == "HELLO!!"
    wrong = await world.finished(await world.request("briefing", 7))
    assert wrong.error["step"] == "shout"
    assert "/text" in wrong.error["message"]


async def test_an_http_step_sends_the_same_idempotency_key_on_every_attempt(
    world: World, server: HttpProbe
) -> None:
    def answer(asked: Asked) -> Reply:
        return (500, {}, "down") if len(server.asked) < 3 else (201, {}, {"id": 7})

    server.answer = answer
    world.start_worker()
    post = {"url": f"{server.url}/orders", "json": {"n": "${input.n}"}}
    await world.define("order", [{"id": "post", "uses": "http.post", "with": post, "retry": RETRY}])
    run = await world.finished(await world.request("order", {"n": 1}))
    assert run.output["status"] == 201
    assert run.output["body"] == {"id": 7}
    assert [asked.body for asked in server.asked] == [{"n": 1}] * 3
    assert {asked.headers["idempotency-key"] for asked in server.asked} == {f"{run.id}/post"}


async def test_what_goes_under_a_secret_name_is_sent_but_not_recorded(
    world: World, server: HttpProbe
) -> None:
    server.answer = lambda asked: (500, {}, {"error": "down"})
    world.start_worker()
    given = {
        "url": server.url + "/?token=${input.three}",
        "headers": {"Authorization": "Bearer ${params.hidden}"},
        "json": {"token": "${input.one}"},
    }
    await world.define(
        "order", [{"id": "post", "uses": "http.post", "with": given}], params={"hidden": "hush2"}
    )
    run = await world.finished(await world.request("order", {"one": "hush1", "three": "hush3"}))
    assert server.asked[0].headers["authorization"] == "Bearer hush2"
    assert server.asked[0].path == "/?token=hush3"
    assert server.asked[0].body == {"token": "hush1"}
    recorded = run.steps["post"].input
    assert (recorded["headers"], recorded["json"]) == ({"Authorization": MARK}, {"token": MARK})
    assert recorded["url"] == f"{server.url}/?token={MARK}"
    assert "hush" not in str([event.data for event in (await world.events(run.id))[1:]])


async def test_cancelling_stops_the_step_that_is_under_way(world: World) -> None:
    probe = Probe(holding=True)
    world.start_worker(probe.tool)
    await world.define("briefing", [probing(), echo("never")])
    run_id = await world.request("briefing")
    await eventually(lambda: probe.calls)
    await world.cancel(run_id)
    await eventually(lambda: probe.canceled == [run_id])
    run = await world.run(run_id)
    assert (run.state, run.error, run.steps) == ("canceled", {"message": "no longer wanted"}, {})
    assert await world.types(run_id) == ["RunRequested", "RunStarted", "RunCanceled"]


async def test_a_step_that_finishes_after_its_run_was_canceled_is_not_recorded(world: World) -> None:
    probe = Probe(holding=True)
    world.start_worker(probe.tool)
    await world.define("briefing", [probing(), echo("never")])
    run_id = await world.request("briefing")
    await eventually(lambda: probe.calls)
    await world.cancel(run_id, tell=False)
    probe.let_go()
    await eventually(lambda: probe.finished == [run_id])
    await world.define("other")
    await world.finished(await world.request("other"))
    assert await world.types(run_id) == ["RunRequested", "RunStarted", "RunCanceled"]


async def test_a_run_that_is_tried_again_goes_on_behind_its_last_finished_step(world: World) -> None:
    before, probe = Probe("before"), Probe()
    probe.failures = [lasting("closed")]
    world.start_worker(before.tool, probe.tool)
    steps = [{"id": "before", "uses": "test.before", "with": "${input}"}, probing(given="${steps.before}")]
    await world.define("briefing", steps)
    await world.in_state(run_id := await world.request("briefing", "hello"), "failed")
    await world.retry(run_id)
    run = await world.in_state(run_id, "succeeded")
    assert (run.output, run.attempt) == ("hello", 2)
    assert len(before.calls) == 1
    assert (len(probe.calls), run.steps["probe"].attempt) == (2, 1)
    assert await world.due_work() == {}


async def test_a_run_that_is_tried_again_has_all_its_time_again(world: World) -> None:
    probe = Probe(holding=True)
    world.start_worker(probe.tool)
    await world.define("briefing", [probing()], policy={"timeout": "1s"})
    run = await world.in_state(run_id := await world.request("briefing"), "failed")
    assert "its timeout of 1 s" in run.error["message"]
    probe.let_go()
    await world.retry(run_id)
    assert (await world.in_state(run_id, "succeeded")).attempt == 2


async def test_a_run_that_is_tried_again_has_the_attempts_of_its_steps_again(world: World) -> None:
    probe = Probe()
    probe.failures = [passing()] * 3
    world.start_worker(probe.tool)
    await world.define("briefing", [probing(retry={**RETRY, "max_attempts": 2})])
    run = await world.in_state(run_id := await world.request("briefing"), "failed")
    assert "attempt 2 of 2" in run.error["message"]
    await world.retry(run_id)
    run = await world.in_state(run_id, "succeeded")
    assert [context.attempt for context in probe.calls] == [1, 2, 1, 2]


async def test_a_run_keeps_the_definition_it_was_asked_for_with(world: World) -> None:
    await world.define("briefing", [echo("say", "old ${params.n}")], params={"n": 1})
    old = await world.request("briefing")
    await world.define("briefing", [echo("other", "new ${params.n}")], params={"n": 2})
    new = await world.request("briefing")
    world.start_worker()
    first, second = await world.finished(old), await world.finished(new)
    assert (first.output, first.task_version, list(first.steps)) == ("old 1", 1, ["say"])
    assert (second.output, second.task_version, list(second.steps)) == ("new 2", 2, ["other"])


async def test_a_run_that_is_put_off_waits_until_it_is_due(world: World) -> None:
    world.start_worker()
    await world.define("briefing")
    at = world.system.time.now() + timedelta(milliseconds=300)
    run = await world.finished(await world.request("briefing", run_at=at))
    assert run.started_at is not None and run.started_at >= at


async def test_a_tool_that_breaks_is_a_failure_of_its_step_and_not_of_the_worker(world: World) -> None:
    probe = Probe()
    probe.failures = [RuntimeError("unforeseen"), RuntimeError("again")]
    world.start_worker(probe.tool)
    await world.define("briefing", [probing()])
    runs = await world.request_many("briefing", [1, 2, 3])
    ended = [await world.finished(run_id) for run_id in runs]
    assert sorted(run.state for run in ended) == ["failed", "failed", "succeeded"]
    assert any("RuntimeError: unforeseen" in run.error["message"] for run in ended if run.error)
