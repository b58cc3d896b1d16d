"""MQTT 3.1 and 3.1.1: the transport, what is done with errors, and a client as plain as can be."""

import pytest

from mqtrio.wire.packets import Publish, Will
from tests.conformance import raw
from tests.conformance.peer import Peers, topic
from tests.conformance.rules import needs, rule
from tests.conformance.scripts3 import MALFORMED, PROTOCOLS, both, connect, publish, refused

# -- the transport ------


@rule("MQTT-7.1.1-1")
@both
async def test_an_ordered_stream_of_bytes(peer: Peers, speaks: int) -> None:
    """However the bytes are cut into pieces."""
    name = topic()
    payload = bytes(range(256)) * 1024
    async with peer() as p, peer() as q:
        for byte in connect(raw.text(p.client_id), version=speaks):
            await p.send(bytes([byte]))
        await p.expect_connack()
        await p.subscribe(name, 1)
        await q.connect()
        await q.publish(name, payload, 1)
        await p.message(payload=payload)
        small = b"".join(publish(name.encode(), bytes([number])) for number in range(200))
        for start in range(0, len(small), 1000):
            await q.send(small[start : start + 1000])
        for number in range(200):
            await p.message(payload=bytes([number]))


@rule("MQTT-7.0.0-2")
@both
async def test_a_whole_conversation_byte_by_byte(peer: Peers, speaks: int) -> None:
    """As the examples of the standard write it: nothing more is needed, and nothing more comes."""
    name, level = PROTOCOLS[speaks]
    client_id, t = raw.text("a" + topic()[-8:]), raw.text(topic())
    steps = [
        (raw.frame(0x10, raw.text(name), bytes([level, 2, 0, 10]), client_id), "20020000"),
        (raw.frame(0x82, b"\x00\x0a", t, b"\x02"), "9003000a02"),
        (raw.frame(0x30, t, b"zero"), raw.frame(0x30, t, b"zero").hex()),
        (raw.frame(0x32, topic_field := raw.text(topic()), b"\x00\x0b", b"one"), "4002000b"),
        (raw.frame(0x34, topic_field, b"\x00\x0c", b"two"), "5002000c"),
        (raw.frame(0x62, b"\x00\x0c"), "7002000c"),
        (b"\xc0\x00", "d000"),
        (raw.frame(0xA2, b"\x00\x0d", t), "b002000d"),
        (raw.frame(0x30, t, b"nobody wants it") + b"\xc0\x00", "d000"),
    ]
    async with peer() as p:
        for sent, answer in steps:
            await p.send(sent)
            await p.receive()
            assert p.last_frame.hex() == answer
        await p.send(b"\xe0\x00")
        assert await p.rest() == b""


# -- violations ------

ERRORS = {
    "CONNACK": b"\x20\x02\x00\x00",
    "SUBACK": b"\x90\x03\x00\x01\x00",
    "UNSUBACK": b"\xb0\x02\x00\x01",
    "PINGRESP": b"\xd0\x00",
    "PINGREQ with a body": b"\xc0\x01\x00",
    "DISCONNECT with a reason code": b"\xe0\x01\x00",
    "PUBACK cut short": b"\x40\x01\x00",
    "PUBACK with a reason code": b"\x40\x03\x00\x01\x00",
    "PUBREL of 0": b"\x62\x02\x00\x00",
    "SUBSCRIBE without an identifier": b"\x82\x00",
    "SUBSCRIBE cut short": b"\x82\x05\x00\x01\x00\x05a",
    "topic longer than the packet": raw.frame(0x30, b"\x00\x05a"),
}


@rule("MQTT-4.8.0-1")
@pytest.mark.parametrize("packet", ERRORS.values(), ids=ERRORS)
@both
async def test_protocol_violations(peer: Peers, packet: bytes) -> None:
    await refused(peer, packet)


@rule("MQTT-4.8.0-1")
@both
async def test_violation_counts_as_a_lost_connection(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as other, peer() as q:
        await p.connect(will=Will(name, b"gone"))
        await other.connect()
        await q.connect()
        await other.subscribe(name)
        await p.send(Publish(name, b"good"), MALFORMED, Publish(name, b"too late"))
        await p.closed_silently()
        await other.message(payload=b"good")
        await other.message(payload=b"gone")
        await other.nothing(after=q)


@rule("MQTT-4.8.0-2")
@needs("limited")
@both
async def test_packet_for_which_there_is_no_room(peer: Peers) -> None:
    """The only fault of the server's own that a client can bring about at will."""
    name = topic()
    async with peer() as p, peer() as other, peer() as q:
        await other.connect()
        await other.subscribe(name)
        await p.connect(will=Will(name, b"gone"))
        await p.send(publish(name.encode(), bytes(3000)))
        await p.closed_silently()
        await other.message(payload=b"gone")
        await q.connect()
        await other.nothing(after=q)


@rule("MQTT-4.8.0-2")
@needs("limited")
@both
async def test_qos_that_is_switched_off(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        await p.publish(topic(), b"x", 1)
        await p.send(Publish(topic(), b"x", 2, packet_id=1))
        await p.closed_silently()
