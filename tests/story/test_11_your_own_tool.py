"""A tool is a Python function that an installed package offers by an entry point (see own_package.py)."""

from tests.story.conftest import Story


def test_your_function_is_a_tool(story: Story) -> None:
    """The entry point gives it its name. What it takes and gives follows from its type hints,
    and is checked on every call."""
    step = {"id": "greet", "uses": "greetings.politely", "with": {"name": "${input}", "times": 2}}
    story.define("reception", pipeline=[step])
    assert story.run("reception", "Ana")["output"] == "Good day, Ana! Good day, Ana!"


def test_what_does_not_fit_its_hints_never_reaches_it(story: Story) -> None:
    """Input of the wrong shape fails the step, with the place, and is not tried again."""
    step = {
        "id": "greet",
        "uses": "greetings.politely",
        "with": {"name": "${input}"},
        "retry": {"max_attempts": 5},
    }
    story.define("reception", pipeline=[step])
    run = story.run("reception", {"first": "Ana"})
    assert run["state"] == "failed"
    assert run["steps"][0]["attempt"] == 1
    assert "input at /name: must be string, not object" in run["error"]["message"]
