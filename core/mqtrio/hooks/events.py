"""What hooks are told: one event for each hook, so that a new field never breaks a signature.

Events are to be read, never to be written: all who are asked share one. Whoever wants something
changed answers with a changed copy (`PublishEvent.changed`, `SubscribeEvent.changed`). The event of
each message is a plain slotted class, for its cost; the others are attrs values.

Passwords, authentication data and payloads are left out of every repr.
"""

from typing import Any, Final, Literal

import attrs
from attrs import define, field

from mqtrio.hooks.client import ClientFacts
from mqtrio.hooks.credentials import PeerCredentials
from mqtrio.hooks.peer import HttpFacts, TlsFacts
from mqtrio.wire.packets import PublishProperties, UserProperties, Will

#: The door by which a message came: a connected client; the will of one that is gone; the program
#: that the broker is a part of; the broker itself ($SYS); a bridge to another broker.
Origin = Literal["client", "will", "local", "system", "bridge"]

#: Why a message didn't reach somebody it was for.
DropReason = Literal[
    "queue_full",  # the session's queue is at its limit
    "outbox_full",  # QoS 0 for a client that takes its bytes too slowly
    "memory",  # the budget for all clients together is spent
    "expired",  # its message expiry interval has passed
    "packet_too_large",  # larger than the client's maximum packet size
    "mount_point",  # its topic is none that clients of that mount point can see
    "transform",  # a transform_publish answered Drop
    "refused",  # a will, or a message of the broker itself, was refused: nobody waits to hear of it
    "delivery_filter",  # a filter from compile_delivery dropped it (or failed)
    "session_ended",  # the session it waited for is gone
    "store_failed",  # the store could not take it
]

#: Why a delivery filter is asked for.
DeliveryReason = Literal["subscribe", "resume", "reload", "reauthenticate"]

#: Why a session has ended.
SessionEnd = Literal["disconnected", "expired", "clean_start", "administrative", "store_failed"]

#: How a hook failed: it raised, its deadline passed, or its answer makes no sense.
FailureKind = Literal["raised", "timeout", "answer"]

_KEEP: Final[Any] = object()


class Event:
    """Base of all events."""

    __slots__ = ()


class ClientEvent(Event):
    """Base of the events of one connection: short ways to the facts of its client."""

    __slots__ = ()

    client: ClientFacts

    @property
    def client_id(self) -> str:
        """The client identifier; "" while the client has none."""
        return self.client.client_id

    @property
    def username(self) -> str | None:
        """Who the client is; None for an anonymous one."""
        return self.client.username

    @property
    def address(self) -> str:
        """Where the client comes from, as text; "" for none."""
        return self.client.address

    @property
    def protocol_version(self) -> int:
        """3 (MQTT 3.1), 4 (3.1.1) or 5; 0 before CONNECT."""
        return self.client.protocol_version

    @property
    def listener(self) -> str:
        """The URL of the listener that the client came by; "" for none."""
        return self.client.listener

    @property
    def tls(self) -> TlsFacts | None:
        """What TLS knows of the peer; None without TLS."""
        return self.client.tls

    @property
    def http(self) -> HttpFacts | None:
        """The request by which the client's WebSocket was opened; None without one."""
        return self.client.http

    @property
    def credentials(self) -> PeerCredentials | None:
        """The process at the other end of a Unix socket; None elsewhere."""
        return self.client.credentials


# --- decide --------------------------------------------------------------------------------------


@define(frozen=True)
class AcceptEvent(ClientEvent):
    """A connection has come in; not a byte of it was read.

    Of the `client` only address and listener are known; the later events of the connection have the
    same one, so what a ConnectionSlot holds for it stays.
    """

    client: ClientFacts


@define(frozen=True)
class AuthenticateEvent(ClientEvent):
    """A client wants to be let in (CONNECT, or an AUTH that continues or repeats it).

    `client_id` and `username` are what the client says; "" asks for an assigned identifier.
    `method` and `data` belong to the enhanced authentication of MQTT 5, `round` counts its
    events from 0. `reauthenticating`: the client is in already and stays in while this goes on.
    """

    client: ClientFacts
    password: bytes | None = field(default=None, repr=False)
    method: str | None = None
    data: bytes | None = field(default=None, repr=False)
    round: int = 0
    reauthenticating: bool = False
    clean_start: bool = True
    keep_alive: int = 0
    session_expiry_interval: int = 0
    will: Will | None = None
    user_properties: UserProperties = ()


@define(frozen=True)
class AdmitEvent(ClientEvent):
    """Who the client is has been decided, and nothing has changed yet.

    No session was taken over, resumed or ended.
    """

    client: ClientFacts
    clean_start: bool = True
    keep_alive: int = 0
    session_expiry_interval: int = 0
    will: Will | None = None
    user_properties: UserProperties = ()


class PublishEvent(ClientEvent):
    """A message on its way: from a client, a will, this process, the broker itself or a bridge.

    `client` is the publisher. `topic` is never empty (an alias has been resolved), `properties`
    None where there are none; of them topic alias and subscription identifiers mean nothing here.
    `throttle` is for the broker: the longest pause in seconds that a transform has asked for.
    """

    __slots__ = (
        "client",
        "topic",
        "payload",
        "qos",
        "retain",
        "properties",
        "origin",
        "throttle",
        "scratch",
    )

    def __init__(
        self,
        client: ClientFacts,
        topic: str,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,
        properties: PublishProperties | None = None,
        origin: Origin = "client",
    ) -> None:
        self.client = client
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties
        self.origin = origin
        self.throttle = 0.0
        self.scratch: dict[object, Any] | None = None

    def changed(
        self,
        *,
        topic: str = _KEEP,
        payload: bytes = _KEEP,
        qos: int = _KEEP,
        retain: bool = _KEEP,
        properties: PublishProperties | None = _KEEP,
    ) -> "ChangedMessage":
        """The same message with other values: what a transform or a delivery filter answers.

        `properties` replaces all of them; `with_properties` changes some. The broker checks the
        result as it checks a packet: a bad topic or value rejects the message.
        """
        return ChangedMessage(
            self,
            self.topic if topic is _KEEP else topic,
            self.payload if payload is _KEEP else payload,
            self.qos if qos is _KEEP else qos,
            self.retain if retain is _KEEP else retain,
            self.properties if properties is _KEEP else properties,
        )

    def with_properties(
        self,
        *,
        payload_format_indicator: int | None = _KEEP,
        message_expiry_interval: int | None = _KEEP,
        content_type: str | None = _KEEP,
        response_topic: str | None = _KEEP,
        correlation_data: bytes | None = _KEEP,
        user_properties: UserProperties = _KEEP,
    ) -> PublishProperties:
        """The message's properties with some of them changed, for `changed(properties=...)`."""
        old = self.properties or PublishProperties()
        return PublishProperties(
            old.payload_format_indicator
            if payload_format_indicator is _KEEP
            else payload_format_indicator,
            old.message_expiry_interval
            if message_expiry_interval is _KEEP
            else message_expiry_interval,
            old.content_type if content_type is _KEEP else content_type,
            old.response_topic if response_topic is _KEEP else response_topic,
            old.correlation_data if correlation_data is _KEEP else correlation_data,
            old.user_properties if user_properties is _KEEP else user_properties,
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(client_id={self.client_id!r}, topic={self.topic!r}, "
            f"qos={self.qos}, retain={self.retain}, origin={self.origin!r}, "
            f"payload of {len(self.payload)} bytes)"
        )


class ChangedMessage(PublishEvent):
    """A message that a transform has changed: the event that the next transform sees.

    Made by `PublishEvent.changed` only. Publisher, origin and message slots are the original's.
    """

    __slots__ = ()

    def __init__(
        self,
        original: PublishEvent,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        properties: PublishProperties | None,
    ) -> None:
        super().__init__(original.client, topic, payload, qos, retain, properties, original.origin)
        if original.scratch is None:
            original.scratch = {}
        self.scratch = original.scratch


@define(frozen=True)
class SubscribeEvent(ClientEvent):
    """A client wants to subscribe to one topic filter (each filter of a SUBSCRIBE is one event).

    `topic_filter` is as sent, with `$share/NAME/` if it is shared. `identifier` is the subscription
    identifier, 0 for none. `origin` is "client", or "local" for a program of this process.
    """

    client: ClientFacts
    topic_filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    identifier: int = 0
    user_properties: UserProperties = ()
    origin: Origin = "client"

    def changed(
        self,
        *,
        topic_filter: str = _KEEP,
        qos: int = _KEEP,
        no_local: bool = _KEEP,
        retain_as_published: bool = _KEEP,
        retain_handling: int = _KEEP,
    ) -> "SubscribeEvent":
        """The same request with other values: what transform_subscribe answers.

        A client that subscribed to one filter and was given another ends the subscription with the
        filter that it knows.
        """
        return attrs.evolve(
            self,
            topic_filter=self.topic_filter if topic_filter is _KEEP else topic_filter,
            qos=self.qos if qos is _KEEP else qos,
            no_local=self.no_local if no_local is _KEEP else no_local,
            retain_as_published=self.retain_as_published
            if retain_as_published is _KEEP
            else retain_as_published,
            retain_handling=self.retain_handling if retain_handling is _KEEP else retain_handling,
        )


@define(frozen=True)
class DeliveryEvent(ClientEvent):
    """A subscription is made or comes back to life; `client` is the subscriber.

    `origin` is "client", or "local" for a program of this process.
    """

    client: ClientFacts
    topic_filter: str
    qos: int = 0
    identifier: int = 0
    reason: DeliveryReason = "subscribe"
    origin: Origin = "client"


# --- observe -------------------------------------------------------------------------------------

#: What `published` is told: the message as it was routed, after all transforms.
PublishedEvent = PublishEvent


@define(frozen=True)
class ClientConnectedEvent(ClientEvent):
    """A client was let in and its CONNACK is on the way."""

    client: ClientFacts
    clean_start: bool = True
    session_present: bool = False
    keep_alive: int = 0
    user_properties: UserProperties = ()


@define(frozen=True)
class ClientDisconnectedEvent(ClientEvent):
    """The connection of a client that had been let in is over.

    `reason_code` is the one of the DISCONNECT, whoever sent it; `by_client` says who ended it.
    """

    client: ClientFacts
    reason_code: int
    why: str = ""
    by_client: bool = False


@define(frozen=True)
class ConnectionRefusedEvent(ClientEvent):
    """A connection ended without having been let in."""

    client: ClientFacts
    reason_code: int
    why: str = ""


@define(frozen=True)
class SessionOpenedEvent(ClientEvent):
    """A session has begun (`resumed` False) or goes on with a new connection."""

    client: ClientFacts
    resumed: bool
    expiry_interval: int = 0


@define(frozen=True)
class SessionEndedEvent(ClientEvent):
    """A session and all that waited in it are gone. Its client may not have been connected."""

    client: ClientFacts
    reason: SessionEnd


@define(frozen=True)
class SubscribedEvent(ClientEvent):
    """A subscription stands; `qos` is the granted one, `replaced` says that it existed before."""

    client: ClientFacts
    topic_filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    identifier: int = 0
    replaced: bool = False


@define(frozen=True)
class UnsubscribedEvent(ClientEvent):
    """A client has ended a subscription (the end of a session tells of itself only)."""

    client: ClientFacts
    topic_filter: str


@define(eq=False)
class DeliveredEvent(ClientEvent):
    """A message was put on the way to a client; `client` is the receiver, `qos` the delivery's."""

    client: ClientFacts
    topic: str
    payload: bytes = field(repr=False)
    qos: int = 0
    retain: bool = False
    properties: PublishProperties | None = field(default=None, repr=False)
    origin: Origin = "client"


@define(eq=False)
class AcknowledgedEvent(ClientEvent):
    """A receiver has taken a QoS 1 or 2 message (PUBACK, PUBCOMP) or refused it by reason code."""

    client: ClientFacts
    topic: str
    qos: int
    reason_code: int = 0


@define(eq=False)
class DroppedEvent(ClientEvent):
    """A message was dropped for a receiver, or for everybody.

    `client` is the receiver; for the reasons "transform" and "refused" it is the publisher.
    """

    client: ClientFacts
    topic: str
    qos: int
    reason: DropReason
    origin: Origin = "client"


@define(eq=False)
class RetainedChangedEvent(ClientEvent):
    """The retained message of a topic was set, replaced or (`removed`) taken away."""

    client: ClientFacts
    topic: str
    payload: bytes = field(repr=False)
    qos: int = 0
    properties: PublishProperties | None = field(default=None, repr=False)
    origin: Origin = "client"
    removed: bool = False


@define(frozen=True)
class PluginFailedEvent(Event):
    """A hook of a plugin failed; what was decided instead is in docs/hooks.md.

    `error` is what was raised; None for an answer that makes no sense. `switched_off`: an observer
    that failed too often in a row and is called no more.
    """

    plugin: str
    hook: str
    kind: FailureKind
    why: str
    error: Exception | None = field(default=None, repr=False)
    switched_off: bool = False
