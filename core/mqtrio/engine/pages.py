"""Queues larger than memory: what the store alone has of a session's queue, and reading it back.

Memory holds the front of a queue, up to a window; what comes behind it is unread. A page is read
when the window runs low. Whatever happens to a session meanwhile, a page is used only if what was
unread before is still unread.
"""

import contextlib
import logging
import math
from typing import TYPE_CHECKING, Any, Final

import trio

from mqtrio.engine.rows import delivery_of_row
from mqtrio.errors import StoreError
from mqtrio.reasons import ReasonCode
from mqtrio.state.message import OVERHEAD, Message
from mqtrio.state.session import Delivery, Session
from mqtrio.state.unread import Unread
from mqtrio.store.batch import COMMITTED, Batch, BatchState, wait_committed
from mqtrio.store.protocol import LoadedSession, QueuedRow

if TYPE_CHECKING:
    from mqtrio.engine.core import Core

log = logging.getLogger("mqtrio.store")

#: Pause after a page that could not be read, for a session that nobody is connected to.
PAUSE: Final = 1.0

#: Seconds between two looks for expired messages in the part of a full queue that is in memory.
LOOK_AGAIN: Final = 1.0


class Passed:
    """Messages that memory holds until the store has them, and no longer."""

    __slots__ = ("core", "messages")

    def __init__(self, core: "Core") -> None:
        self.core = core
        self.messages: list[Message] = []

    def released(self, batch: Batch) -> None:
        """The store has them (or their sessions are lost)."""
        for message in self.messages:
            self.core.deliveries.let_go(message)


class Pages:
    """What is unread of all sessions' queues."""

    __slots__ = ("core", "_passed", "_batch")

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._passed = Passed(core)
        self._batch = COMMITTED

    # -- out of memory

    def restored(self, session: Session, loaded: LoadedSession) -> None:
        """A session comes from the store: all of its queue is unread."""
        if loaded.queued:
            unread = session.unread = Unread(0, COMMITTED)
            unread.count = loaded.queued
            unread.size = loaded.queued_bytes + OVERHEAD * loaded.queued
            if loaded.earliest_expiry is not None:
                unread.earliest = self.core.clock.to_monotonic(loaded.earliest_expiry)

    def fits(self, session: Session) -> bool:
        """Whether one more message may be held in memory for a session."""
        limits = self.core.limits
        if self.core.memory > limits.memory:
            return False
        if session.outlet is None:
            messages, size = limits.page_messages, limits.page_bytes
        else:
            messages, size = limits.window_messages, limits.window_bytes
        queue = session.queue
        return not queue or (len(queue) < messages and session.queue_bytes < size)

    def put(self, session: Session, delivery: Delivery) -> Batch | None:
        """Give a new message to the store only, and the memory free when the store has it."""
        core = self.core
        message = delivery.message
        if session.full:
            if core.limits.overflow == "drop_oldest":
                # Where nothing is unread and all the rest was sent, there is no older one.
                if not core.deliveries.drop_oldest(session) and session.unread is not None:
                    session.unread.owed += 1
            elif not self.room(session):
                core.deliveries.let_go(message)
                core.deliveries.drop(session, message, "queue_full")
                return None
            if session.ended:  # by an observer of what was dropped
                core.deliveries.let_go(message)
                return None
        batch = core.recorder.unread(session, delivery)
        if batch.state is not BatchState.OPEN:
            core.deliveries.let_go(message)
            return batch
        unread = session.unread
        if unread is None:
            unread = session.unread = Unread(delivery.sequence - 1, COMMITTED)
        unread.add(message.size, message.expires_at)
        unread.put = batch
        self._let_go_with(batch, message)
        outlet: Any = session.outlet
        if outlet is not None:
            if session.waiting > core.limits.stall_messages and not outlet.slow:
                core.pressure.congested[outlet] = None
            self.want(session)
        elif unread.owed:
            self.want(session)
        return batch

    def _let_go_with(self, batch: Batch, message: Message) -> None:
        if batch is not self._batch:
            self._batch = batch
            self._passed = Passed(self.core)
            batch.waiters[self._passed] = None
        self._passed.messages.append(message)

    def trim(self, session: Session) -> None:
        """Nobody is connected any more: keep no more than a page of what was never sent."""
        queue = session.queue
        if not queue or not session.stored:
            return
        limits = self.core.limits
        unread = session.unread
        pending = self.core.recorder.journal.pending
        while len(queue) > limits.page_messages or session.queue_bytes > limits.page_bytes:
            delivery = queue[-1]
            if delivery.packet_id:
                return
            queue.pop()
            message = delivery.message
            session.queue_bytes -= message.size
            if unread is None:
                unread = session.unread = Unread(0, COMMITTED)
                unread.put = pending
            unread.after = delivery.sequence - 1
            unread.removed = pending  # something may be gone from between what goes now
            unread.add(message.size, message.expires_at)
            self.core.recorder.references.unread(message.message_id)
            if pending is COMMITTED:
                self.core.deliveries.let_go(message)
            else:
                self._let_go_with(pending, message)

    # -- room

    def room(self, session: Session) -> bool:
        """Whether a queue that is full has room after all: for what has expired in it.

        Where that is unread it is looked for, and meanwhile a page more than the limit is taken.
        """
        core = self.core
        now = core.now
        queue = session.queue
        if queue and now >= session.look_at:
            session.look_at = now + LOOK_AGAIN
            core.deliveries.drop_expired(session)
        unread = session.unread
        if unread is None:
            return not session.full
        if now >= unread.earliest and not unread.sweep:
            unread.sweep = True
            self.want(session)
        if not session.full:
            return True
        limits = core.limits
        return (
            unread.sweep
            and session.waiting < session.queue_limit + limits.page_messages
            and session.waiting_bytes < session.queue_bytes_limit + limits.page_bytes
        )

    # -- into memory

    def want(self, session: Session) -> None:
        """Read from the store what there is a use for."""
        unread = session.unread
        nursery = self.core.nursery
        if unread is None or unread.reading or not self._wanted(session, unread):
            return
        if nursery is not None and not self.core.stopping:
            unread.reading = True
            nursery.start_soon(self._read, session, unread)

    def _wanted(self, session: Session, unread: Unread) -> bool:
        if session.unread is not unread:
            return False
        if unread.sweep or unread.owed:
            return True
        return session.outlet is not None and self._low(session)

    def _low(self, session: Session) -> bool:
        limits = self.core.limits
        queue = session.queue
        return not queue or (
            2 * len(queue) < limits.page_messages and 2 * session.queue_bytes < limits.page_bytes
        )

    async def _read(self, session: Session, unread: Unread) -> None:
        core = self.core
        try:
            while self._wanted(session, unread):
                await self._removed(unread)
                if session.unread is not unread:
                    return
                if unread.sweep:
                    await self._sweep(session, unread)
                    continue
                after = unread.after
                settled = unread.put.state is BatchState.DONE
                rows = await self.page(session.client_id, after)
                if session.unread is not unread or unread.after != after:
                    continue
                if rows:
                    core.turn(self._take, session, unread, rows)
                elif settled:
                    raise RuntimeError(f"{unread.count} messages are missing in the store")
                else:
                    await wait_committed(unread.put)
        except StoreError as error:
            await self._failed(session, unread, error)
        except Exception as error:  # noqa: BLE001 - reported, with its traceback
            core.crashed(error)
            await self._failed(session, unread, error)
        finally:
            unread.reading = False
        self.want(session)

    async def _removed(self, unread: Unread) -> None:
        """Wait until a page shows nothing that is gone.

        If that could not be committed, it was either in memory and lost with it, or of others.
        """
        while unread.removed.state is BatchState.OPEN:
            with contextlib.suppress(StoreError):
                await wait_committed(unread.removed)

    async def page(self, client_id: str, after: int) -> list[QueuedRow]:
        """The next messages of a queue, a page of them at most."""
        limits = self.core.limits
        store = self.core.recorder.journal.store
        await trio.lowlevel.checkpoint()  # however fast a store is, others have their turns
        return await store.queued(client_id, after, limits.page_messages, limits.page_bytes)

    def _take(self, session: Session, unread: Unread, rows: list[QueuedRow]) -> None:
        """Put a page behind what memory has of a queue."""
        core = self.core
        deliveries = core.deliveries
        for row in rows:
            delivery = delivery_of_row(core, row)
            message = delivery.message
            unread.after = row.sequence
            unread.take(message.size)
            if delivery.released:
                session.open_flight(delivery)
                if session.outlet is not None:
                    session.outlet.release(delivery.packet_id)
            elif not delivery.sent and message.expired(core.now):  # [MQTT-3.3.2-5]
                deliveries.settle(session, delivery)
                deliveries.drop(session, message, "expired")
            else:
                session.enqueue(delivery)
            if session.unread is not unread:
                return  # an observer has ended the session
        while unread.owed and deliveries.drop_oldest(session):
            unread.owed -= 1
        if session.unread is unread and not unread.count:
            session.unread = None
        deliveries.pump(session)

    async def _sweep(self, session: Session, unread: Unread) -> None:
        """Look through all that is unread for what has expired."""
        after = unread.after
        unread.earliest = math.inf
        while session.unread is unread:
            rows = await self.page(session.client_id, after)
            if session.unread is not unread:
                return
            if not rows:
                break
            self.core.turn(self._drop_expired, session, unread, rows)
            after = rows[-1].sequence
        unread.sweep = False
        if session.unread is unread and not unread.count:
            session.unread = None

    def _drop_expired(self, session: Session, unread: Unread, rows: list[QueuedRow]) -> None:
        core = self.core
        for row in rows:
            expires_at = row.message.expires_at
            if expires_at is None or row.packet_id:
                continue
            moment = core.clock.to_monotonic(expires_at)
            if moment > core.now:
                unread.earliest = min(unread.earliest, moment)
                continue
            delivery = delivery_of_row(core, row)
            unread.take(delivery.message.size)
            unread.removed = core.recorder.entry_finished(session.client_id, row.sequence)
            core.deliveries.let_go(delivery.message)
            core.deliveries.drop(session, delivery.message, "expired")
            if session.unread is not unread:
                return  # an observer has ended the session

    async def _failed(self, session: Session, unread: Unread, error: Exception) -> None:
        """A page could not be read: nothing of it is lost, whoever waits for it is told."""
        if session.unread is not unread:
            return
        log.error("the queue of %r can't be read: %s", session.client_id, error)
        core = self.core
        if unread.sweep:
            unread.sweep = False
            unread.earliest = core.clock.monotonic() + PAUSE
        core.turn(self._close, session)
        await trio.sleep(PAUSE)

    def _close(self, session: Session) -> None:
        sessions = self.core.sessions
        sessions.close_local(session, StoreError("the session's messages can't be read"))
        holder = sessions.holders.get(session.client_id)
        if holder is not None and holder.session is session:
            holder.close(ReasonCode.UNSPECIFIED_ERROR, "the session's messages can't be read")
