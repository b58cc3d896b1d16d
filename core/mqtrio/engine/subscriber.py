"""The subscriber of this process: messages come out of it as an asynchronous iterator."""

from collections import deque
from collections.abc import Awaitable, Generator
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio
from attrs import define, field

from mqtrio.engine.link import Link
from mqtrio.state.message import OVERHEAD, Message
from mqtrio.state.session import LOCAL, Delivery, NotTaken, Session
from mqtrio.wire.packets import MQTT_5, UserProperties

if TYPE_CHECKING:
    from mqtrio.engine.core import Core


class Acknowledger(Protocol):
    """Who is told that a message is dealt with."""

    def acknowledge(self, delivery: Delivery) -> None:
        """A message of a durable session is dealt with."""


class Done:
    """An awaitable of every asynchronous library that never waits."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


DONE: Final = Done()


@define(eq=False)
class ReceivedMessage:
    """A message as a subscriber of this process gets it.

    `retain` is True for a message that was retained before the subscription began.
    `message_expiry_interval` is what is left of its lifetime, in seconds.
    """

    topic: str
    payload: bytes = field(repr=False)
    qos: int = 0
    retain: bool = False
    payload_format_indicator: int | None = None
    message_expiry_interval: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = field(default=None, repr=False)
    user_properties: UserProperties = ()
    subscription_identifiers: tuple[int, ...] = ()
    #: Client identifier of the publisher; "" for the broker and its own program.
    publisher: str = ""
    _subscriber: Acknowledger | None = field(default=None, repr=False, alias="subscriber")
    _delivery: Delivery | None = field(default=None, repr=False, alias="delivery")

    def ack(self) -> Awaitable[None]:
        """The message is dealt with: a durable session will not get it again.

        It is done when this returns; `await` it or not, in Trio, in asyncio and in neither. Does
        nothing for a message of a subscriber without a session, or one acknowledged before.
        """
        if self._delivery is not None and self._subscriber is not None:
            delivery, self._delivery = self._delivery, None
            self._subscriber.acknowledge(delivery)
        return DONE


def received(
    message: Message, retain: bool, identifiers: tuple[int, ...], now: float
) -> ReceivedMessage:
    """What a subscriber sees of a message."""
    received = ReceivedMessage(
        message.topic, message.payload, message.qos, retain, publisher=message.client_id
    )
    received.subscription_identifiers = identifiers
    properties = message.properties
    if properties is not None:
        received.payload_format_indicator = properties.payload_format_indicator
        received.content_type = properties.content_type
        received.response_topic = properties.response_topic
        received.correlation_data = properties.correlation_data
        received.user_properties = properties.user_properties
    if message.expires_at >= 0:
        received.message_expiry_interval = max(0, int(message.expires_at - now + 0.999))
    return received


class Subscriber:
    """The receiving end of an in-process subscription: an asynchronous iterator of messages.

    It is bounded. Without a session, messages that find it full are dropped and counted in
    `dropped`; with one they wait in the session's queue. Either way others go on.
    """

    __slots__ = (
        "_core",
        "_buffer",
        "_size",
        "_arrived",
        "_error",
        "timeout",
        "session",
        "dropped",
        "out",
        "blocked",
        "slow",
        "progress",
        "settled",
        "stalled",
        "link",
    )

    def __init__(
        self, core: "Core", session: Session, size: int, timeout: float | None = None
    ) -> None:
        self._core = core
        #: Seconds without a message after which the iteration ends; None for never.
        self.timeout = timeout
        self._buffer: deque[ReceivedMessage] = deque()
        self._size = size
        self._arrived = trio.Event()
        self._error: Exception | None = None
        self.session = session
        #: Messages that it did not get because it was full.
        self.dropped = 0
        # What the engine sees of an outlet; `out` stays empty.
        self.out: list[bytes] = []
        self.blocked = False
        self.slow = False
        self.progress = 0
        self.settled = 0
        self.stalled: list[Any] | None = None
        self.link: Link | None = None
        session.profile = LOCAL
        session.version = MQTT_5
        session.window = size

    # -- the program's side

    def __aiter__(self) -> "Subscriber":
        return self

    async def __anext__(self) -> ReceivedMessage:
        """The next message, as `receive` gives it; no more come after `timeout` of `subscribe`."""
        try:
            return await self.receive(timeout=self.timeout)
        except trio.TooSlowError:
            raise StopAsyncIteration from None

    async def receive(self, *, timeout: float | None = None) -> ReceivedMessage:
        """The next message.

        Raises trio.TooSlowError when none has come for `timeout` seconds, BrokerStopped when the
        broker ends under way, RefusedError when the session was ended, StoreError when it could not
        be stored (its messages come again to the next subscriber), and trio.ClosedResourceError
        when the block has been left.
        """
        await trio.lowlevel.checkpoint()
        if not self.ready:
            await self.wait(timeout)
        return self.take()

    # -- for those who take messages without Trio

    def __len__(self) -> int:
        """How many messages can be taken now."""
        return len(self._buffer)

    @property
    def ready(self) -> bool:
        """Whether `take` has something to say."""
        return bool(self._buffer) or self._error is not None

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until it is `ready`; raises trio.TooSlowError after `timeout` seconds."""
        if timeout is not None:
            with trio.fail_after(timeout):
                await self.wait()
        while not self.ready:
            if self._arrived.is_set():
                self._arrived = trio.Event()
            await self._arrived.wait()

    def take(self) -> ReceivedMessage:
        """The next message, which must be there; or raises what has ended the subscription."""
        if not self._buffer and self._error is not None:
            raise self._error
        message = self._buffer.popleft()
        self.progress += len(message.payload) + OVERHEAD
        if message._delivery is not None and self.session.ends_with_connection:
            # Nobody could get it again, so taking it is acknowledging it.
            delivery, message._delivery = message._delivery, None
            self.acknowledge(delivery)
        if self.blocked and len(self._buffer) <= self._size // 2:
            self.blocked = False
            self._core.turn(self._core.deliveries.pump, self.session)
        return message

    def acknowledge(self, delivery: Delivery) -> None:
        """A message of a durable session is dealt with."""
        session = self.session
        if session.inflight.get(delivery.packet_id) is delivery:
            self.settled += delivery.message.size
            del session.inflight[delivery.packet_id]
            self._core.deliveries.settle(session, delivery)
            self._core.turn(self._core.deliveries.pump, session)

    def close(self, error: Exception) -> None:
        """No more messages will come; who waits for one is told by `error`."""
        self._error = error
        self._arrived.set()

    def leave(self) -> None:
        """The program listens no more: what it has not taken is for the session's next."""
        self._buffer.clear()
        self.close(trio.ClosedResourceError("the subscription has ended"))

    # -- the engine's side

    def room(self, size: int) -> bool:
        """Never asked: frames don't come here."""
        return False

    def _put(self, message: ReceivedMessage) -> None:
        self._buffer.append(message)
        if len(self._buffer) >= self._size:
            self.blocked = True
        self._arrived.set()

    def pass_on(
        self, message: Message, retain: bool, identifiers: tuple[int, ...]
    ) -> NotTaken | None:
        """Take a message at QoS 0, if there is room."""
        if len(self._buffer) >= self._size:
            self.dropped += 1
            return "outbox_full"
        self._put(received(message, retain, identifiers, self._core.now))
        return None

    def transmit(self, delivery: Delivery) -> NotTaken | None:
        """Take a message at QoS 1 or 2, to be acknowledged."""
        session = self.session
        message = received(delivery.message, delivery.retain, delivery.identifiers, self._core.now)
        message.qos = delivery.qos
        session.open_flight(delivery)
        delivery.sent = True
        message._subscriber = self
        message._delivery = delivery
        self._put(message)
        return None

    def release(self, packet_id: int) -> None:
        """A QoS 2 exchange within one process is over with its acknowledgement."""

    def again(self) -> None:
        """Go on with a replay of retained messages in a later turn."""
        self._core.spawn(self._replay)

    async def _replay(self) -> None:
        await trio.lowlevel.checkpoint()
        self._core.turn(self._core.deliveries.go_on, self.session)
