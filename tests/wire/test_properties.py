"""Every property in every packet: where it may stand, how often, and what it may hold.

The table here is written down a second time from table 2-4 of the standard.
"""

import pytest

from mqtrio.errors import ProtocolError
from mqtrio.wire.packets import Packet
from mqtrio.wire.primitives import encode_variable
from mqtrio.wire.properties import PROPERTIES
from tests.wire.decoding import decode, decoder_for

#: Identifier -> packets that may have it, and an encoded value.
STANDARD = {
    0x01: ("PUBLISH will", b"\1"),
    0x02: ("PUBLISH will", b"\0\0\0\1"),
    0x03: ("PUBLISH will", b"\0\1x"),
    0x08: ("PUBLISH will", b"\0\1x"),
    0x09: ("PUBLISH will", b"\0\1\xff"),
    0x0B: ("PUBLISH SUBSCRIBE", b"\x80\1"),
    0x11: ("CONNECT CONNACK DISCONNECT", b"\0\0\0\0"),
    0x12: ("CONNACK", b"\0\1x"),
    0x13: ("CONNACK", b"\0\0"),
    0x15: ("CONNECT CONNACK AUTH", b"\0\1x"),
    0x16: ("CONNECT CONNACK AUTH", b"\0\1\xff"),
    0x17: ("CONNECT", b"\0"),
    0x18: ("will", b"\0\0\0\1"),
    0x19: ("CONNECT", b"\1"),
    0x1A: ("CONNACK", b"\0\1x"),
    0x1C: ("CONNACK DISCONNECT", b"\0\1x"),
    0x1F: ("CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH", b"\0\1x"),
    0x21: ("CONNECT CONNACK", b"\0\1"),
    0x22: ("CONNECT CONNACK", b"\0\1"),
    0x23: ("PUBLISH", b"\0\1"),
    0x24: ("CONNACK", b"\1"),
    0x25: ("CONNACK", b"\1"),
    0x26: (
        "CONNECT CONNACK PUBLISH will PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE "
        "UNSUBACK DISCONNECT AUTH",
        b"\0\1x\0\1y",
    ),
    0x27: ("CONNECT CONNACK", b"\0\0\0\1"),
    0x28: ("CONNACK", b"\1"),
    0x29: ("CONNACK", b"\1"),
    0x2A: ("CONNACK", b"\1"),
}

_CONNECT = b"\0\4MQTT\5"

#: Packet -> (first byte, sent by a client, what stands before the properties, and behind them).
PACKETS = {
    "CONNECT": (0x10, True, _CONNECT + b"\2\0\0", b"\0\0"),
    "will": (0x10, True, _CONNECT + b"\6\0\0\0\0\0", b"\0\1w\0\0"),
    "CONNACK": (0x20, False, b"\0\0", b""),
    "PUBLISH": (0x30, False, b"\0\1t", b"payload"),
    "PUBACK": (0x40, True, b"\0\1\0", b""),
    "PUBREC": (0x50, True, b"\0\1\0", b""),
    "PUBREL": (0x62, True, b"\0\1\0", b""),
    "PUBCOMP": (0x70, True, b"\0\1\0", b""),
    "SUBSCRIBE": (0x82, True, b"\0\1", b"\0\1t\0"),
    "SUBACK": (0x90, False, b"\0\1", b"\0"),
    "UNSUBSCRIBE": (0xA2, True, b"\0\1", b"\0\1t"),
    "UNSUBACK": (0xB0, False, b"\0\1", b"\0"),
    "DISCONNECT": (0xE0, True, b"\0", b""),
    "AUTH": (0xF0, True, b"\x18", b""),
}


def put(packet: str, properties: bytes) -> list[Packet]:
    """Decode a packet with these properties, and the ones that they can't be without."""
    first, from_client, before, behind = PACKETS[packet]
    method = b"\x15\0\1x"
    if (packet == "AUTH" or properties[:1] == b"\x16") and method not in properties:
        properties += method
    body = before + encode_variable(len(properties)) + properties + behind
    data = bytes([first]) + encode_variable(len(body)) + body
    version = 0 if first == 0x10 else 5
    return decode(decoder_for(None, version, from_client=from_client), data)


def refusal(packet: str, properties: bytes) -> int:
    with pytest.raises(ProtocolError) as caught:
        put(packet, properties)
    return caught.value.reason_code


def encoded(identifier: int) -> bytes:
    return bytes([identifier]) + STANDARD[identifier][1]


@pytest.mark.parametrize("packet", PACKETS)
def test_each_property_stands_where_it_may(packet: str) -> None:
    for identifier, (packets, _) in STANDARD.items():
        if packet in packets.split():
            assert len(put(packet, encoded(identifier))) == 1
        else:
            assert refusal(packet, encoded(identifier)) == 0x81, hex(identifier)


@pytest.mark.parametrize("packet", PACKETS)
def test_each_property_stands_as_often_as_it_may(packet: str) -> None:
    for identifier, (packets, _) in STANDARD.items():
        if packet not in packets.split():
            continue
        if identifier == 0x26 or (identifier == 0x0B and packet == "PUBLISH"):
            assert len(put(packet, encoded(identifier) * 3)) == 1
        else:
            assert refusal(packet, encoded(identifier) * 2) == 0x82, hex(identifier)


@pytest.mark.parametrize("packet", PACKETS)
def test_no_other_identifier_is_known(packet: str) -> None:
    for identifier in sorted(set(range(0x100)) - set(STANDARD)):
        assert refusal(packet, encode_variable(identifier) + b"\0\0\0\0") == 0x81
    assert refusal(packet, b"\xa6\0" + b"\0\1x\0\1y") == 0x81  # 0x26 in two bytes


@pytest.mark.parametrize("packet", PACKETS)
def test_a_property_ends_where_the_properties_end(packet: str) -> None:
    for identifier, (packets, _) in STANDARD.items():
        whole = encoded(identifier)
        if packet in packets.split() and packet != "AUTH" and identifier != 0x16:
            for end in range(1, len(whole)):
                assert refusal(packet, whole[:end]) == 0x81


@pytest.mark.parametrize(
    ("packet", "properties", "reason_code"),
    [
        ("CONNECT", b"\x21\0\0", 0x82),
        ("CONNACK", b"\x21\0\0", 0x82),
        ("CONNECT", b"\x27\0\0\0\0", 0x82),
        ("CONNACK", b"\x27\0\0\0\0", 0x82),
        ("PUBLISH", b"\x23\0\0", 0x94),
        ("PUBLISH", b"\x0b\0", 0x82),
        ("SUBSCRIBE", b"\x0b\0", 0x82),
        ("PUBLISH", b"\x01\2", 0x82),
        ("will", b"\x01\xff", 0x82),
        ("CONNECT", b"\x17\2", 0x82),
        ("CONNECT", b"\x19\2", 0x82),
        *(("CONNACK", bytes([flag, 2]), 0x82) for flag in (0x24, 0x25, 0x28, 0x29, 0x2A)),
        ("PUBLISH", b"\x08\0\1#", 0x82),
        ("will", b"\x08\0\3a/+", 0x82),
        ("PUBLISH", b"\x26\0\1x\0\1\0", 0x81),
        ("PUBLISH", b"\x26\0\1\xff\0\1x", 0x81),
        ("PUBLISH", b"\x0b\xff\xff\xff\xff\1", 0x81),
        ("PUBLISH", b"\x0b\x81\0", 0x81),
    ],
)
def test_values(packet: str, properties: bytes, reason_code: int) -> None:
    assert refusal(packet, properties) == reason_code


def test_our_table_has_the_rows_of_the_standard() -> None:
    assert PROPERTIES.keys() == STANDARD.keys()
