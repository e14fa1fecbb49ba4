"""What is promised of the figures."""

from dataclasses import dataclass

from benchmarks.backlog_bench import MOST_PENDING
from benchmarks.suite import Results, Row


@dataclass(frozen=True)
class Floor:
    """A promise about a figure: `value` (None: not measured) against `limit`."""

    what: str
    value: float | None
    limit: float
    at_most: bool = False
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it holds; None when it was not measured."""
        if self.value is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """How many times `theirs` is `ours`; None when one is missing."""
    return ours / theirs if ours is not None and theirs else None


def _most(rows: list[Row], key: str) -> float | None:
    return max((row[key] for row in rows if row[key] is not None), default=None)


def floors(results: Results) -> list[Floor]:
    """Every floor with what was measured."""
    median = results.median
    through, late = results.throughput, results.latency
    peak, slowest, backlog = (
        _most(results.rebuild, "peak_mb"),
        _most(results.next, "next_ms"),
        results.backlog,
    )
    return [
        Floor(
            "throughput / pgqueuer, end to end",
            ratio(
                median(through.get("ordinaut"), "throughput"), median(through.get("pgqueuer"), "throughput")
            ),
            0.5,
        ),
        Floor(
            "latency p50 / pgqueuer, 100 jobs/s",
            ratio(
                median(late.get("ordinaut"), "latency_p50_ms"), median(late.get("pgqueuer"), "latency_p50_ms")
            ),
            1.5,
            at_most=True,
        ),
        Floor(
            "latency p99 at 1,000 jobs/s",
            median(results.busy.get("ordinaut"), "latency_p99_ms"),
            50,
            at_most=True,
            unit=" ms",
        ),
        Floor("POST /v1/tasks / bare FastAPI", median(results.post, "ratio"), 0.3),
        Floor("full rebuild", median(results.rebuild, "events_per_s"), 50_000, unit=" events/s"),
        Floor("peak memory of a rebuild", peak, 300, at_most=True, unit=" MB"),
        Floor(
            "idle clock, many schedules",
            median(results.idle, "cpu_percent_many"),
            1,
            at_most=True,
            unit=" % of a core",
        ),
        Floor("clock memory, many / 1,000 schedules", median(results.idle, "rss_ratio"), 1.1, at_most=True),
        Floor("burst, p99 to due_work", median(results.burst, "p99_s"), 1, at_most=True, unit=" s"),
        Floor("slowest next() of any FREQ", slowest, 5, at_most=True, unit=" ms"),
        Floor("entries matched, 1,000 tasks", median(results.matching, "entries_per_s"), 20_000, unit=" /s"),
        Floor("backlog: memory, whole / first tenth", _most(backlog, "memory_ratio"), 1.2, at_most=True),
        Floor("backlog: entries pending", _most(backlog, "pending"), MOST_PENDING, at_most=True),
        Floor("backlog: runs waiting / high-water mark", _most(backlog, "waiting_ratio"), 1.3, at_most=True),
    ]
