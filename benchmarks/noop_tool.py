"""The job Ordinaut runs in the latency measurement: a Python function offered as a tool."""

from benchmarks import measure
from ordinaut.work.tools.functions import tool


@tool(name="bench.noop", description="Does nothing, and says when it began.")
async def noop(stamp: float) -> None:
    """Does nothing, and says when it began."""
    measure.hit(stamp)
