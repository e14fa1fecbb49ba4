"""The REST door: requests become commands, and what the log and the read tables hold becomes answers."""
