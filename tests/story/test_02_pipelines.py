"""Steps pass things on to one another by `${…}`, and are left out by `if`. Both are JMESPath."""

from tests.story.conftest import Story
from tests.story.service import Service


def echo(id: str, given: object, **more: object) -> dict[str, object]:
    return {"id": id, "uses": "debug.echo", "with": given, **more}


def test_a_step_sees_the_params_the_input_and_the_steps_before(story: Story) -> None:
    """`params` belong to the task, `input` to the run, `steps.<id>` is what a step gave.
    Within a text, what they name becomes text."""
    story.define(
        "greet",
        params={"word": "Hello"},
        pipeline=[
            echo("who", {"name": "${input.name}"}),
            echo("greet", "${params.word}, ${steps.who.name}!"),
        ],
    )
    assert story.run("greet", {"name": "Ana"})["output"] == "Hello, Ana!"


def test_a_text_that_is_one_expression_keeps_its_type(story: Story) -> None:
    """`"${input.amount}"` is the number itself, not its digits; lists and objects pass on whole.
    `$${` stands for a plain `${`."""
    story.define(
        "types",
        pipeline=[echo("all", {"amount": "${input.amount}", "tags": "${input.tags}", "as it is": "$${x}"})],
    )
    run = story.run("types", {"amount": 12.5, "tags": ["a", "b"]})
    assert run["output"] == {"amount": 12.5, "tags": ["a", "b"], "as it is": "${x}"}


def test_an_expression_can_calculate(story: Story) -> None:
    """All of JMESPath is there: filters, functions, and literals in backticks."""
    story.define("sum", pipeline=[echo("total", "${sum(input.orders[?amount > `10`].amount)}")])
    run = story.run("sum", {"orders": [{"amount": 5}, {"amount": 20}, {"amount": 30}]})
    assert run["output"] == 50


def test_a_step_is_skipped_when_its_if_is_not_true(story: Story) -> None:
    """`if` is a bare expression, without `${…}`. A skipped step gives null,
    and the run's output is that of the last step that did run."""
    story.define(
        "maybe",
        pipeline=[
            echo("look", {"size": "${input}"}),
            echo("large", "large!", **{"if": "steps.look.size > `9`"}),
        ],
    )
    small, large = story.run("maybe", 3), story.run("maybe", 30)
    assert [step["state"] for step in small["steps"]] == ["succeeded", "skipped"]
    assert small["output"] == {"size": 3}
    assert large["output"] == "large!"


def test_a_step_calls_another_service(story: Story, service: Service) -> None:
    """`http.get`, `http.post` and `http.request` give status, headers and body;
    a body that is JSON arrives as what it says."""
    service.always = {"temperature": 21}
    story.define(
        "weather",
        pipeline=[
            {
                "id": "ask",
                "uses": "http.get",
                "with": {"url": f"{service.url}/today", "query": {"city": "Chisinau"}},
            },
            {
                "id": "tell",
                "uses": "http.post",
                "with": {"url": service.url, "json": {"say": "${steps.ask.body}"}},
            },
        ],
    )
    assert story.run("weather")["state"] == "succeeded"
    asked, told = service.asked
    assert (asked.method, asked.path) == ("GET", "/today?city=Chisinau")
    assert (told.method, told.body) == ("POST", {"say": {"temperature": 21}})
