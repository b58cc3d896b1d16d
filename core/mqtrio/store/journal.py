"""The journal: changes become batches, batches become commits, commits release acknowledgements.

`append` puts changes into the open batch and returns it: the batch is the token that a promise
(PUBACK, SUBACK, CONNACK...) waits for. While one batch is being committed the next one fills, so
the busier the broker, the more changes share one commit (group commit).

A failed commit is a clean cut. What is not in the store when a commit fails fails with it: the
batch itself and everything appended meanwhile, since that was decided on a memory which is now
known to be ahead of the store, and any finer choice could keep half of an action (a message for
two sessions that reaches one). The sessions touched by it are lost: `on_failed` drops them from
memory at once, the waiters of both batches are told, `recover` loads the sessions again, and only
then is anything committed again. Until `recover` has returned, changes that touch a lost session
are refused (`REFUSED`). Sessions that had nothing uncommitted notice nothing. Retained messages
need no cut: the last value of a topic wins, so theirs are carried over to the next commit, or to
one of their own if the store was full.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import trio
from attrs import define

from mqtrio.errors import StoreError, StoreFull
from mqtrio.store.batch import COMMITTED, REFUSED, Batch, BatchState, Waiter
from mqtrio.store.carried import Carried
from mqtrio.store.changes import (
    Change,
    MessagePut,
    MessageRemoved,
    RetainedPut,
    RetainedRemoved,
    touched,
)
from mqtrio.store.protocol import Store

__all__ = ["COMMITTED", "REFUSED", "Batch", "BatchState", "Failure", "Journal", "Waiter"]

logger = logging.getLogger("mqtrio.store")

#: Pause after the first failed commit and the longest one, in seconds.
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0


@define(frozen=True)
class Failure:
    """What a failed commit means for the memory."""

    #: Sessions to be dropped; they are loaded again.
    client_ids: frozenset[str]
    #: Messages that were to be put and are not in the store: these ids must not be used again.
    message_ids: frozenset[int]
    #: Messages that were to be removed and are still in the store.
    kept_ids: frozenset[int]
    error: Exception


class Journal:
    """Collects changes for one store and commits them. `run` must run for anything to happen.

    `on_failed(failure)` is called right after a failed commit, before anything else runs: drop the
    sessions from memory and close their connections. `recover(client_ids)` is awaited after that:
    load them again with `store.load(client_ids)`; it is tried again when it raises StoreError.
    While the journal stops, nothing is recovered. `tick` is called before every slice of released
    waiters (time has passed since they began to wait), `flush` after it. `crashed(waiter, error)`
    gets what a waiter raises; without it that ends `run`. `limit` is in bytes, `lazy_delay` and
    `grace` in seconds, `slice_size` in waiters.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_failed: Callable[[Failure], object],
        recover: Callable[[frozenset[str]], Awaitable[object]],
        tick: Callable[[], object] | None = None,
        flush: Callable[[], object] | None = None,
        crashed: Callable[[Waiter, Exception], object] | None = None,
        limit: int = 4 * 1024 * 1024,
        lazy_delay: float = 0.1,
        grace: float = 5.0,
        slice_size: int = 500,
    ) -> None:
        self.store = store
        #: Called when a batch is closed: gives the changes that were promised and must be made.
        self.complete: Callable[[], Iterable[Change]] = tuple
        #: False: the store is not durable; build no change, everything is COMMITTED.
        self.active = store.durable
        #: More than `limit` bytes wait for the store: stop reading and ask `on_room`.
        self.full = False
        #: Client identifiers of sessions that are being loaded again.
        self.lost: frozenset[str] = frozenset()
        #: Bytes of changes that are not committed yet.
        self.uncommitted = 0
        self.commits = 0
        self.failures = 0
        self.changes = 0
        self._on_failed = on_failed
        self._recover = recover
        self._tick = tick
        self._flush = flush
        self._crashed = crashed
        self._limit = limit
        self._lazy_delay = lazy_delay
        self._grace = grace
        self._slice_size = slice_size
        self._open = Batch()
        self._committing: Batch | None = None
        self._carried = Carried(store)
        self._room: dict[Callable[[], object], None] = {}
        # One flag on the hot path for all that makes append look twice.
        self._guarded = not self.active
        self._closed = False
        self._pause = 0.0
        self._actions = 0
        self._actions_ended = trio.Event()
        self._sealed = trio.Event()  # not set while a commit waits for actions to end
        self._sealed.set()
        self._filled = trio.Event()
        self._urgent = trio.Event()
        self._stopping = trio.Event()
        self._finished = trio.Event()
        self._running = False
        self._scope = trio.CancelScope(shield=True)
        self._recovery = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    # --- what the engine calls

    @property
    def pending(self) -> Batch:
        """The batch after whose commit the store has all that was appended until now."""
        if self._open.changes or self._open.promised:
            return self._open
        return self._committing or COMMITTED

    def append(self, change: Change, *, size: int = 64, lazy: bool = False) -> Batch:
        """Take one change; `size` is what it holds in memory, in bytes.

        A lazy change starts no commit by itself: it rides with the next one, at the latest after
        `lazy_delay`. Returns the batch to wait for, or COMMITTED or REFUSED.
        """
        if self._guarded:
            answer = self._refusal(touched(change))
            if answer is not None:
                return answer
        batch = self._open
        changes = batch.changes
        if not changes:
            self._filled.set()
        changes.append(change)
        self._count(batch, size, lazy)
        return batch

    def promise(self, client_id: str, size: int, *, lazy: bool = False) -> Batch:
        """Take a change to this session that `complete` will give when the batch is closed.

        For what may come to nothing meanwhile; then say `withdraw` with its size. Its promise waits
        for a commit all the same. The rest is as in `append`.
        """
        if self._guarded:
            answer = self._refusal(client_id)
            if answer is not None:
                return answer
        batch = self._open
        if not batch.promised:
            batch.promised = True
            self._filled.set()
        self._count(batch, size, lazy)
        return batch

    def withdraw(self, size: int) -> None:
        """A change that was promised to the open batch need not be made."""
        self._open.size -= size
        self.uncommitted -= size

    def write(self, changes: Iterable[Change]) -> None:
        """Take changes that were promised to the open batch, before it is closed."""
        self._open.changes += changes

    def _count(self, batch: Batch, size: int, lazy: bool) -> None:
        batch.size += size
        self.uncommitted += size
        if self.uncommitted > self._limit:
            self.full = True
        if not (lazy or batch.urgent):
            batch.urgent = True
            self._urgent.set()

    async def begin_action(self) -> None:
        """Keep the open batch open until `end_action`, so that a long action is one commit.

        For what takes several turns, like a message for very many sessions. Waits while a commit
        waits for others to end theirs, so that the overlapping of many starves no commit. If a
        failed commit takes the open batch with it, the action has failed: it must not go on.
        """
        while not self._sealed.is_set():
            await self._sealed.wait()
        if not self._actions:
            self._actions_ended = trio.Event()
        self._actions += 1

    def end_action(self) -> None:
        """The counterpart of `begin_action`; belongs into a `finally`."""
        self._actions -= 1
        if not self._actions:
            self._actions_ended.set()

    def on_room(self, callback: Callable[[], object]) -> None:
        """Call back once, when the journal is no longer full (at once if it isn't)."""
        if self.full:
            self._room[callback] = None
        else:
            callback()

    def reconfigure(self, limit: int, grace: float) -> None:
        """Go by other bounds from now on; see `limit` and `grace` of the class."""
        self._limit = limit
        self._grace = grace

    def stop(self, grace: float | None = None) -> None:
        """Ask `run` to commit what there is and to end, within `grace` seconds; returns at once."""
        bound = trio.current_time() + (self._grace if grace is None else grace)
        self._scope.deadline = min(self._scope.deadline, bound)
        self._stopping.set()
        self._filled.set()
        self._urgent.set()
        self._recovery.cancel()

    def give_up(self) -> None:
        """Commit nothing more, refuse everything, and end; what is under way may still come out."""
        self._closed = self._guarded = True
        self._carried.clear()
        self.stop()

    async def close(self, grace: float | None = None) -> None:
        """Stop, and wait until the last commit is over and the store closed.

        Both have `grace` seconds. What is not committed then has failed.
        """
        self.stop(grace)
        if self._running:
            await self._finished.wait()
        elif not self._closed:
            await self._end()

    # --- the task

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit until `stop` or cancellation; then commit the rest and close the store."""
        self._running = True
        try:
            async with trio.open_nursery() as outer:
                outer.start_soon(self._notice_cancellation)
                with self._scope:
                    async with trio.open_nursery() as self._nursery:
                        task_status.started()
                        await self._commit_until_stopped()
                outer.cancel_scope.cancel()
        finally:
            await self._end()

    async def _notice_cancellation(self) -> None:
        """Commits are shielded: a cancelled broker still gets its last commit, but bounded."""
        try:
            await trio.sleep_forever()
        finally:
            self.stop()

    async def _commit_until_stopped(self) -> None:
        while not self._stopping.is_set():
            await self._work_to_do()
            await self._commit_once()
        self._pause = 0.0
        while (self._open.changes or self._open.promised or self._carried) and not self._pause:
            await self._commit_once()

    async def _work_to_do(self) -> None:
        """Return when there is something to commit and the time for it has come."""
        if self._pause:
            with trio.move_on_after(self._pause):
                await self._stopping.wait()
        if not self._carried:
            await self._filled.wait()
        if not self._urgent.is_set():
            with trio.move_on_after(self._lazy_delay):
                await self._urgent.wait()

    async def _commit_once(self) -> None:
        if self._actions:
            self._sealed = trio.Event()
            await self._actions_ended.wait()
            self._sealed.set()
        batch = self._committing = self._seal()
        changes = self._carried.before(batch.changes)
        # What was promised may have come to nothing; who waits for it still waits for a commit.
        if changes or batch.promised:
            try:
                await self.store.commit(changes)
            except Exception as error:  # noqa: BLE001 - whatever a store raises, it did not commit
                await self._fail(batch, error)
                return
            self._carried.settled(changes)
            self.commits += 1
            self.changes += len(changes)
        self._pause = 0.0
        self._committing = None
        batch.state = BatchState.DONE
        batch.changes = []  # the token may be kept for long, what it stood for need not
        self._settled(batch.size)
        self._release(batch)
        self._make_room()
        if self._carried.apart and not await self._carried.commit():
            self._pause = FIRST_PAUSE

    def _seal(self) -> Batch:
        """Close the open batch and begin the next."""
        batch, self._open = self._open, Batch()
        if batch.promised:
            batch.changes += self.complete()
        if not self._stopping.is_set():
            self._filled, self._urgent = trio.Event(), trio.Event()
        return batch

    # --- failure

    async def _fail(self, batch: Batch, error: Exception) -> None:
        # No checkpoint from here until on_failed has returned: nobody can act on lost sessions.
        following = self._seal()
        self._committing = None
        self.failures += 1
        client_ids: set[str] = set()
        message_ids: set[int] = set()
        kept_ids: set[int] = set()
        for change in (*batch.changes, *following.changes):
            if isinstance(change, (RetainedPut, RetainedRemoved)):
                self._carried.add(change)
            elif isinstance(change, MessagePut):
                message_ids.add(change.message_id)
            elif isinstance(change, MessageRemoved):
                kept_ids.add(change.message_id)
            client_id = touched(change)
            if client_id is not None:
                client_ids.add(client_id)
        batch.state = following.state = BatchState.FAILED
        self._carried.apart = batch.full = following.full = isinstance(error, StoreFull)
        self.lost = lost = frozenset(client_ids)
        self._guarded = bool(lost)
        self._settled(batch.size + following.size)
        logger.error(
            "commit of %d changes failed (%s: %s); %d sessions are loaded again",
            len(batch.changes) + len(following.changes),
            type(error).__name__,
            error,
            len(lost),
        )
        kept_ids -= message_ids
        self._on_failed(Failure(lost, frozenset(message_ids), frozenset(kept_ids), error))
        self._release(batch)
        self._release(following)
        self._make_room()
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        if lost:
            await self._load_again(lost)

    async def _load_again(self, lost: frozenset[str]) -> None:
        """Await `recover` until it succeeds or the journal stops (then they stay lost)."""
        pause = FIRST_PAUSE
        self._recovery = trio.CancelScope()
        if self._stopping.is_set():
            return
        with self._recovery:
            while True:
                try:
                    await self._recover(lost)
                except StoreError as error:
                    logger.error("%d sessions can't be loaded again yet: %s", len(lost), error)
                    await trio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
                else:
                    break
        if not self._recovery.cancelled_caught:
            self.recovered()

    def recovered(self) -> None:
        """Take changes to lost sessions again; `recover` may say so as soon as it has read them."""
        self.lost = frozenset()
        self._guarded = self._closed

    def _refusal(self, client_id: str | None) -> Batch | None:
        """Why a change to this session is not taken, or None if it is."""
        if not self.active:
            return COMMITTED
        if self._closed or client_id in self.lost:
            return REFUSED
        return None

    # --- release

    def _settled(self, size: int) -> None:
        self.uncommitted -= size
        self.full = self.uncommitted > self._limit

    def _release(self, batch: Batch) -> None:
        """Tell the waiters: a few at once, many in slices beside the next commit."""
        waiters, batch.waiters = list(batch.waiters), {}
        if len(waiters) <= self._slice_size:
            self._release_slice(batch, waiters)
        else:
            assert self._nursery is not None
            self._nursery.start_soon(self._release_slices, batch, waiters)

    async def _release_slices(self, batch: Batch, waiters: list[Waiter]) -> None:
        position = 0
        try:
            while position < len(waiters):
                end = position + self._slice_size
                part, position = waiters[position:end], end
                self._release_slice(batch, part)
                await trio.lowlevel.checkpoint()
        finally:
            # Cancelled at the end of the grace time: the rest is told all the same.
            self._release_slice(batch, waiters[position:])

    def _release_slice(self, batch: Batch, waiters: list[Waiter]) -> None:
        if waiters and self._tick is not None:
            self._tick()
        for waiter in waiters:
            try:
                waiter.released(batch)
            except Exception as error:
                if self._crashed is None:
                    raise
                self._crashed(waiter, error)
        if waiters and self._flush is not None:
            self._flush()

    def _make_room(self) -> None:
        if self._room and not self.full:
            callbacks, self._room = self._room, {}
            for callback in callbacks:
                callback()

    # --- the end

    async def _end(self) -> None:
        self._running = False
        self._give_up()
        await self._close_store()
        self._finished.set()

    def _give_up(self) -> None:
        """Fail what the last commit did not reach; refuse everything from now on."""
        self._closed = self._guarded = True
        self.full = False
        self._sealed.set()
        self._open.changes += self.complete()
        for batch in (self._committing, self._open):
            if batch is not None and batch.state is BatchState.OPEN:
                if batch.changes:
                    logger.error("%d changes were not committed before the end", len(batch.changes))
                batch.state = BatchState.FAILED
                self._release_slice(batch, list(batch.waiters))
                batch.waiters = {}
        self._make_room()

    async def _close_store(self) -> None:
        with trio.move_on_after(self._grace, shield=True) as scope:
            try:
                await self.store.close()
            except Exception as error:  # noqa: BLE001 - the broker stops whatever the store says
                logger.error("the store can't be closed (%s: %s)", type(error).__name__, error)
        if scope.cancelled_caught:
            logger.error("the store was not closed within %g s", self._grace)
