"""What can happen: events, decisions and folds. Pure: no I/O, no clock, no randomness."""
