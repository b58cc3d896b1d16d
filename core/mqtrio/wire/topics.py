"""Topic names as bytes -> str, validated once and remembered."""

from typing import Final

from mqtrio.errors import ProtocolError
from mqtrio.reasons import ReasonCode
from mqtrio.wire.primitives import decode_text

#: Topics longer than so many bytes are decoded each time, so that the cache stays small.
LONGEST_REMEMBERED: Final = 256


class TopicCache:
    """A bounded cache of topic names, shared by all connections of a broker.

    `known` maps a topic field as it stands in a packet (two bytes of length, then UTF-8) to its
    text, so that the same topic is one str everywhere. The decoder looks into `known` itself: a
    method call would cost more than the look-up. A full cache is emptied, in place.
    """

    __slots__ = ("known", "maximum")

    def __init__(self, maximum: int = 10_000) -> None:
        self.known: dict[bytes, str] = {}
        self.maximum = maximum

    def add(self, field: bytes) -> str:
        """Validate the topic field of a PUBLISH, remember it and return the topic.

        Raises MalformedPacket for bad UTF-8 or a NUL, ProtocolError 0x82 for an empty topic
        [MQTT-4.7.3-1] and 0x90 for a wildcard in it [MQTT-3.3.2-2].
        """
        topic = decode_text(field[2:])
        check_topic_name(topic)
        if len(field) <= LONGEST_REMEMBERED:
            known = self.known
            if len(known) >= self.maximum:
                known.clear()
            known[field] = topic
        return topic


def check_topic_name(topic: str) -> None:
    """Raise ProtocolError for a topic that nobody may publish to.

    0x82 if it is empty [MQTT-4.7.3-1], 0x90 if it has a wildcard [MQTT-4.7.0-1].
    """
    if not topic:
        raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "a topic name is empty")
    if "+" in topic or "#" in topic:
        raise ProtocolError(ReasonCode.TOPIC_NAME_INVALID, "a topic name holds a wildcard")
