"""The program `ordinaut` in a process whose wall clock is wrong, or is set while it runs.

time-machine replaces what the process is told by its wall clock; as when somebody sets a machine's clock, the
monotonic one goes on as before.
"""

import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import time_machine

from ordinaut.cli.main import main
from tests.support.eventually import eventually
from tests.support.processes import RoleProcess

AHEAD = "TEST_WALL_CLOCK_AHEAD"
"""The environment variable that says by how many seconds the clock is wrong from the beginning."""

STEPS = {signal.SIGUSR1: timedelta(hours=1), signal.SIGUSR2: timedelta(hours=-1)}


class SettableProcess(RoleProcess):
    """A role whose wall clock can be set."""

    main = "from tests.support.wall_clock import run; run()"

    async def set_clock(self, step: signal.Signals) -> None:
        """Set it by what `STEPS` says, and wait until it is set."""
        told = _told(STEPS[step])
        before = self.output.count(told)
        self.send(step)
        await eventually(lambda: self.output.count(told) > before)


def _told(step: timedelta) -> str:
    return f"the wall clock is set by {step}"


def run() -> None:
    """What such a process does: `ordinaut` with its arguments."""
    wrong = datetime.now(UTC) + timedelta(seconds=float(os.environ.get(AHEAD, "0")))
    with time_machine.travel(wrong, tick=True) as traveller:

        def step(number: int, _frame: Any) -> None:
            by = STEPS[signal.Signals(number)]
            traveller.shift(by)
            print(_told(by), flush=True)

        for number in STEPS:
            signal.signal(number, step)
        sys.exit(main())
