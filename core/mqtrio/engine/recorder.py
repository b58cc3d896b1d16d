"""What the engine does, as changes for the store; none is built while the store isn't durable."""

from typing import TYPE_CHECKING

import trio

from mqtrio.engine.drafts import Drafts
from mqtrio.engine.references import References
from mqtrio.state.message import Message
from mqtrio.state.session import Delivery, Session
from mqtrio.store.batch import COMMITTED, Batch, BatchState
from mqtrio.store.changes import (
    MessageRemoved,
    QueuedReleased,
    QueuedRemoved,
    QueuedSent,
    ReceivedPut,
    ReceivedRemoved,
    RetainedPut,
    RetainedRemoved,
    SessionClosed,
    SessionPut,
    SessionRemoved,
    SessionSetAside,
    SubscriptionPut,
    SubscriptionRemoved,
    WillPut,
    WillRemoved,
    stored_properties,
)
from mqtrio.store.journal import Failure, Journal
from mqtrio.store.protocol import Loaded

if TYPE_CHECKING:
    from mqtrio.engine.connection import Connection
    from mqtrio.engine.core import Core
    from mqtrio.engine.wills import PendingWill
    from mqtrio.state.index import Subscription


class FirstCommit:
    """Holds back a QoS 2 message until the store has it, and its packet identifier if it has one.

    A crash must neither make it two messages, nor give its identifier to another one.
    """

    __slots__ = ("core", "session", "delivery")

    def __init__(self, core: "Core", session: Session, delivery: Delivery) -> None:
        self.core = core
        self.session = session
        self.delivery = delivery

    def released(self, batch: Batch) -> None:
        """The message may go out now (or its session is lost)."""
        if batch.state is BatchState.DONE:
            self.delivery.waits = False
            self.core.deliveries.committed(self.session, self.delivery)


class Recorder:
    """One method for each thing that must survive; returns the batch to wait for.

    Which of them are called is the caller's decision: only sessions that are `stored` count.
    """

    __slots__ = (
        "core",
        "journal",
        "active",
        "drafts",
        "messages",
        "references",
        "_message_id",
        "_unsure",
        "_stored_wills",
    )

    def __init__(self, core: "Core", journal: Journal) -> None:
        self.core = core
        self.journal = journal
        self.active = journal.active
        self.drafts = Drafts(journal, core.clock)
        #: The stored messages that memory holds, by their numbers.
        self.messages: dict[int, Message] = {}
        #: Who needs stored messages that memory need not hold.
        self.references = References()
        self._message_id = 0
        #: Messages that nobody holds here, while sessions are loaded again that may need them.
        self._unsure: set[int] = set()
        self._stored_wills: set[str] = set()

    @property
    def full(self) -> bool:
        """Whether publishers must wait until the store has caught up."""
        return self.journal.full

    def continue_after(self, message_id: int) -> None:
        """New messages get identifiers above this one."""
        self._message_id = max(self._message_id, message_id)

    # -- sessions

    def session_opened(self, connection: "Connection", session: Session, ended: Batch) -> Batch:
        """A session was claimed; it is stored if it may outlive its connection.

        Waits also for `ended`, the end of a stored session that Clean Start replaced.
        """
        if not self.active or (session.ends_with_connection and not session.stored):
            return ended
        session.stored = True
        clock = self.core.clock
        expires_at = connection.credentials_expire_at
        self.drafts.write()
        batch = self.journal.append(
            SessionPut(
                session.client_id,
                session.username,
                session.version,
                session.expiry_interval,
                session.epoch,
                clock.wall(),
                clock.to_wall(expires_at) if expires_at >= 0 else None,
            )
        )
        pending = connection.will
        if pending is not None:
            self._will(pending, None)
        return batch

    def session_opened_locally(self, session: Session) -> Batch:
        """A program of this process has a durable session."""
        if not self.active:
            return COMMITTED
        session.stored = True
        self.drafts.write()
        return self.journal.append(
            SessionPut(
                session.client_id,
                session.username,
                session.version,
                session.expiry_interval,
                session.epoch,
                self.core.clock.wall(),
            )
        )

    def session_left(self, session: Session) -> None:
        """The connection is gone, the session stays."""
        closed_at = self.core.clock.wall()
        self.journal.append(SessionClosed(session.client_id, closed_at), lazy=True)

    def session_ended(self, session: Session) -> Batch:
        """A stored session is thrown away."""
        self.drafts.write()
        return self.journal.append(SessionRemoved(session.client_id))

    def session_ended_unread(self, session: Session, name: str) -> Batch:
        """A stored session is thrown away; its queue is to be dealt with, under another name."""
        self.drafts.write()
        return self.journal.append(SessionSetAside(session.client_id, name))

    def ended_session_removed(self, name: str) -> None:
        """The queue of an ended session is dealt with."""
        self.journal.append(SessionRemoved(name), lazy=True)

    def subscribed(self, session: Session, subscription: "Subscription") -> Batch:
        """A subscription of a stored session."""
        return self.journal.append(
            SubscriptionPut(
                session.client_id,
                subscription.topic_filter,
                subscription.qos,
                subscription.no_local,
                subscription.retain_as_published,
                subscription.retain_handling,
                subscription.identifier,
                subscription.sent if subscription.sent != subscription.topic_filter else "",
            ),
            size=100 + len(subscription.topic_filter) + len(subscription.sent),
        )

    def unsubscribed(self, session: Session, topic_filter: str) -> Batch:
        """A subscription of a stored session is no more."""
        return self.journal.append(SubscriptionRemoved(session.client_id, topic_filter))

    # -- outgoing messages

    def queued(self, session: Session, delivery: Delivery) -> Batch:
        """A stored session gets a message; the message itself is stored once for all."""
        batch = self.drafts.put(session, delivery, self._number)
        delivery.sequence = session.next_sequence()
        if delivery.qos == 2:
            self._hold_back(session, delivery, batch)
        return batch

    def unread(self, session: Session, delivery: Delivery) -> Batch:
        """A stored session gets a message that memory won't hold."""
        batch = self.drafts.put(session, delivery, self._number)
        delivery.sequence = session.next_sequence()
        if batch.state is BatchState.OPEN:
            self.references.unread(delivery.message.message_id)
        return batch

    def _number(self, message: Message) -> None:
        self._message_id += 1
        message.message_id = self._message_id
        self.messages[self._message_id] = message

    def _hold_back(self, session: Session, delivery: Delivery, batch: Batch) -> None:
        delivery.waits = batch.state is not BatchState.DONE
        if batch.state is BatchState.OPEN:
            batch.waiters[FirstCommit(self.core, session, delivery)] = None

    def identified(self, session: Session, delivery: Delivery) -> None:
        """A QoS 2 message of a stored session has its packet identifier; it goes out afterwards."""
        if self.drafts.holds(delivery):
            return  # it waits for the same batch already
        batch = self.journal.append(
            QueuedSent(session.client_id, delivery.sequence, delivery.packet_id)
        )
        self._hold_back(session, delivery, batch)

    def sent(self, session: Session, delivery: Delivery) -> None:
        """A QoS 1 message of a stored session is under way, with this packet identifier."""
        self.drafts.sent(session, delivery)

    def released(self, session: Session, delivery: Delivery) -> Batch:
        """PUBREC came: from now on it is PUBREL that is repeated."""
        return self.journal.append(QueuedReleased(session.client_id, delivery.sequence))

    def settled(self, session: Session, delivery: Delivery) -> None:
        """A stored session is done with a message."""
        if not self.drafts.removed(delivery):
            self.entry_finished(session.client_id, delivery.sequence)

    def entry_finished(self, name: str, sequence: int) -> Batch:
        """An entry is finished that stands under this name in the store."""
        return self.journal.append(QueuedRemoved(name, sequence), lazy=True)

    async def room(self) -> None:
        """Wait until the store has caught up, if it is far behind."""
        while self.journal.full:
            event = trio.Event()
            self.journal.on_room(event.set)
            await event.wait()

    def message_gone(self, message: Message) -> None:
        """Nobody here holds a stored message any more."""
        message_id = message.message_id
        references = self.references
        if self.core.sessions.reloading and (
            message_id in references.counts or not self.drafts.gone(message)
        ):
            self._unsure.add(message_id)
            return
        del self.messages[message_id]
        message.message_id = 0
        if self.core.sessions.reloading or references.let_go(message_id, len(message.payload)):
            return
        if not self.drafts.gone(message):
            self.journal.append(MessageRemoved(message_id), lazy=True)

    def commit_failed(self, failure: Failure) -> None:
        """Messages that were to be stored are not, and others to be removed are still there.

        Who still holds one of the former has it in memory. Of the latter `messages_known` tells.
        """
        lost = failure.client_ids
        if lost:
            held: dict[int, int] = {}
            for session in self.core.sessions.by_id.values():
                if session.stored and session.client_id not in lost:
                    for delivery in session.deliveries():
                        message_id = delivery.message.message_id
                        held[message_id] = held.get(message_id, 0) + 1
            self.references.lost(held, self._message_id)
        else:
            for message_id in failure.kept_ids:
                self.journal.append(MessageRemoved(message_id), lazy=True)
        for message_id in failure.message_ids:
            message = self.messages.pop(message_id, None)
            if message is not None:
                message.message_id = 0

    def messages_known(self, loaded: Loaded) -> None:
        """Lost sessions are there again: remove the messages that nobody needs."""
        self.references.known(loaded, self.messages)
        for message_id in sorted(self.references.unneeded(self.messages)):
            self.journal.append(MessageRemoved(message_id), lazy=True)
        unsure, self._unsure = self._unsure, set()
        for message_id in sorted(unsure):
            message = self.messages.get(message_id)
            if message is not None and not message.references:
                self.message_gone(message)

    # -- incoming QoS 2

    def receipt_begun(self, session: Session, packet_id: int) -> Batch:
        """The identifier of an incoming QoS 2 message is in use."""
        return self.journal.append(ReceivedPut(session.client_id, packet_id))

    def receipt_ended(self, session: Session, packet_id: int) -> Batch:
        """PUBREL came for it."""
        return self.journal.append(ReceivedRemoved(session.client_id, packet_id))

    # -- retained messages

    def retained(self, message: Message) -> Batch:
        """The retained message of a topic is another one; nobody waits for one at QoS 0."""
        if not self.active:
            return COMMITTED
        clock = self.core.clock
        return self.journal.append(
            RetainedPut(
                message.topic,
                message.payload,
                message.qos,
                stored_properties(message.properties),
                message.client_id,
                message.username,
                clock.to_wall(message.expires_at) if message.expires_at >= 0 else None,
                message.origin,
                message.node,
            ),
            size=message.size,
            lazy=not message.qos,
        )

    def unretained(self, topic: str, lazy: bool) -> Batch:
        """A topic has no retained message any more."""
        if not self.active:
            return COMMITTED
        return self.journal.append(RetainedRemoved(topic), lazy=lazy)

    # -- wills

    def will_waits(self, pending: "PendingWill", due: float) -> None:
        """A will is to be published later."""
        if self.active:
            self._will(pending, self.core.clock.to_wall(due))

    def will_gone(self, client_id: str) -> None:
        """A will was published or is forgotten."""
        if client_id in self._stored_wills:
            self._stored_wills.discard(client_id)
            self.journal.append(WillRemoved(client_id), lazy=True)

    def will_lost(self, client_id: str) -> None:
        """It is not known whether the store has this will; `will_restored` follows if it has."""
        self._stored_wills.discard(client_id)

    def will_restored(self, client_id: str) -> None:
        """A will came from the store and is still there."""
        self._stored_wills.add(client_id)

    def _will(self, pending: "PendingWill", due: float | None) -> None:
        will = pending.will
        properties = will.properties
        self._stored_wills.add(pending.client_id)
        self.journal.append(
            WillPut(
                pending.client_id,
                pending.username,
                will.topic,
                will.payload,
                will.qos,
                will.retain,
                will.delay_interval,
                properties.message_expiry_interval if properties is not None else None,
                stored_properties(properties),
                due,
                pending.ruling,
            ),
            size=len(will.payload) + 200,
        )
