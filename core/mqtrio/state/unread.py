"""The part of a session's queue that only the store has."""

import math
from typing import Any


class Unread:
    """What stands in a session's queue behind the sequence `after`: it isn't in memory.

    While a session has this, its new messages go to the store only, so all that is unread stands
    behind all that memory has. `count` and `size` (bytes) are known, and after a start `size` only
    roughly. No unread message expires before `earliest` (monotonic seconds).

    `put` is the batch with the newest of it, `removed` the one with the last removal of something
    unread: before that is committed a page would show what is gone. `reading`: a task is at work;
    `sweep`: it is to look for what has expired; `owed`: messages that are to be dropped from the
    front, for others that came when the queue was full.
    """

    __slots__ = (
        "count",
        "size",
        "after",
        "earliest",
        "put",
        "removed",
        "reading",
        "sweep",
        "owed",
    )

    def __init__(self, after: int, committed: Any) -> None:
        self.count = 0
        self.size = 0
        self.after = after
        self.earliest = math.inf
        # Batches: what a store is, this folder doesn't know.
        self.put: Any = committed
        self.removed: Any = committed
        self.reading = False
        self.sweep = False
        self.owed = 0

    def add(self, size: int, expires_at: float) -> None:
        """One more message of `size` bytes; `expires_at` below 0 means never."""
        self.count += 1
        self.size += size
        if 0 <= expires_at < self.earliest:
            self.earliest = expires_at

    def take(self, size: int) -> None:
        """One less."""
        self.count -= 1
        self.size = max(0, self.size - size) if self.count else 0
