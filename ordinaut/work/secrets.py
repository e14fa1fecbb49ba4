"""Secrets on their way into a step: what its templates see, and which tools may be given any (I11)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ordinaut.domain.definition import CompiledStep
from ordinaut.domain.redact import MARK
from ordinaut.runtime.secrets import read_secrets
from ordinaut.work.tools.base import Tool
from ordinaut.work.tools.errors import ToolError


def with_marks(step: CompiledStep, seen: dict[str, Any]) -> Mapping[str, Any]:
    """What the step sees, with a mark under the name of every secret it names: for what is recorded of
    its `with`, and for simulated runs."""
    if not step.secrets:
        return seen
    return {**seen, "secrets": dict.fromkeys((name for _, name in step.secrets), MARK)}


def take_secrets(step: CompiledStep, tool: Tool, directory: Path | None) -> dict[str, str]:
    """The values of the secrets that the step names. Raises `NotFound` for one there is none of, and
    `ToolError` for a tool that records what it is given."""
    if not tool.secrets:
        raise ToolError(f"{tool.name} records what it is given, so it gets no secrets", retryable=False)
    return read_secrets((name for _, name in step.secrets), directory)
