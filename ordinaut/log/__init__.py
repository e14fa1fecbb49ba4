"""The truth: appending to the log, reading it, and publishing it on Redis."""
