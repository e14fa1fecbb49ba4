"""What somebody's own package might hold: a function that is a tool (see test_11), and a read table
(see test_12). Entry points offer both."""

from projections.base import Fold, Projection, batch

ENTRY_POINTS = """
[ordinaut.tools]
greetings.politely = tests.story.own_package:politely

[ordinaut.projections]
visitors = tests.story.own_package:VISITORS
"""


def politely(name: str, times: int = 1) -> str:
    """Greets somebody, if need be several times."""
    return " ".join([f"Good day, {name}!"] * times)


RECEIVED = frozenset({"EventReceived"})

COUNT = f"""
INSERT INTO visitors AS v
SELECT space, data->>'data', count(*) FROM ({batch(RECEIVED)}) AS e
 WHERE data->>'stream' = 'front-door' GROUP BY space, data->>'data'
ON CONFLICT (space, name) DO UPDATE SET visits = v.visits + excluded.visits
"""

VISITORS = Projection(
    "visitors",
    version=1,
    ddl="CREATE TABLE visitors (space text, name text, visits bigint NOT NULL, PRIMARY KEY (space, name));",
    folds=[Fold(RECEIVED, COUNT)],
)
