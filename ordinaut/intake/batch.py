"""How many entries are read at once: as many as are worth it, and no more than fit."""

from collections.abc import Sequence

from ordinaut.runtime.entries import Entry

FIRST = 10
"""So many at first, when nothing is known of their size."""

GROWTH = 4
"""So many times more after each batch that was full, while they fit."""

MOST_BYTES = 32 * 1024 * 1024
"""What a batch may take, going by the entries read last."""


class Batch:
    """The size of the next batch, `count`, over all streams together; at most `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = min(FIRST, most)

    def read(self, entries: Sequence[Entry], *, full: bool) -> None:
        """Learn from what was read; `full`: one of the streams gave as many as it was asked for."""
        if not entries:
            return
        size = sum(sum(map(len, entry.fields.values())) for entry in entries)
        fits = MOST_BYTES * len(entries) // max(1, size)
        wanted = self.count * GROWTH if full else self.count
        self.count = max(1, min(wanted, fits, self.most))
