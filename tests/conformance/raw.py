"""Bytes of packets that the encoder would refuse to make: malformed, forbidden, or just unusual."""

from collections.abc import Iterable
from typing import Final

CONNECT: Final = 0x10
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
PUBREC: Final = 0x50
PUBREL: Final = 0x62
PUBCOMP: Final = 0x70
SUBSCRIBE: Final = 0x82
UNSUBSCRIBE: Final = 0xA2
PINGREQ: Final = 0xC0
DISCONNECT: Final = 0xE0
AUTH: Final = 0xF0


def integer(value: int) -> bytes:
    """A variable byte integer in its shortest form (1.5.5)."""
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def binary(value: bytes) -> bytes:
    """Binary data, or a text field whose bytes are given: two bytes of length and the bytes."""
    return len(value).to_bytes(2, "big") + value


def text(value: str) -> bytes:
    """A text field (1.5.4)."""
    return binary(value.encode())


def uint16(value: int) -> bytes:
    """A two byte integer, a packet identifier for instance."""
    return value.to_bytes(2, "big")


def uint32(value: int) -> bytes:
    """A four byte integer, an expiry interval for instance."""
    return value.to_bytes(4, "big")


def frame(first_byte: int, *body: bytes) -> bytes:
    """A whole packet: fixed header and body."""
    joined = b"".join(body)
    return bytes([first_byte]) + integer(len(joined)) + joined


def properties(*items: bytes) -> bytes:
    """A property list: its length and the properties, each of identifier and value."""
    joined = b"".join(items)
    return integer(len(joined)) + joined


def user_property(name: bytes, value: bytes) -> bytes:
    """A user property whose bytes are given."""
    return b"\x26" + binary(name) + binary(value)


def connect(
    *payload: bytes,
    name: str = "MQTT",
    level: int = 5,
    flags: int = 0x02,
    keep_alive: int = 60,
    property_list: bytes | None = b"\x00",
    first_byte: int = CONNECT,
) -> bytes:
    """A CONNECT with full control; `payload` begins with the client identifier's field.

    `property_list` includes its length; None leaves it out, as MQTT 3 does.
    """
    return frame(
        first_byte,
        text(name),
        bytes([level, flags]),
        uint16(keep_alive),
        property_list or b"",
        *payload,
    )


def publish(
    topic: bytes,
    payload: bytes = b"",
    qos: int = 0,
    packet_id: int = 0,
    property_list: bytes | None = b"\x00",
    first_byte: int | None = None,
) -> bytes:
    """A PUBLISH; `property_list` as in `connect`."""
    return frame(
        PUBLISH | qos << 1 if first_byte is None else first_byte,
        binary(topic),
        uint16(packet_id) if qos else b"",
        property_list or b"",
        payload,
    )


def subscribe(
    packet_id: int,
    filters: Iterable[tuple[bytes, int]],
    property_list: bytes | None = b"\x00",
    first_byte: int = SUBSCRIBE,
) -> bytes:
    """A SUBSCRIBE with pairs of topic filter and options byte; `property_list` as in `connect`."""
    return frame(
        first_byte,
        uint16(packet_id),
        property_list or b"",
        *(binary(topic_filter) + bytes([options]) for topic_filter, options in filters),
    )
