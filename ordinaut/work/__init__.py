"""Doing the runs: leasing them from `due_work`, calling their steps' tools, recording what came of it."""
