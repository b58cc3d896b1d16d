"""MQTT 5: the transport, and what is done with errors."""

import pytest

from mqtrio.wire.packets import ConnAck, Disconnect, Publish
from tests.conformance import raw
from tests.conformance.peer import Peers, topic, unique
from tests.conformance.rules import rule
from tests.conformance.scripts import MALFORMED, refused


@rule("MQTT-4.2.0-1")
async def test_an_ordered_stream_of_bytes(peer: Peers) -> None:
    """However the bytes are cut into pieces."""
    name = topic()
    payload = bytes(range(256)) * 1024
    async with peer() as p, peer() as q:
        for byte in raw.connect(raw.text(p.client_id)):
            await p.send(bytes([byte]))
        await p.expect_connack()
        await p.subscribe(name, 1)
        await q.connect()
        await q.publish(name, payload, 1)
        await p.message(payload=payload)
        small = b"".join(raw.publish(name.encode(), bytes([number])) for number in range(200))
        for start in range(0, len(small), 1000):
            await q.send(small[start : start + 1000])
        for number in range(200):
            await p.message(payload=bytes([number]))


ERRORS = {
    "remaining length of five bytes": (b"\x30\x80\x80\x80\x80\x01", (0x81,)),
    "CONNACK": (b"\x20\x03\x00\x00\x00", (0x81, 0x82)),
    "SUBACK": (b"\x90\x04\x00\x01\x00\x00", (0x81, 0x82)),
    "PINGRESP": (b"\xd0\x00", (0x81, 0x82)),
    "PINGREQ with a body": (b"\xc0\x01\x00", (0x81,)),
    "PUBACK cut short": (b"\x40\x01\x00", (0x81,)),
    "PUBACK with an unknown reason code": (raw.frame(0x40, b"\x00\x01\x42"), (0x81, 0x82)),
    "PUBLISH without properties": (raw.frame(0x30, raw.text("a")), (0x81,)),
    "properties longer than the packet": (raw.frame(0x30, raw.text("a"), b"\x7f"), (0x81,)),
    "property cut short": (raw.frame(0x30, raw.text("a"), b"\x02\x02\x00"), (0x81,)),
    "SUBSCRIBE without options": (
        raw.frame(0x82, b"\x00\x01\x00", raw.text("a")),
        (0x81,),
    ),
    "SUBSCRIBE without an identifier": (b"\x82\x00", (0x81,)),
    "payload format indicator of 2": (
        raw.publish(b"a", property_list=b"\x02\x01\x02"),
        (0x81, 0x82),
    ),
    "DISCONNECT with an unknown reason code": (b"\xe0\x01\x01", (0x81, 0x82)),
}


@rule("MQTT-4.13.1-1")
@pytest.mark.parametrize(("packet", "codes"), ERRORS.values(), ids=ERRORS)
async def test_malformed_packets_and_protocol_errors(
    peer: Peers, packet: bytes, codes: tuple[int, ...]
) -> None:
    await refused(peer, packet, codes=codes)


@rule("MQTT-4.13.1-1")
async def test_nobody_else_notices(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as other, peer() as q:
        for one in (p, other, q):
            await one.connect()
        await other.subscribe(name)
        await p.send(Publish(name, b"good"), MALFORMED, Publish(name, b"too late"))
        await p.expect_closed(0x81)
        await other.message(payload=b"good")
        await other.nothing(after=q)


@rule("MQTT-4.13.2-1")
async def test_failure_codes_mean_closing(peer: Peers) -> None:
    async with peer() as p, peer(client_id=p.client_id) as new:
        await p.connect()
        await new.connect()
        goodbye = await p.expect_closed(0x8E)
        assert goodbye is None or isinstance(goodbye, Disconnect)
    async with peer() as p:
        await p.send(p.connect_packet(authentication_method=unique("METHOD")))
        goodbye = await p.expect_closed(0x8C, 0x87)
        assert goodbye is None or isinstance(goodbye, ConnAck)


@rule("MQTT-4.13.2-1")
@pytest.mark.parametrize("reason_code", [0x80, 0x81, 0x82, 0x93, 0x97])
async def test_disconnect_with_a_failure_code(peer: Peers, reason_code: int) -> None:
    async with peer() as p:
        await p.connect()
        await p.send(Disconnect(reason_code))
        await p.closed_silently()
