"""What an append sends: a line for each event, whatever is in it."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.events import NewEvent
from ordinaut.log.append import Append, _arguments

texts = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["\n", "\r\n", "\\n", "\u2028\x85"]
)
data = st.lists(st.dictionaries(texts, texts | st.lists(texts)), min_size=1)


@given(data)
def test_each_event_is_a_line(found: list[dict[str, Any]]) -> None:
    events = [NewEvent("StepSucceeded", one) for one in found]
    arguments = _arguments([Append("run-1", 0, events, "default", "test", "c")])
    assert arguments[8].split("\n") == ["StepSucceeded"] * len(found)
    assert [orjson.loads(line) for line in arguments[9].split("\n")] == found
