"""How far a search for an occurrence goes before it is given up.

Counted in steps and in years, not in seconds, so that the same question has the same answer on every machine.
"""

from dataclasses import dataclass

HORIZON_YEARS = 100
"""A rule without an occurrence for so long is said to have ended."""

LAST_YEAR = 9000


class BudgetSpentError(Exception):
    """The walk was given up: too many steps without an answer."""


@dataclass(slots=True)
class Budget:
    """How many steps a walk may still take (a step is a month, a day or a time looked at), and the last year
    it may look at, which moves on with what it finds."""

    left: int
    last_year: int = 0

    def spend(self, steps: int) -> None:
        """Take `steps`. Raises BudgetSpentError when there are none left."""
        self.left -= steps
        if self.left < 0:
            raise BudgetSpentError

    def look_from(self, year: int) -> None:
        """Look up to the horizon as it is from this year on."""
        self.last_year = min(year + HORIZON_YEARS, LAST_YEAR)
