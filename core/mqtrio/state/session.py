"""Session state (4.1): what outlives a connection, as values; time comes from outside."""

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from mqtrio.state.message import Message
from mqtrio.state.unread import Unread
from mqtrio.wire.packets import NEVER_EXPIRES

if TYPE_CHECKING:
    from mqtrio.state.index import ShareGroup, Subscription

#: Client identifiers of subscribers in this process begin so; no client from outside has one.
LOCAL_PREFIX: Final = "$local/"

#: Under such names a store keeps the queues of ended sessions until they are dealt with.
ENDED_PREFIX: Final = "$ended/"

# How a session's messages must be written while it is connected.
WIRE_3: Final = 0  # MQTT 3.1 and 3.1.1: one frame serves all
WIRE_5: Final = 1  # MQTT 5: one frame serves all
WIRE_OWN: Final = 2  # topic aliases, a maximum packet size or a mount point: a frame each
LOCAL: Final = 3  # a subscriber in this process: no frame at all


#: Why a message does not reach a session that is connected.
NotTaken = Literal["outbox_full", "packet_too_large", "mount_point"]


class Outlet(Protocol):
    """Where a session's messages go while somebody is there to take them."""

    out: list[bytes]
    blocked: bool
    slow: bool
    progress: int
    settled: int
    stalled: list[Any] | None

    def room(self, size: int) -> bool:
        """Whether a QoS 0 frame of `size` bytes may still be added while blocked."""
        ...

    def pass_on(
        self, message: Message, retain: bool, identifiers: tuple[int, ...]
    ) -> NotTaken | None:
        """Hand over a message at QoS 0; returns why it had to be dropped, None if it hadn't."""
        ...

    def transmit(self, delivery: "Delivery") -> NotTaken | None:
        """Hand over a message at QoS 1 or 2; returns why it can never be taken, None if it was."""
        ...

    def release(self, packet_id: int) -> None:
        """Go on with the QoS 2 exchange: PUBREL."""
        ...

    def again(self) -> None:
        """Let the rest of a long replay go on in a later turn."""
        ...


class Delivery:
    """One message for one session at QoS 1 or 2, from the queue to its last acknowledgement.

    `sequence` is its place in the session's queue. `waits`: the store has not confirmed it yet and
    it must not be sent before. `released`: PUBREC has come, PUBREL is out. `group` is the shared
    subscription that chose this session.
    """

    __slots__ = (
        "message",
        "qos",
        "retain",
        "identifiers",
        "group",
        "sequence",
        "packet_id",
        "sent",
        "released",
        "waits",
    )

    def __init__(
        self,
        message: Message,
        qos: int,
        retain: bool,
        identifiers: tuple[int, ...],
        group: "ShareGroup | None" = None,
    ) -> None:
        self.message = message
        self.qos = qos
        self.retain = retain
        self.identifiers = identifiers
        self.group = group
        self.sequence = 0
        self.packet_id = 0
        self.sent = False
        self.released = False
        self.waits = False


class Session:
    """The state that the server keeps for one client identifier.

    `expiry_interval` in seconds (0: ends with the connection, NEVER_EXPIRES: never);
    `expires_at` in monotonic seconds while nobody is connected. `username` is the owner. `epoch`
    counts the claims on it: who holds an older epoch has lost the session. `subscriptions` are by
    topic filter; `renamed` leads from the filters that the client sent to what plugins have made
    of them. `queue` is what waits in memory, `unread` what waits behind it in the store only;
    `look_at` is when to look for expired messages again while it is full. `stored`: the store
    knows it; `reloading`: memory and store disagree, it takes nothing; `ended`: it is no more.
    """

    __slots__ = (
        "client_id",
        "username",
        "version",
        "expiry_interval",
        "expires_at",
        "epoch",
        "subscriptions",
        "renamed",
        "received",
        "inflight",
        "queue",
        "queue_bytes",
        "unread",
        "look_at",
        "window",
        "queue_limit",
        "queue_bytes_limit",
        "profile",
        "outlet",
        "replays",
        "stored",
        "reloading",
        "ended",
        "dropped",
        "_packet_id",
        "_sequence",
    )

    def __init__(self, client_id: str, username: str | None, version: int) -> None:
        self.client_id = client_id
        self.username = username
        self.version = version
        self.expiry_interval = 0
        self.expires_at = -1.0
        self.epoch = 0
        self.subscriptions: dict[str, Subscription] = {}
        self.renamed: dict[str, str] | None = None
        self.received: set[int] | None = None
        self.inflight: dict[int, Delivery] = {}
        self.queue: deque[Delivery] | None = None
        self.queue_bytes = 0
        self.unread: Unread | None = None
        self.look_at = 0.0
        self.window = 0
        self.queue_limit = 0
        self.queue_bytes_limit = 0
        self.profile = WIRE_3
        self.outlet: Outlet | None = None
        self.replays: deque[tuple[Subscription, Iterator[Message | None]]] | None = None
        self.stored = False
        self.reloading = False
        self.ended = False
        self.dropped = 0
        self._packet_id = 0
        self._sequence = 0

    # -- lifetime

    @property
    def ends_with_connection(self) -> bool:
        """Whether nothing is kept once the connection is closed."""
        return self.expiry_interval == 0

    def disconnected(self, now: float) -> None:
        """The connection is gone: the session expiry interval begins to run."""
        never = self.expiry_interval == NEVER_EXPIRES
        # A moment before the clock began is past all the same; below 0 would mean never.
        self.expires_at = -1.0 if never else max(0.0, now + self.expiry_interval)

    # -- subscriptions

    def subscribe(self, subscription: "Subscription") -> None:
        """Note a subscription in the place of an older one to the same topic filter."""
        topic_filter = subscription.topic_filter
        self._forget_name(self.subscriptions.get(topic_filter))
        self.subscriptions[topic_filter] = subscription
        if subscription.sent != topic_filter:
            if self.renamed is None:
                self.renamed = {}
            self.renamed[subscription.sent] = topic_filter

    def unsubscribe(self, topic_filter: str) -> "Subscription | None":
        """Forget the subscription to exactly this topic filter; returns it, or None."""
        subscription = self.subscriptions.pop(topic_filter, None)
        self._forget_name(subscription)
        return subscription

    def _forget_name(self, subscription: "Subscription | None") -> None:
        if subscription is None or subscription.sent == subscription.topic_filter:
            return
        assert self.renamed is not None
        del self.renamed[subscription.sent]
        if not self.renamed:
            self.renamed = None

    def subscription_sent_as(self, sent: str) -> "Subscription | None":
        """The subscription for which the client has sent this topic filter, or None."""
        topic_filter = sent if self.renamed is None else self.renamed.get(sent, sent)
        subscription = self.subscriptions.get(topic_filter)
        return subscription if subscription is not None and subscription.sent == sent else None

    # -- incoming QoS 2

    def begin_receipt(self, packet_id: int) -> bool:
        """Note the identifier of a QoS 2 PUBLISH; False if it is a repetition [MQTT-4.3.3-10]."""
        received = self.received
        if received is None:
            received = self.received = set()
        if packet_id in received:
            return False
        received.add(packet_id)
        return True

    def end_receipt(self, packet_id: int) -> bool:
        """PUBREL came, or the message was refused: the identifier is free; False if unknown."""
        received = self.received
        if received is None or packet_id not in received:
            return False
        received.discard(packet_id)
        return True

    # -- outgoing QoS 1 and 2

    @property
    def full(self) -> bool:
        """Whether the queue is at its limit, in messages or in bytes."""
        queue = self.queue
        if self.unread is not None:
            return self.waiting >= self.queue_limit or self.waiting_bytes >= self.queue_bytes_limit
        return queue is not None and (
            len(queue) >= self.queue_limit or self.queue_bytes >= self.queue_bytes_limit
        )

    @property
    def waiting(self) -> int:
        """Messages that wait to be sent."""
        waiting = len(self.queue) if self.queue is not None else 0
        unread = self.unread
        return waiting if unread is None else waiting + unread.count

    @property
    def waiting_bytes(self) -> int:
        """What the messages that wait count for in the limits."""
        unread = self.unread
        return self.queue_bytes if unread is None else self.queue_bytes + unread.size

    def next_sequence(self) -> int:
        """The place of the next message in this session's queue; never used twice."""
        self._sequence += 1
        return self._sequence

    def continue_sequence(self, highest: int) -> None:
        """The queue had messages up to this place before."""
        self._sequence = max(self._sequence, highest)

    def enqueue(self, delivery: Delivery) -> None:
        """Put a message at the end of the queue."""
        if self.queue is None:
            self.queue = deque()
        self.queue.append(delivery)
        self.queue_bytes += delivery.message.size

    def dequeue(self) -> Delivery:
        """Take the first message from the queue; it must not be empty."""
        assert self.queue
        delivery = self.queue.popleft()
        self.queue_bytes -= delivery.message.size
        return delivery

    def open_flight(self, delivery: Delivery) -> int:
        """Move a message into the window; returns its packet identifier, a free one if it is new.

        [MQTT-2.2.1-4], [MQTT-4.3.2-1], [MQTT-4.3.3-1]
        """
        packet_id = delivery.packet_id
        inflight = self.inflight
        if not packet_id:
            packet_id = self._packet_id
            while True:
                packet_id = packet_id % 65535 + 1
                if packet_id not in inflight:
                    break
            self._packet_id = delivery.packet_id = packet_id
        inflight[packet_id] = delivery
        return packet_id

    def rewind(self) -> list[int]:
        """Prepare for a new connection: what was under way stands in front of the queue again.

        Returns the identifiers of those QoS 2 exchanges that go on with PUBREL [MQTT-4.4.0-1].
        """
        releases: list[int] = []
        again: list[Delivery] = []
        for packet_id, delivery in self.inflight.items():
            if delivery.released:
                releases.append(packet_id)
            else:
                again.append(delivery)
        if again:
            if self.queue is None:
                self.queue = deque()
            for delivery in reversed(again):
                del self.inflight[delivery.packet_id]
                self.queue.appendleft(delivery)
                self.queue_bytes += delivery.message.size
        return releases

    def deliveries(self) -> list[Delivery]:
        """Everything under way or waiting that memory has, in order."""
        waiting = list(self.queue) if self.queue is not None else []
        return [*self.inflight.values(), *waiting]

    def __repr__(self) -> str:
        return f"Session({self.client_id!r}, version={self.version})"
