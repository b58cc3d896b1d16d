"""A message on its way: what a PUBLISH, a will or a program's message becomes in the broker."""

from typing import Final

from mqtrio.wire.encoder import publish_parts
from mqtrio.wire.packets import MQTT_3_1_1, MQTT_5, Publish, PublishProperties

#: `expires_at` of a message without a message expiry interval.
NEVER: Final = -1.0

#: What a message costs in memory beside its payload, for the limits in bytes.
OVERHEAD: Final = 200


class Message:
    """One application message (3.3), shared by all sessions that it is for.

    `expires_at` is in the seconds of the monotonic clock, or NEVER. `client_id` and `username` name
    the publisher (empty for the broker itself), `origin` the door it came by, `node` the broker
    that accepted it. `references` counts who still holds the message: queues, windows, the retained
    messages. `message_id` is its number in the store, 0 when it isn't there. `size` is what it
    counts for in the limits, in bytes.
    """

    __slots__ = (
        "topic",
        "payload",
        "qos",
        "retain",
        "properties",
        "client_id",
        "username",
        "origin",
        "node",
        "expires_at",
        "message_id",
        "references",
        "size",
        "frames",
    )

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        properties: PublishProperties | None,
        client_id: str = "",
        username: str | None = None,
        origin: str = "client",
        expires_at: float = NEVER,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties
        self.client_id = client_id
        self.username = username
        self.origin = origin
        self.node = ""
        self.expires_at = expires_at
        self.message_id = 0
        self.references = 0
        self.frames: dict[object, tuple[bytes, bytes]] | None = None
        size = len(payload) + len(topic) + OVERHEAD
        if properties is not None:
            size += _size(properties)
        self.size = size

    def expired(self, now: float) -> bool:
        """Whether its lifetime is over [MQTT-3.3.2-5]."""
        return 0 <= self.expires_at <= now

    def parts(
        self, version5: bool, qos: int, retain: bool, identifiers: tuple[int, ...], now: float
    ) -> tuple[bytes, bytes]:
        """The encoded packet before and after its packet identifier, shared by all alike targets.

        A lifetime is counted down by the whole seconds that the message waited [MQTT-3.3.2-6].
        """
        remaining = -1
        if version5 and self.expires_at >= 0 and self.properties is not None:
            remaining = max(0, int(self.expires_at - now + 0.999))
            if remaining == self.properties.message_expiry_interval:
                remaining = -1
        if remaining >= 0:
            return self._encode(version5, qos, retain, identifiers, remaining)
        variant = qos | retain << 2 | version5 << 3
        key: object = (variant, identifiers) if identifiers else variant
        if self.frames is None:
            self.frames = {}
        frame = self.frames.get(key)
        if frame is None:
            frame = self.frames[key] = self._encode(version5, qos, retain, identifiers, -1)
        return frame

    def _encode(
        self, version5: bool, qos: int, retain: bool, identifiers: tuple[int, ...], remaining: int
    ) -> tuple[bytes, bytes]:
        return publish_parts(
            self.topic,
            self.payload,
            qos,
            retain,
            self.properties,
            MQTT_5 if version5 else MQTT_3_1_1,
            identifiers,
            message_expiry_interval=remaining,
        )

    def __repr__(self) -> str:
        return (
            f"Message(topic={self.topic!r}, qos={self.qos}, payload of {len(self.payload)} bytes)"
        )


def _size(properties: PublishProperties) -> int:
    size = len(properties.correlation_data or b"") + len(properties.response_topic or "")
    size += len(properties.content_type or "")
    for name, value in properties.user_properties:
        size += len(name) + len(value) + OVERHEAD
    return size


def message_of(packet: Publish, client_id: str, username: str | None, now: float) -> Message:
    """The message that a client's PUBLISH carries; its alias and packet identifier stay behind."""
    properties = packet.properties
    expires_at = NEVER
    if properties is not None and properties.message_expiry_interval is not None:
        expires_at = now + properties.message_expiry_interval
    message = Message(
        packet.topic,
        packet.payload,
        packet.qos,
        packet.retain,
        properties,
        client_id,
        username,
        "client",
        expires_at,
    )
    return message
