"""Commands that run to their end, as a script would call them."""

import os
import subprocess
import sys
from collections.abc import Mapping

from tests.support.processes import ROOT


def ordinaut(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; it finds no server but those in `env`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ORDINAUT_")}
    return subprocess.run(
        [sys.executable, "-m", "ordinaut", *arguments],
        cwd=ROOT,
        env={**clean, "ORDINAUT_DATA_DIR": "/nonexistent", **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
