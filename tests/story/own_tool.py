"""What somebody's own package might hold: a function, which an entry point makes a tool (see test_11)."""

ENTRY_POINTS = """
[ordinaut.tools]
greetings.politely = tests.story.own_tool:politely
"""


def politely(name: str, times: int = 1) -> str:
    """Greets somebody, if need be several times."""
    return " ".join([f"Good day, {name}!"] * times)
