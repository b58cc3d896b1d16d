"""What waited unread in the queues of sessions that have ended.

The store keeps it under another name, so that the client identifier is free at once; page by page
members of shared subscriptions get theirs, and the rest is dropped. A broker that ends before that
goes on after its next start.
"""

import logging
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import trio

from mqtrio.engine.pages import PAUSE
from mqtrio.engine.rows import delivery_of_row
from mqtrio.errors import StoreError
from mqtrio.state.session import ENDED_PREFIX, Session
from mqtrio.store.batch import COMMITTED, Batch, wait_committed
from mqtrio.store.protocol import LoadedSession, QueuedRow

if TYPE_CHECKING:
    from mqtrio.engine.core import Core

log = logging.getLogger("mqtrio.store")

#: Characters of the unique part of a name.
_UNIQUE: Final = 32


class EndedSessions:
    """Takes the unread queues of ended sessions apart."""

    __slots__ = ("core", "_by_name")

    def __init__(self, core: "Core") -> None:
        self.core = core
        #: By the names under which the store keeps their queues.
        self._by_name: dict[str, Session] = {}

    def add(self, session: Session) -> Batch:
        """A session with unread messages has ended; returns the batch with its end.

        All of its queue is dealt with in its order, what memory has of it as well.
        """
        core = self.core
        name = f"{ENDED_PREFIX}{uuid4().hex}/{session.client_id}"
        batch = core.recorder.session_ended_unread(session, name)
        for delivery in session.deliveries():
            core.recorder.references.unread(delivery.message.message_id)
            core.deliveries.let_go(delivery.message)
        session.inflight.clear()
        session.queue = None
        session.queue_bytes = 0
        session.unread = None
        self._by_name[name] = session
        self._start(name, session, batch)
        return batch

    def restored(self, loaded: LoadedSession) -> None:
        """The store has the queue of a session that ended before."""
        record = loaded.session
        client_id = record.client_id[len(ENDED_PREFIX) + _UNIQUE + 1 :]
        session = Session(client_id, record.username, record.version)
        session.ended = True
        self._by_name[record.client_id] = session
        self._start(record.client_id, session, COMMITTED)

    def begin(self) -> None:
        """The broker runs: go on with what ended before."""
        for name, session in self._by_name.items():
            self._start(name, session, COMMITTED)

    def lost(self, name: str) -> None:
        """Memory and store disagree about it; `restored` follows if there is something left."""
        self._by_name.pop(name, None)

    def _start(self, name: str, session: Session, batch: Batch) -> None:
        nursery = self.core.nursery
        if nursery is not None and not self.core.stopping:
            nursery.start_soon(self._take_apart, name, session, batch)

    async def _take_apart(self, name: str, session: Session, batch: Batch) -> None:
        core = self.core
        try:
            await wait_committed(batch)
        except StoreError:
            self._by_name.pop(name, None)  # it has not ended, as far as the store knows
            return
        after = 0
        while self._by_name.get(name) is session:
            try:
                rows = await core.pages.page(name, after)
            except Exception as error:  # noqa: BLE001 - whatever a store raises
                log.error("the queue of %r, which has ended, can't be read: %s", name, error)
                await trio.sleep(PAUSE)
                continue
            if self._by_name.get(name) is not session:
                return
            if not rows:
                del self._by_name[name]
                core.recorder.ended_session_removed(name)
                return
            core.turn(self._deal_with, name, session, rows)
            after = rows[-1].sequence
            await core.recorder.room()

    def _deal_with(self, name: str, session: Session, rows: list[QueuedRow]) -> None:
        """Give a page to other members of shared subscriptions, and drop the rest.

        [MQTT-4.8.2-4], [MQTT-4.8.2-5]: what was sent at QoS 2 is nobody else's.
        """
        core = self.core
        for row in rows:
            delivery = delivery_of_row(core, row)
            message = delivery.message
            if not delivery.sent and message.expired(core.now):
                core.deliveries.drop(session, message, "expired")
            elif delivery.group is not None and not (delivery.sent and delivery.qos == 2):
                core.router.share(delivery.group, message)
            elif not delivery.sent:  # of what was sent nobody knows whether it arrived
                core.deliveries.drop(session, message, "session_ended")
            core.recorder.entry_finished(name, row.sequence)
            core.deliveries.let_go(message)
