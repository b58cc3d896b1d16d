"""The fixed header (2.1): which first bytes are right, and the remaining length."""

from typing import Final

from mqtrio.errors import MalformedPacket
from mqtrio.reasons import ReasonCode
from mqtrio.wire.packets import MQTT_3_1, MQTT_5
from mqtrio.wire.properties import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
)

_BOTH: Final = frozenset({PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT, AUTH})
_FROM_CLIENT: Final = _BOTH | {CONNECT, SUBSCRIBE, UNSUBSCRIBE, PINGREQ}
_FROM_SERVER: Final = _BOTH | {CONNACK, SUBACK, UNSUBACK, PINGRESP}

#: The flags 0010 (table 2-2); all other types but PUBLISH have 0000.
_FLAGS_2: Final = frozenset({PUBREL, SUBSCRIBE, UNSUBSCRIBE})

#: A PUBLISH has any flags but QoS 3 [MQTT-3.3.1-4] and DUP with QoS 0 [MQTT-3.3.1-2].
_PUBLISH_FLAGS: Final = frozenset({0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0xA, 0xB, 0xC, 0xD})

_DUP: Final = 0x08


def _refusal(first: int, version: int, from_client: bool) -> int:
    packet = first >> 4
    flags = first & 0x0F
    if packet == 0 or (packet == AUTH and version != MQTT_5):
        return ReasonCode.MALFORMED_PACKET
    if version == 0:
        if packet != CONNECT:
            return ReasonCode.PROTOCOL_ERROR  # [MQTT-3.1.0-1]
    elif packet == CONNECT or packet not in (_FROM_CLIENT if from_client else _FROM_SERVER):
        return ReasonCode.PROTOCOL_ERROR  # a second CONNECT: [MQTT-3.1.0-2]
    elif packet == DISCONNECT and version != MQTT_5 and not from_client:
        return ReasonCode.PROTOCOL_ERROR
    if packet == PUBLISH:
        right = flags in _PUBLISH_FLAGS
    elif packet in _FLAGS_2:
        # Clients of MQTT 3.1 may mark a repeated packet by DUP.
        right = flags == 0x02 or (version == MQTT_3_1 and from_client and flags == 0x02 | _DUP)
    else:
        right = flags == 0
    return 0 if right else ReasonCode.MALFORMED_PACKET  # [MQTT-2.1.3-1]


_REFUSALS: Final = {
    (version, from_client): bytes(_refusal(first, version, from_client) for first in range(256))
    for version in (0, 3, 4, 5)
    for from_client in (True, False)
}


def refusals(version: int, from_client: bool) -> bytes:
    """First byte -> 0, or the reason code with which a packet that begins so is refused.

    While `version` is 0 only CONNECT is right; afterwards it is wrong.
    """
    return _REFUSALS[version, from_client]


def remaining_length(data: bytes, position: int, size: int) -> tuple[int, int]:
    """Read the remaining length (2.1.4) that begins at `position`, looking up to `size` only.

    Returns it and the position behind it, or -1 and the bytes of it that must be there to get
    further. Raises MalformedPacket above four bytes and for one that is not the shortest
    encoding [MQTT-1.5.5-1].
    """
    length = 0
    for index in range(4):
        if position + index >= size:
            return -1, index + 1
        byte = data[position + index]
        length += (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if byte == 0 and index:
                raise MalformedPacket("the remaining length is longer than it must be")
            return length, position + index + 1
    raise MalformedPacket("the remaining length has more than four bytes")
