"""The same no-op job on other job queues, each run by its own environment's Python."""
