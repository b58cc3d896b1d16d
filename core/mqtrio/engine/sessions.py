"""The sessions of a broker: who holds which, how they are claimed, left and ended (4.1, 3.1.4)."""

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

import trio

from mqtrio.engine.router import has_room
from mqtrio.engine.timers import Timer
from mqtrio.engine.weights import RECEIPT, of_session
from mqtrio.errors import ProtocolError, RefusedError
from mqtrio.hooks.answers import ClientLimits
from mqtrio.hooks.events import SessionEnd, SessionEndedEvent
from mqtrio.reasons import ReasonCode
from mqtrio.state.session import Delivery, Session
from mqtrio.store.batch import COMMITTED, Batch

if TYPE_CHECKING:
    from mqtrio.engine.connection import Connection
    from mqtrio.engine.core import Core


#: Subscriptions of an ended session that are taken away in one go.
UNSUBSCRIBED: Final = 500

NO_LIMITS: Final = ClientLimits()


class LocalSubscriber(Protocol):
    """A program of this process that holds a session."""

    def close(self, error: Exception) -> None:
        """No more messages will come; `error` says why."""
        ...


class Claim:
    """A session that a connection has been given.

    `present` if it existed before; `ended` is what the end of an earlier one waits for.
    """

    __slots__ = ("session", "present", "ended")

    def __init__(self, session: Session, present: bool, ended: Batch) -> None:
        self.session = session
        self.present = present
        self.ended = ended


class Sessions:
    """All sessions by client identifier, and the connections that hold them now."""

    __slots__ = ("core", "by_id", "holders", "local", "reloading", "_timers")

    def __init__(self, core: "Core") -> None:
        self.core = core
        self.by_id: dict[str, Session] = {}
        self.holders: dict[str, Connection] = {}
        #: The programs of this process that hold sessions, from their first step on.
        self.local: dict[Session, LocalSubscriber] = {}
        #: Client identifiers whose sessions are being loaded again after a failed commit.
        self.reloading: set[str] = set()
        self._timers: dict[Session, Timer] = {}

    # -- beginning

    def claim(self, connection: "Connection", clean_start: bool) -> Claim:
        """Give `connection` the session of its client identifier, taking it over where needed.

        Nothing changes if the claim is refused: raises ProtocolError 0x85 for a session that
        belongs to another user, and 0x89 for a CONNECT older than the one that holds the session.
        [MQTT-3.1.4-3], [MQTT-3.1.2-4] to [MQTT-3.1.2-6]
        """
        client_id = connection.client_id
        session = self.by_id.get(client_id)
        holder = self.holders.get(client_id)
        self._check(session, holder, connection)
        if holder is not None:
            holder.close(ReasonCode.SESSION_TAKEN_OVER, "session taken over")
            session = self.by_id.get(client_id)
        present = session is not None and not clean_start
        ended = COMMITTED
        if session is not None and clean_start:
            ended = self.end(session, "clean_start")
            self.core.wills.session_ended(client_id)
        self.core.wills.cancel(client_id)  # [MQTT-3.1.3-9]
        if session is None or not present:
            session = Session(client_id, connection.username, connection.decoder.version)
            self.add(session)
        session.epoch += 1
        session.expires_at = -1.0
        self._stop_timer(session)
        self.holders[client_id] = connection
        return Claim(session, present, ended)

    def add(self, session: Session) -> None:
        """A new session is known from now on; see `forget`."""
        self.by_id[session.client_id] = session
        self.core.memory += of_session(session)

    def capped_expiry(self, interval: int, limits: ClientLimits | None) -> int:
        """The session expiry interval that is granted (3.2.2.3.2)."""
        own = None if limits is None else limits.maximum_expiry_interval
        for cap in (self.core.settings.session.maximum_expiry_interval, own):
            if cap is not None:
                interval = min(interval, cap)
        return interval

    def set_bounds(self, session: Session, limits: ClientLimits | None) -> None:
        """How much may wait in a session."""
        own = limits or NO_LIMITS
        common = self.core.limits
        session.queue_limit = (
            common.queue_messages if own.queue_messages is None else own.queue_messages
        )
        session.queue_bytes_limit = (
            common.queue_bytes if own.queue_bytes is None else own.queue_bytes
        )

    def _check(
        self, session: Session | None, holder: "Connection | None", connection: "Connection"
    ) -> None:
        core = self.core
        if connection.client_id in self.reloading:
            raise ProtocolError(ReasonCode.SERVER_UNAVAILABLE, "the session is being restored")
        if session is None:
            if len(self.by_id) >= core.limits.sessions:
                raise ProtocolError(ReasonCode.QUOTA_EXCEEDED, "the broker has too many sessions")
            if core.memory > core.limits.memory:
                raise ProtocolError(ReasonCode.QUOTA_EXCEEDED, "the broker's memory is used up")
        elif core.settings.session.owner == "user" and session.username != connection.username:
            raise ProtocolError(
                ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "the client identifier is not yours"
            )
        if holder is not None and holder.arrival > connection.arrival:
            raise ProtocolError(ReasonCode.SERVER_BUSY, "a newer CONNECT holds the session")

    # -- leaving

    def left(self, connection: "Connection") -> None:
        """A connection that held a session is gone: the session waits for the next, or ends."""
        session = connection.session
        if session is None or self.holders.get(connection.client_id) is not connection:
            return
        core = self.core
        del self.holders[connection.client_id]
        session.outlet = None
        if session.reloading:
            return
        if session.ends_with_connection:
            core.wills.left(connection, session_ends=True)
            self.end(session, "disconnected")
            return
        if session.stored:
            core.recorder.session_left(session)
        core.wills.left(connection, session_ends=False)
        self.wait_for_client(session, core.now)
        self._share_again(session, ended=False)
        core.pages.trim(session)

    def wait_for_client(self, session: Session, left: float) -> None:
        """A session's connection ended at `left`: its expiry interval runs from there."""
        session.disconnected(left)
        if session.expires_at >= 0:
            self._timers[session] = self.core.timers.call_at(
                session.expires_at, lambda now: self._expire(session)
            )

    def _stop_timer(self, session: Session) -> None:
        timer = self._timers.pop(session, None)
        if timer is not None:
            self.core.timers.cancel(timer)

    def change_expiry(self, connection: "Connection", interval: int) -> None:
        """DISCONNECT carries another session expiry interval (3.14.2.2.2)."""
        session = connection.session
        assert session is not None
        session.expiry_interval = self.capped_expiry(interval, connection.limits)
        if session.stored:
            self.core.recorder.session_opened(connection, session, COMMITTED)

    def _expire(self, session: Session) -> None:
        self.end(session, "expired")
        self.core.wills.session_ended(session.client_id)

    def remove(self, session: Session) -> None:
        """End a session because somebody in charge wants it."""
        self.end(session, "administrative")
        self.core.wills.session_ended(session.client_id)

    def end(self, session: Session, reason: SessionEnd) -> Batch:
        """Throw a session away with all it holds [MQTT-4.1.0-2]; returns its batch."""
        core = self.core
        self.forget(session)
        if session.unread is not None:
            batch = core.ended.add(session)
        elif session.stored:
            batch = core.recorder.session_ended(session)
        else:
            batch = COMMITTED
        session.stored = False
        self._share_again(session, ended=True)
        for delivery in session.deliveries():
            if not delivery.sent:  # of what was sent nobody knows whether it arrived
                core.deliveries.drop(session, delivery.message, "session_ended")
        self.empty(session)
        if core.hooks.session_ended:
            core.hooks.notify(
                core.hooks.session_ended,
                SessionEndedEvent(core.observers.client_of(session), reason),
            )
        return batch

    def forget(self, session: Session) -> None:
        """A session is no longer known, and nothing is routed to it."""
        del self.by_id[session.client_id]
        self.core.memory -= of_session(session)
        session.ended = True
        self.close_local(
            session, RefusedError(ReasonCode.ADMINISTRATIVE_ACTION, "the session has been ended")
        )
        self._stop_timer(session)
        few = len(session.subscriptions) <= UNSUBSCRIBED
        if few or not self.core.spawn(self._unsubscribe, session):
            for topic_filter in list(session.subscriptions):
                self.core.router.remove(session, topic_filter)

    async def _unsubscribe(self, session: Session) -> None:
        """Take the many subscriptions of an ended session away, and let others have their turns."""
        while session.subscriptions:
            for topic_filter in list(islice(session.subscriptions, UNSUBSCRIBED)):
                self.core.router.remove(session, topic_filter)
            await trio.lowlevel.checkpoint()

    def close_local(self, session: Session, error: Exception) -> None:
        """Tell the program of this process that holds a session, if one does, that it is over."""
        subscriber = self.local.pop(session, None)
        if subscriber is not None:
            session.outlet = None
            subscriber.close(error)

    def empty(self, session: Session) -> None:
        """Let go of all that a session was to get."""
        deliveries = self.core.deliveries
        for delivery in session.deliveries():
            deliveries.settle(session, delivery)
        session.inflight.clear()
        session.queue = None
        session.queue_bytes = 0
        session.unread = None
        self.core.memory -= RECEIPT * len(session.received or ())
        session.received = None
        session.replays = None

    def _share_again(self, session: Session, ended: bool) -> None:
        """Let other members of shared subscriptions have what this one did not acknowledge.

        What it was sent at QoS 2 stays with it [MQTT-4.8.2-4], [MQTT-4.8.2-5]; the rest moves to a
        member that has room now, and if the session has ended to any member.
        """
        shared: list[Delivery] = [
            delivery
            for delivery in session.deliveries()
            if delivery.group is not None and not (delivery.sent and delivery.qos == 2)
        ]
        core = self.core
        moved: set[Delivery] = set()
        for delivery in shared:
            group = delivery.group
            assert group is not None
            if not ended and not any(map(has_room, group.members.values())):
                break
            if session.inflight.get(delivery.packet_id) is delivery:
                del session.inflight[delivery.packet_id]
            else:
                moved.add(delivery)
            core.router.share(group, delivery.message)
            core.deliveries.settle(session, delivery)
        if moved and session.queue is not None:  # all at once: one by one takes quadratic time
            session.queue = deque(kept for kept in session.queue if kept not in moved)
            session.queue_bytes = sum(kept.message.size for kept in session.queue)
