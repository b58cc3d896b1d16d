"""A batch of changes, which is at the same time the token for their durability.

Nothing here knows how a batch is settled: one store on this machine settles them in their order,
something else may settle them out of order.
"""

from enum import IntEnum
from typing import Final, Protocol

import trio

from mqtrio.errors import StoreError
from mqtrio.store.changes import Change


class BatchState(IntEnum):
    """What became of a batch."""

    OPEN = 0
    DONE = 1
    FAILED = 2


class Waiter(Protocol):
    """Something that waits for a batch; hashed by identity."""

    def released(self, batch: "Batch") -> None:
        """The batch's state is no longer OPEN. Batches may be released out of order."""
        ...


class Batch:
    """Changes that are committed together, and the token for that.

    Whoever waits does `batch.waiters[waiter] = None` while the state is OPEN, and is called once.
    """

    __slots__ = ("state", "changes", "waiters", "size", "urgent", "promised", "full")

    def __init__(self, state: BatchState = BatchState.OPEN) -> None:
        self.state = state
        self.changes: list[Change] = []
        self.waiters: dict[Waiter, None] = {}
        self.size = 0
        self.urgent = False
        #: Something was promised; it may have come to nothing since.
        self.promised = False
        #: It has failed because the store had no room.
        self.full = False

    def __repr__(self) -> str:
        count = len(self.changes)
        return f"<Batch {self.state.name}, {count} changes, {len(self.waiters)} waiters>"


#: For what needs no commit.
COMMITTED: Final = Batch(BatchState.DONE)
#: For changes that were not taken: they touch a lost session, or the journal is closed.
REFUSED: Final = Batch(BatchState.FAILED)


class _Completion:
    """A waiter for tasks."""

    def __init__(self) -> None:
        self.event = trio.Event()

    def released(self, batch: Batch) -> None:
        self.event.set()


async def wait_committed(batch: Batch) -> None:
    """Wait in a task until a batch is committed. Raises StoreError if it failed."""
    if batch.state is BatchState.OPEN:
        completion = _Completion()
        batch.waiters[completion] = None
        try:
            await completion.event.wait()
        finally:
            batch.waiters.pop(completion, None)
    if batch.state is BatchState.FAILED:
        raise StoreError("the change could not be made durable")
