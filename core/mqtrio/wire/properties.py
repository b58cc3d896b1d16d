"""The properties of MQTT 5 (2.2.2) as a table, and reading and writing them by that table."""

from typing import Final

from mqtrio.errors import MalformedPacket, ProtocolError
from mqtrio.reasons import ReasonCode
from mqtrio.wire.packets import UserProperties
from mqtrio.wire.primitives import (
    LARGEST_FOUR_BYTE,
    LARGEST_VARIABLE,
    Reader,
    encode_binary,
    encode_four_byte,
    encode_text,
    encode_two_byte,
    encode_variable,
)

# Packet types as numbers of the fixed header (2.1.2), and the will, which has its own properties.
WILL: Final = 0
CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
PUBREC: Final = 5
PUBREL: Final = 6
PUBCOMP: Final = 7
SUBSCRIBE: Final = 8
SUBACK: Final = 9
UNSUBSCRIBE: Final = 10
UNSUBACK: Final = 11
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14
AUTH: Final = 15

# Identifiers of the properties (2.2.2.2).
PAYLOAD_FORMAT_INDICATOR: Final = 0x01
MESSAGE_EXPIRY_INTERVAL: Final = 0x02
CONTENT_TYPE: Final = 0x03
RESPONSE_TOPIC: Final = 0x08
CORRELATION_DATA: Final = 0x09
SUBSCRIPTION_IDENTIFIER: Final = 0x0B
SESSION_EXPIRY_INTERVAL: Final = 0x11
ASSIGNED_CLIENT_IDENTIFIER: Final = 0x12
SERVER_KEEP_ALIVE: Final = 0x13
AUTHENTICATION_METHOD: Final = 0x15
AUTHENTICATION_DATA: Final = 0x16
REQUEST_PROBLEM_INFORMATION: Final = 0x17
WILL_DELAY_INTERVAL: Final = 0x18
REQUEST_RESPONSE_INFORMATION: Final = 0x19
RESPONSE_INFORMATION: Final = 0x1A
SERVER_REFERENCE: Final = 0x1C
REASON_STRING: Final = 0x1F
RECEIVE_MAXIMUM: Final = 0x21
TOPIC_ALIAS_MAXIMUM: Final = 0x22
TOPIC_ALIAS: Final = 0x23
MAXIMUM_QOS: Final = 0x24
RETAIN_AVAILABLE: Final = 0x25
USER_PROPERTY: Final = 0x26
MAXIMUM_PACKET_SIZE: Final = 0x27
WILDCARD_SUBSCRIPTION_AVAILABLE: Final = 0x28
SUBSCRIPTION_IDENTIFIERS_AVAILABLE: Final = 0x29
SHARED_SUBSCRIPTION_AVAILABLE: Final = 0x2A

#: User properties (and subscription identifiers) that one packet may carry. Each costs its sender
#: five bytes and us a few hundred, so the packet's size alone would be a weak bound.
MOST_REPEATED: Final = 1000

# Data types (1.5).
_BYTE: Final = 1
_TWO_BYTE: Final = 2
_FOUR_BYTE: Final = 3
_VARIABLE: Final = 4
_TEXT: Final = 5
_BINARY: Final = 6
_PAIR: Final = 7


class Property:
    """One row of the table: what a property is called, where it may stand and what it may hold.

    `packets` are numbers of packet types and WILL; `minimum`, `maximum` bound a number, and a
    number outside of them is answered with `error`; `repeatable` tells that it may stand more than
    once (in `packets` all the same: a PUBLISH may have several subscription identifiers).
    """

    __slots__ = ("name", "kind", "packets", "minimum", "maximum", "error", "repeatable")

    def __init__(
        self,
        name: str,
        kind: int,
        packets: frozenset[int],
        minimum: int = 0,
        maximum: int = LARGEST_FOUR_BYTE,
        error: int = ReasonCode.PROTOCOL_ERROR,
        repeatable: frozenset[int] = frozenset(),
    ) -> None:
        self.name = name
        self.kind = kind
        self.packets = packets
        self.minimum = minimum
        self.maximum = maximum
        self.error = error
        self.repeatable = repeatable


def _in(*packets: int) -> frozenset[int]:
    return frozenset(packets)


_EVERYWHERE: Final = frozenset({WILL, *range(CONNECT, AUTH + 1)} - {PINGREQ, PINGRESP})
_ANSWERS: Final = _in(CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH)

#: Identifier -> property (table 2-4).
PROPERTIES: Final[dict[int, Property]] = {
    0x01: Property("payload format indicator", _BYTE, _in(PUBLISH, WILL), maximum=1),
    0x02: Property("message expiry interval", _FOUR_BYTE, _in(PUBLISH, WILL)),
    0x03: Property("content type", _TEXT, _in(PUBLISH, WILL)),
    0x08: Property("response topic", _TEXT, _in(PUBLISH, WILL)),
    0x09: Property("correlation data", _BINARY, _in(PUBLISH, WILL)),
    0x0B: Property(
        "subscription identifier",
        _VARIABLE,
        _in(PUBLISH, SUBSCRIBE),
        minimum=1,
        maximum=LARGEST_VARIABLE,
        repeatable=_in(PUBLISH),
    ),
    0x11: Property("session expiry interval", _FOUR_BYTE, _in(CONNECT, CONNACK, DISCONNECT)),
    0x12: Property("assigned client identifier", _TEXT, _in(CONNACK)),
    0x13: Property("server keep alive", _TWO_BYTE, _in(CONNACK)),
    0x15: Property("authentication method", _TEXT, _in(CONNECT, CONNACK, AUTH)),
    0x16: Property("authentication data", _BINARY, _in(CONNECT, CONNACK, AUTH)),
    0x17: Property("request problem information", _BYTE, _in(CONNECT), maximum=1),
    0x18: Property("will delay interval", _FOUR_BYTE, _in(WILL)),
    0x19: Property("request response information", _BYTE, _in(CONNECT), maximum=1),
    0x1A: Property("response information", _TEXT, _in(CONNACK)),
    0x1C: Property("server reference", _TEXT, _in(CONNACK, DISCONNECT)),
    0x1F: Property("reason string", _TEXT, _ANSWERS),
    0x21: Property("receive maximum", _TWO_BYTE, _in(CONNECT, CONNACK), minimum=1),
    0x22: Property("topic alias maximum", _TWO_BYTE, _in(CONNECT, CONNACK)),
    0x23: Property(
        "topic alias",
        _TWO_BYTE,
        _in(PUBLISH),
        minimum=1,  # [MQTT-3.3.2-8]
        error=ReasonCode.TOPIC_ALIAS_INVALID,
    ),
    0x24: Property("maximum QoS", _BYTE, _in(CONNACK), maximum=1),
    0x25: Property("retain available", _BYTE, _in(CONNACK), maximum=1),
    0x26: Property("user property", _PAIR, _EVERYWHERE, repeatable=_EVERYWHERE),
    0x27: Property("maximum packet size", _FOUR_BYTE, _in(CONNECT, CONNACK), minimum=1),
    0x28: Property("wildcard subscription available", _BYTE, _in(CONNACK), maximum=1),
    0x29: Property("subscription identifiers available", _BYTE, _in(CONNACK), maximum=1),
    0x2A: Property("shared subscription available", _BYTE, _in(CONNACK), maximum=1),
}


class Properties:
    """The properties of one packet by identifier; a property that isn't there reads as None."""

    __slots__ = ("numbers", "texts", "binaries", "user_properties", "subscription_identifiers")

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.texts: dict[int, str] = {}
        self.binaries: dict[int, bytes] = {}
        self.user_properties: UserProperties = ()
        self.subscription_identifiers: tuple[int, ...] = ()

    def number(self, identifier: int) -> int | None:
        """A byte, an integer or a variable byte integer."""
        return self.numbers.get(identifier)

    def flag(self, identifier: int) -> bool | None:
        """A byte that is 0 or 1."""
        value = self.numbers.get(identifier)
        return None if value is None else value == 1

    def text(self, identifier: int) -> str | None:
        """A UTF-8 string."""
        return self.texts.get(identifier)

    def binary(self, identifier: int) -> bytes | None:
        """Binary data."""
        return self.binaries.get(identifier)


def read_properties(reader: Reader, packet: int) -> Properties | None:
    """Read the property length and the properties of a `packet` (a packet type or WILL).

    None: there are none. Raises MalformedPacket for an unknown or misplaced identifier (2.2.2.2,
    4.13.1), ProtocolError 0x82 for one that stands there again or holds a value that isn't
    allowed (0x94 for topic alias 0), 0x97 for more than `MOST_REPEATED` of one kind.
    """
    length = reader.variable()
    if length == 0:
        return None
    end = reader.position + length
    if end > reader.end:
        raise MalformedPacket("the properties are longer than their packet")
    outer_end = reader.end
    reader.end = end
    found = Properties()
    user_properties: list[tuple[str, str]] = []
    identifiers: list[int] = []
    while reader.position < end:
        # An identifier is a variable byte integer; all that exist take one byte.
        identifier = reader.byte()
        row = PROPERTIES.get(identifier)
        if row is None:
            raise MalformedPacket(f"there is no property 0x{identifier:02X}")
        if packet not in row.packets:
            raise MalformedPacket(f"the property {row.name} does not belong here")
        kind = row.kind
        if kind == _PAIR:
            user_properties.append(reader.pair())
            if len(user_properties) > MOST_REPEATED:
                raise _too_often(row)
        elif kind == _TEXT:
            if identifier in found.texts:
                raise _repeated(row)
            found.texts[identifier] = reader.text()
        elif kind == _BINARY:
            if identifier in found.binaries:
                raise _repeated(row)
            found.binaries[identifier] = reader.binary()
        elif identifier == SUBSCRIPTION_IDENTIFIER:
            if identifiers and packet not in row.repeatable:
                raise _repeated(row)
            identifiers.append(_read_number(reader, row))
            if len(identifiers) > MOST_REPEATED:
                raise _too_often(row)
        else:
            if identifier in found.numbers:
                raise _repeated(row)
            found.numbers[identifier] = _read_number(reader, row)
    reader.end = outer_end
    if user_properties:
        found.user_properties = tuple(user_properties)
    if identifiers:
        found.subscription_identifiers = tuple(identifiers)
    return found


def _repeated(row: Property) -> ProtocolError:
    return ProtocolError(ReasonCode.PROTOCOL_ERROR, f"the property {row.name} stands there twice")


def _too_often(row: Property) -> ProtocolError:
    return ProtocolError(ReasonCode.QUOTA_EXCEEDED, f"too many times the property {row.name}")


def _read_number(reader: Reader, row: Property) -> int:
    kind = row.kind
    if kind == _BYTE:
        value = reader.byte()
    elif kind == _TWO_BYTE:
        value = reader.two_byte()
    elif kind == _FOUR_BYTE:
        value = reader.four_byte()
    else:
        value = reader.variable()
    if not row.minimum <= value <= row.maximum:
        raise ProtocolError(row.error, f"the property {row.name} must not be {value}")
    return value


class PropertyWriter:
    """Collects encoded properties; None and empty values are left out.

    Every method raises ValueError for a value that can't stand in a packet.
    """

    __slots__ = ("_encoded",)

    def __init__(self) -> None:
        self._encoded = bytearray()

    def number(self, identifier: int, value: int | None) -> None:
        """A number or a flag, in the size that the table says."""
        if value is None:
            return
        row = PROPERTIES[identifier]
        if not row.minimum <= value <= row.maximum:
            raise ValueError(f"the property {row.name} must not be {value}")
        kind = row.kind
        self._encoded.append(identifier)
        if kind == _BYTE:
            self._encoded.append(value)
        elif kind == _TWO_BYTE:
            self._encoded += encode_two_byte(value)
        elif kind == _FOUR_BYTE:
            self._encoded += encode_four_byte(value)
        else:
            self._encoded += encode_variable(value)

    def text(self, identifier: int, value: str | None) -> None:
        """A UTF-8 string."""
        if value is not None:
            self._encoded.append(identifier)
            self._encoded += encode_text(value)

    def binary(self, identifier: int, value: bytes | None) -> None:
        """Binary data."""
        if value is not None:
            self._encoded.append(identifier)
            self._encoded += encode_binary(value)

    def user(self, pairs: UserProperties) -> None:
        """User properties, in their order [MQTT-3.3.2-18]."""
        for name, value in pairs:
            self._encoded.append(USER_PROPERTY)
            self._encoded += encode_text(name)
            self._encoded += encode_text(value)

    @property
    def empty(self) -> bool:
        """True if nothing was written."""
        return not self._encoded

    def finish(self) -> bytes:
        """The property length and the properties."""
        return encode_variable(len(self._encoded)) + self._encoded


#: A property length of zero: no properties [MQTT-2.2.2-1].
NO_PROPERTIES: Final = b"\0"
