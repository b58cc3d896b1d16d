"""What clients' things count for in `limits.memory`, in bytes: about what CPython needs for them.

Messages know their own size (state.message), and bytes are counted as such.
"""

from typing import Final

from mqtrio.state.index import Subscription
from mqtrio.state.session import Session
from mqtrio.state.topics import has_wildcards
from mqtrio.wire.packets import Connect, PublishProperties, UserProperties, Will

#: A connection, its socket's objects included.
CONNECTION: Final = 2000

#: A session without anything in it.
SESSION: Final = 1000

#: A subscription to an exact filter.
SUBSCRIPTION: Final = 500

#: What each level of a filter with wildcards adds: nodes of the index.
LEVEL: Final = 450

#: A place in a session's queue or window, or among the retained messages: beside the message.
PLACE: Final = 200

#: The identifier of a QoS 2 message that a client has not released yet.
RECEIPT: Final = 100

#: A pair of strings, or any other small object.
OBJECT: Final = 200


def of_session(session: Session) -> int:
    """A session by itself; its user stands in CONNECT, and may be another one tomorrow."""
    return SESSION + len(session.client_id)


def of_subscription(subscription: Subscription) -> int:
    """A subscription with its place in the index."""
    topic_filter = subscription.topic_filter
    weight = SUBSCRIPTION + len(topic_filter)
    if subscription.sent != topic_filter:
        weight += OBJECT + len(subscription.sent)
    if has_wildcards(topic_filter):
        weight += LEVEL * (topic_filter.count("/") + 1)
    return weight


def of_connect(packet: Connect) -> int:
    """A CONNECT, which is kept as long as its connection, for its will and later questions."""
    weight = OBJECT + len(packet.client_id) + len(packet.username or "")
    weight += len(packet.password or b"") + len(packet.authentication_data or b"")
    weight += _pairs(packet.user_properties)
    return weight if packet.will is None else weight + of_will(packet.will)


def of_will(will: Will) -> int:
    """A will, with its connection or waiting for its time."""
    weight = OBJECT + len(will.topic) + len(will.payload)
    return weight if will.properties is None else weight + _properties(will.properties)


def _properties(properties: PublishProperties) -> int:
    weight = OBJECT + len(properties.correlation_data or b"") + len(properties.content_type or "")
    return weight + len(properties.response_topic or "") + _pairs(properties.user_properties)


def _pairs(pairs: UserProperties) -> int:
    if not pairs:
        return 0
    return sum(OBJECT + len(name) + len(value) for name, value in pairs)
