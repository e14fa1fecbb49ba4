"""A step's context without a worker."""

from collections.abc import Callable
from typing import Any

import pytest
import structlog

from ordinaut.work.tools.base import StepContext


class Untouchable:
    """Services for calls that must not touch any: whoever reaches for one fails the test."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the tool reached for services.{name}")


@pytest.fixture
def context() -> Callable[..., StepContext]:
    def make(services: Any = None, **changed: Any) -> StepContext:
        values: dict[str, Any] = {
            "run_id": "run-1",
            "task": "backup",
            "space": "default",
            "step_id": "first",
            "attempt": 1,
            "idempotency_key": "run-1/first",
            "correlation": "corr-1",
            "actor": "worker:w",
            "causation": "run-run-1/2",
            "depth": 2,
            "simulate": False,
            "services": services or Untouchable(),
            "log": structlog.get_logger(),
        }
        return StepContext(**(values | changed))

    return make
