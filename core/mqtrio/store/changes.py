"""The changes that a store makes durable: a closed, versioned union of plain values.

A change holds str, bytes, int, float, bool, None and tuples of them, nothing else, so that a store
may write it as a row, as JSON or as a record of a log. Changes are built positionally, by the core
only, and never altered afterwards. Times are wall-clock seconds since 1970 (`Clock.wall`),
intervals are seconds. A repr shows neither payloads nor properties.

How they hang together:

- `client_id` names a session. Everything but `SessionPut`, wills and retained messages needs its
  session to be there.
- A message for any number of sessions is put once and referred to by one `QueuedPut` for each. The
  core counts the references and says `MessageRemoved` with (or after) the change that drops the
  last one; a store never counts. One message id stands in one `MessagePut`, ever.
- A retained message is a value of its own, not a reference: the last one written to a topic wins,
  whatever else fails.
"""

from typing import Final, TypeAlias

from attrs import define, field

from mqtrio.wire.packets import PublishProperties, UserProperties

#: Raised whenever a change is added, or the fields or the meaning of one change.
VERSION: Final = 3

#: Payload format indicator, content type, response topic, correlation data, user properties.
Properties: TypeAlias = tuple[int | None, str | None, str | None, bytes | None, UserProperties]


@define
class SessionPut:
    """A session is opened, or opened again by its client (3.1.2.4, 4.1).

    Writes the session's own record; subscriptions, queue and received ids stay. A session that
    begins anew under the same client identifier is preceded by `SessionRemoved`. The session counts
    as connected from now on, until `SessionClosed`.
    """

    client_id: str
    #: Who opened it; nobody else may resume it.
    username: str | None
    #: Protocol version of the client: 3, 4 or 5.
    version: int
    #: Seconds that it outlives its connection; 0xFFFFFFFF: for ever (3.1.2.11.2).
    expiry_interval: int
    #: Rises with every claim, so that an older owner can be fenced off.
    epoch: int
    created_at: float
    #: When the credentials that opened it end, if they do.
    credentials_expire_at: float | None = None


@define
class SessionRemoved:
    """A session ended: its subscriptions, queued messages and received ids go with it.

    Its will stays (it may still have to be published) until `WillRemoved`. Messages stay until
    `MessageRemoved`.
    """

    client_id: str


@define
class SessionSetAside:
    """A session ended of whose queue the core has not read everything.

    Its record and its queue go on under `name`, which no session has; its subscriptions and
    received ids go. The core deals with the queue and removes what is left by `SessionRemoved`.
    """

    client_id: str
    name: str


@define
class SessionClosed:
    """A session lost its connection; its expiry interval runs from `closed_at`."""

    client_id: str
    closed_at: float


@define
class SubscriptionPut:
    """A subscription is made or replaced (3.8.3); `topic_filter` with its $share, if shared."""

    client_id: str
    topic_filter: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    #: Subscription identifier, 0: none.
    identifier: int = 0
    #: The topic filter as the client sent it, where a plugin has changed it, else "".
    sent: str = ""


@define
class SubscriptionRemoved:
    """A subscription is ended (3.10)."""

    client_id: str
    topic_filter: str


@define
class MessagePut:
    """A message, with the first `QueuedPut` that refers to it in the same action."""

    message_id: int
    topic: str
    payload: bytes = field(repr=False)
    #: As published.
    qos: int
    retain: bool
    properties: Properties | None = field(default=None, repr=False)
    #: Client identifier of the publisher, "" where it is none of our clients.
    publisher: str = ""
    username: str | None = None
    #: When the message expires (3.3.2.3.3), None: never.
    expires_at: float | None = None
    #: "client", "will", "local", "system" or "bridge".
    origin: str = "client"
    #: The broker that accepted it, "" for this one.
    node: str = ""


@define
class MessageRemoved:
    """Nothing refers to the message any more."""

    message_id: int


@define
class QueuedPut:
    """A message joins a session's queue of unfinished messages (4.1, 4.4).

    `sequence` rises within the session and is the order of delivery.
    """

    client_id: str
    sequence: int
    message_id: int
    #: As it will be delivered: 1 or 2.
    qos: int
    retain: bool = False
    #: Subscription identifiers that go with it.
    identifiers: tuple[int, ...] = ()
    #: Packet identifier, where it is sent at once; 0: not sent yet (`QueuedSent` will tell).
    packet_id: int = 0
    #: The shared subscription ("$share/GROUP/FILTER") that chose this session, "" if none did: when
    #: the session ends, the message goes to another member.
    shared: str = ""


@define
class QueuedSent:
    """A queued message was sent with this packet identifier; from now on it is resent as DUP."""

    client_id: str
    sequence: int
    packet_id: int


@define
class QueuedReleased:
    """PUBREC came for a QoS 2 message that was sent: what is resent is PUBREL (4.3.3)."""

    client_id: str
    sequence: int


@define
class QueuedRemoved:
    """A queued message is finished (PUBACK, PUBCOMP), expired or dropped."""

    client_id: str
    sequence: int


@define
class ReceivedPut:
    """The packet identifier of an incoming QoS 2 message, until its PUBREL (4.3.3)."""

    client_id: str
    packet_id: int


@define
class ReceivedRemoved:
    """PUBREL came: the packet identifier is free again."""

    client_id: str
    packet_id: int


@define
class RetainedPut:
    """The retained message of a topic is set or replaced (3.3.1.3)."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int
    properties: Properties | None = field(default=None, repr=False)
    publisher: str = ""
    username: str | None = None
    expires_at: float | None = None
    origin: str = "client"
    node: str = ""


@define
class RetainedRemoved:
    """A topic has no retained message any more. No error where it had none."""

    topic: str


@define
class WillPut:
    """The will of a connection, set or replaced (3.1.2.5).

    `due` is None while the connection lives, else the time at which the will is published. A will
    belongs to a client identifier and outlives the session.
    """

    client_id: str
    username: str | None
    topic: str
    payload: bytes = field(repr=False)
    qos: int
    retain: bool
    delay_interval: int = 0
    #: Seconds from publication; None: never expires.
    message_expiry_interval: int | None = None
    properties: Properties | None = field(default=None, repr=False)
    due: float | None = None
    #: What the client's own permissions said of it: "allow", "deny" or "none"; "": it had none.
    ruling: str = ""


@define
class WillRemoved:
    """The will was published, or deleted by a normal DISCONNECT or by resuming in time."""

    client_id: str


Change: TypeAlias = (
    SessionPut
    | SessionRemoved
    | SessionSetAside
    | SessionClosed
    | SubscriptionPut
    | SubscriptionRemoved
    | MessagePut
    | MessageRemoved
    | QueuedPut
    | QueuedSent
    | QueuedReleased
    | QueuedRemoved
    | ReceivedPut
    | ReceivedRemoved
    | RetainedPut
    | RetainedRemoved
    | WillPut
    | WillRemoved
)

#: Every type of change by its name: the closed union as a table.
CHANGES: Final[dict[str, type[Change]]] = {
    kind.__name__: kind
    for kind in (
        SessionPut,
        SessionRemoved,
        SessionSetAside,
        SessionClosed,
        SubscriptionPut,
        SubscriptionRemoved,
        MessagePut,
        MessageRemoved,
        QueuedPut,
        QueuedSent,
        QueuedReleased,
        QueuedRemoved,
        ReceivedPut,
        ReceivedRemoved,
        RetainedPut,
        RetainedRemoved,
        WillPut,
        WillRemoved,
    )
}


def touched(change: Change) -> str | None:
    """The client identifier of the session that a change belongs to, None if to no session."""
    return getattr(change, "client_id", None)


def stored_properties(properties: PublishProperties | None) -> Properties | None:
    """What a store keeps of a message's properties; None where nothing is left.

    Left out: topic alias and subscription identifiers (they belong to one connection) and the
    message expiry interval (kept as `expires_at`).
    """
    if properties is None:
        return None
    values = (
        properties.payload_format_indicator,
        properties.content_type,
        properties.response_topic,
        properties.correlation_data,
        properties.user_properties,
    )
    return None if values == (None, None, None, None, ()) else values


def publish_properties(
    stored: Properties | None, message_expiry_interval: int | None = None
) -> PublishProperties | None:
    """The properties of a message from the store; None where there are none."""
    if stored is None:
        if message_expiry_interval is None:
            return None
        return PublishProperties(message_expiry_interval=message_expiry_interval)
    indicator, content_type, response_topic, correlation_data, user_properties = stored
    return PublishProperties(
        indicator,
        message_expiry_interval,
        content_type,
        response_topic,
        correlation_data,
        user_properties,
    )
