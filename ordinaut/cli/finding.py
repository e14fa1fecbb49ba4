"""What one check of `ordinaut doctor` came to."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result; `advice` says what to do, "" when nothing needs doing."""

    check: str
    level: Level
    found: str
    advice: str = ""
