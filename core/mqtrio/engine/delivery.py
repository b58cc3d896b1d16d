"""What lies between a session's queue and its connection: windows, lifetimes, limits, replays."""

from typing import TYPE_CHECKING, Final

from mqtrio.engine.weights import PLACE
from mqtrio.hooks.events import DropReason
from mqtrio.state.index import Subscription
from mqtrio.state.message import Message
from mqtrio.state.session import Delivery, Session

if TYPE_CHECKING:
    from mqtrio.engine.core import Core

#: Retained messages replayed before others have their turn.
REPLAY_SLICE: Final = 256

#: What a search in them counts for in such a slice, and each time that it passed over very many
#: which don't match.
SEARCH: Final = 8
MISS: Final = 32

#: Expired messages dropped from a queue before others have their turn.
EXPIRED_SLICE: Final = 1000

#: Replayed messages that may wait in a session's queue; more are not fetched before.
REPLAY_AHEAD: Final = 256


class Deliveries:
    """Moves messages from queues into windows and out of them.

    `held` are the messages that memory holds, each counted once, however many have it, and
    `held_bytes` their payloads.
    """

    __slots__ = ("core", "held", "held_bytes")

    def __init__(self, core: "Core") -> None:
        self.core = core
        self.held = 0
        self.held_bytes = 0

    def hold(self, message: Message) -> None:
        """One more queue, window or topic holds `message`."""
        if message.references:
            self.core.memory += PLACE
        else:
            self.core.memory += PLACE + message.size
            self.held += 1
            self.held_bytes += len(message.payload)
        message.references += 1

    def let_go(self, message: Message) -> None:
        """One holder less; the last one sets the memory free, and the store."""
        core = self.core
        message.references -= 1
        if message.references:
            core.memory -= PLACE
        else:
            core.memory -= PLACE + message.size
            self.held -= 1
            self.held_bytes -= len(message.payload)
            if message.message_id:
                core.recorder.message_gone(message)

    def settle(self, session: Session, delivery: Delivery) -> None:
        """A session is done with a message of its queue or window, delivered or not."""
        if session.stored:
            self.core.recorder.settled(session, delivery)
        self.let_go(delivery.message)

    def drop(self, session: Session, message: Message, reason: DropReason) -> None:
        """Count and tell that a session does not get a message."""
        session.dropped += 1
        self.core.statistics.dropped[reason] += 1
        self.core.observers.dropped(session, message, reason)

    def drop_oldest(self, session: Session) -> bool:
        """Make room in a full queue: the first message goes that was never sent.

        False if memory has none such.
        """
        queue = session.queue
        for delivery in queue or ():
            if not delivery.sent:
                assert queue is not None
                queue.remove(delivery)
                session.queue_bytes -= delivery.message.size
                self.settle(session, delivery)
                self.drop(session, delivery.message, "queue_full")
                return True
        return False

    def drop_expired(self, session: Session) -> None:
        """Make room in a queue: what has expired goes, as far as memory has it."""
        queue = session.queue
        assert queue is not None
        now = self.core.now
        expired = [each for each in queue if not each.sent and each.message.expired(now)]
        if not expired:
            return
        gone = set(expired)
        kept = [each for each in queue if each not in gone]
        queue.clear()  # the same queue: somebody may be sending from it
        queue.extend(kept)
        session.queue_bytes = sum(each.message.size for each in kept)
        for delivery in expired:
            self.settle(session, delivery)
            self.drop(session, delivery.message, "expired")

    def resume(self, session: Session) -> None:
        """A client is back: first what was under way, then what waited [MQTT-4.4.0-1]."""
        outlet = session.outlet
        assert outlet is not None
        for packet_id in session.rewind():
            outlet.release(packet_id)
        self.pump(session)

    def pump(self, session: Session) -> None:
        """Send from the queue as much as the window and the outbox allow [MQTT-3.3.4-9]."""
        outlet = session.outlet
        if outlet is None:
            return
        core = self.core
        queue = session.queue
        inflight = session.inflight
        expired = size = 0
        # An observer that is told may end the connection.
        while (
            queue
            and not outlet.blocked
            and len(inflight) < session.window
            and session.outlet is outlet
        ):
            delivery = queue[0]
            if delivery.waits:
                break
            if expired >= EXPIRED_SLICE or size > core.limits.outbox_soft:
                outlet.again()
                break
            session.dequeue()
            core.work += 1  # with the acknowledgement before it, not more than a PUBLISH costs
            message = delivery.message
            size += message.size
            if not delivery.sent and message.expired(core.now):  # [MQTT-3.3.2-5], [MQTT-4.3.3-7]
                expired += 1
                self.settle(session, delivery)
                self.drop(session, message, "expired")
            elif session.stored and delivery.qos == 2 and not delivery.packet_id:
                session.open_flight(delivery)
                core.recorder.identified(session, delivery)
            elif (refused := outlet.transmit(delivery)) is not None:
                self.settle(session, delivery)
                self.drop(session, message, refused)
            elif core.hooks.delivered:
                core.observers.delivered(session, message, delivery.qos, delivery.retain)
        if session.outlet is not outlet:
            return
        if outlet.stalled is not None or outlet.slow:
            self._relieve(session)
        if session.unread is not None:
            core.pages.want(session)
        if session.replays and not outlet.blocked and session.waiting < REPLAY_AHEAD // 2:
            outlet.again()

    def go_on(self, session: Session) -> None:
        """A turn has come that `outlet.again` asked for."""
        if session.queue:
            self.pump(session)
        if session.replays:
            self.replay(session)

    def committed(self, session: Session, delivery: Delivery) -> None:
        """The store has a QoS 2 message: it goes out, if its turn has come already."""
        core = self.core
        outlet = session.outlet
        message = delivery.message
        if session.inflight.get(delivery.packet_id) is not delivery:
            self.pump(session)
        elif outlet is None or delivery.sent:
            return
        elif message.expired(core.now):
            self._give_up(session, delivery, "expired")
        elif (refused := outlet.transmit(delivery)) is not None:
            self._give_up(session, delivery, refused)
        elif core.hooks.delivered:
            core.observers.delivered(session, message, delivery.qos, delivery.retain)

    def _give_up(self, session: Session, delivery: Delivery, reason: DropReason) -> None:
        """Drop what was never sent, though it has its place in the window already."""
        del session.inflight[delivery.packet_id]
        self.settle(session, delivery)
        self.drop(session, delivery.message, reason)
        self.pump(session)

    def _relieve(self, session: Session) -> None:
        outlet = session.outlet
        assert outlet is not None
        if not outlet.blocked and session.waiting <= self.core.limits.stall_messages // 2:
            self.core.pressure.relieved(outlet)

    def replay(self, session: Session) -> None:
        """Send the next retained messages of a new subscription (3.3.1.3), a slice at a time."""
        outlet = session.outlet
        replays = session.replays
        if outlet is None or not replays:
            return
        limits = self.core.limits
        spent = size = 0
        while replays and spent < REPLAY_SLICE and size <= limits.outbox_soft:
            spent += SEARCH
            subscription, messages = replays[0]
            if session.subscriptions.get(subscription.topic_filter) is not subscription:
                replays.popleft()  # it was ended or replaced meanwhile [MQTT-3.10.4-2]
                continue
            for message in messages:
                if message is None:
                    spent += MISS
                else:
                    spent += 1
                    size += message.size
                    self._replay_one(session, subscription, message)
                if session.outlet is not outlet:
                    return  # an observer has ended the connection
                if outlet.blocked or session.waiting >= REPLAY_AHEAD:
                    self.core.work += 16 * spent
                    return
                if spent >= REPLAY_SLICE or size > limits.outbox_soft:
                    break
            else:
                replays.popleft()
        self.core.work += 16 * spent
        if replays:
            outlet.again()
        else:
            session.replays = None

    def _replay_one(self, session: Session, subscription: Subscription, message: Message) -> None:
        core = self.core
        if message.expired(core.now):
            return
        copy = core.router.filtered(subscription, message)
        if copy is None:
            self.drop(session, message, "delivery_filter")
            return
        core.statistics.messages_sent += 1
        identifiers = (subscription.identifier,) if subscription.identifier else ()
        # [MQTT-3.3.1-8 of 3.1.1]: RETAIN is 1 whatever was published.
        core.router.give(session, copy, min(copy.qos, subscription.qos), True, identifiers)
        message.frames = None  # as long as its payload, and not counted
