"""Stores for tests: one that delays, fails and hangs as it is told."""

from collections.abc import Collection, Sequence

import trio

from mqtrio.errors import StoreError
from mqtrio.store.changes import Change
from mqtrio.store.memory import MemoryStore
from mqtrio.store.protocol import Loaded, QueuedRow
from mqtrio.store.stored import StoredState


class FaultyStore(MemoryStore):
    """A durable store in memory that does what the test says, in trio's (virtual) time.

    A commit first waits `delay` seconds, then while the store hangs; then it fails, with nothing
    applied, if it was told to (`fail_next`), or succeeds. `commits` holds the changes of every
    successful commit, `attempts` of every one that was begun. A restart is
    `FaultyStore(old.state.copy())`. A page of a queue takes `read_delay` seconds; `reads`
    holds what was read of queues: the client identifier and the number of entries.
    """

    durable = True

    def __init__(self, state: StoredState | None = None, *, delay: float = 0.0) -> None:
        super().__init__(state)
        self.delay = delay
        self.read_delay = 0.0
        self.attempts: list[tuple[Change, ...]] = []
        self.commits: list[tuple[Change, ...]] = []
        self.loads: list[frozenset[str] | None] = []
        self.reads: list[tuple[str, int]] = []
        self.closed = False
        self._failures: list[Exception] = []
        self._load_failures = 0
        self._read_failures = 0
        self._go = trio.Event()
        self._go.set()

    def fail_next(self, count: int = 1, error: Exception | None = None) -> None:
        """Let the next `count` commits raise `error`; default: a StoreError."""
        self._failures += [error or StoreError("the disk is full")] * count

    def fail_next_load(self, count: int = 1) -> None:
        """Let the next `count` calls of `load` raise StoreError."""
        self._load_failures += count

    def fail_next_read(self, count: int = 1) -> None:
        """Let the next `count` calls of `queued` raise StoreError."""
        self._read_failures += count

    def hang(self) -> None:
        """Let every commit, load and read wait until `go_on`, also one that is in its delay."""
        if self._go.is_set():
            self._go = trio.Event()

    def go_on(self) -> None:
        """End `hang`."""
        self._go.set()

    def heal(self) -> None:
        """Forget what was to fail, and end `hang`."""
        self._failures.clear()
        self._load_failures = 0
        self._read_failures = 0
        self._go.set()

    async def commit(self, changes: Sequence[Change]) -> None:
        """Delay, hang, fail or commit."""
        attempt = tuple(changes)
        self.attempts.append(attempt)
        await trio.sleep(self.delay)
        await self._go.wait()
        if self._failures:
            raise self._failures.pop(0)
        await super().commit(attempt)
        self.commits.append(attempt)

    async def load(self, client_ids: Collection[str] | None = None) -> Loaded:
        """Hang, fail or load."""
        self.loads.append(None if client_ids is None else frozenset(client_ids))
        await trio.lowlevel.checkpoint()
        await self._go.wait()
        if self._load_failures:
            self._load_failures -= 1
            raise StoreError("the disk can't be read")
        return await super().load(client_ids)

    async def queued(
        self, client_id: str, after: int, limit: int, size: int | None = None
    ) -> list[QueuedRow]:
        """Delay, hang, fail or read."""
        await trio.sleep(self.read_delay)
        await self._go.wait()
        if self._read_failures:
            self._read_failures -= 1
            raise StoreError("the disk can't be read")
        rows = await super().queued(client_id, after, limit, size)
        self.reads.append((client_id, len(rows)))
        return rows

    async def close(self) -> None:
        """Note that the store was closed."""
        await super().close()
        self.closed = True
