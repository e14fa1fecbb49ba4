"""What a task's policies are once they are read: plain values in seconds, ready to decide with."""

from dataclasses import dataclass
from typing import Literal

from ordinaut.domain.expressions import Template

Backoff = Literal["exponential", "linear", "constant"]
Overlap = Literal["skip", "queue_one", "queue_all", "cancel_running", "allow"]
CatchUpMode = Literal["none", "latest", "all"]


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a step is tried and how long it waits in between. `base` and `max` are seconds."""

    max_attempts: int
    backoff: Backoff
    base: float
    max: float
    jitter: bool

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait after the failure of attempt number `attempt` (from 1).

        With jitter the wait lies between half of it and all of it; `random`, in [0, 1), says where.
        """
        if self.backoff == "exponential":
            # 2 ** 62 seconds is beyond any `max`; a larger power would overflow a float.
            wait = self.base * 2.0 ** min(attempt - 1, 62)
        elif self.backoff == "linear":
            wait = self.base * attempt
        else:
            wait = self.base
        wait = min(wait, self.max)
        return wait * (0.5 + 0.5 * random) if self.jitter else wait


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Which missed occurrences run late: none, the latest, or all (the newest `max` of those that are
    at most `window` seconds old; None is no bound)."""

    mode: CatchUpMode
    max: int | None = None
    window: float | None = None


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` runs of the space at once have the same key. `key` sees `params` and `input`."""

    key: Template
    limit: int


@dataclass(frozen=True, slots=True)
class Policy:
    """A task's policy. `timeout` (of a whole run) and `jitter` are seconds; `max_attempts` counts leases."""

    priority: int
    timeout: float
    max_attempts: int
    concurrency: Concurrency | None
    catch_up: CatchUp
    overlap: Overlap
    jitter: float
