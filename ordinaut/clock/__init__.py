"""The clock: turns instants that a schedule names into runs, or into the reason why there is none."""
