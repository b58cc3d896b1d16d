"""MQTT 3.1 and 3.1.1: how bytes have to be, in both directions."""

import pytest

from mqtrio.wire.packets import (
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    UnsubAck,
    Unsubscribe,
)
from tests.conformance import raw
from tests.conformance.peer import Peers, topic, unique
from tests.conformance.rules import rule
from tests.conformance.scripts3 import (
    both,
    connect,
    connect_refused,
    publish,
    refused,
    subscribe,
    unsubscribe,
)

NOT_UTF_8 = {
    "surrogate": b"a\xed\xa0\x80b",
    "surrogate pair": b"\xed\xa0\xbd\xed\xb8\x80",
    "overlong": b"\xc0\xaf",
    "beyond the last character": b"\xf4\x90\x80\x80",
    "no character at all": b"\xff",
    "cut short": b"a\xe2\x82",
}
not_utf_8 = pytest.mark.parametrize("bad", NOT_UTF_8.values(), ids=NOT_UTF_8)

# -- text fields ------


@rule("MQTT-1.5.3-1")
@not_utf_8
@both
async def test_text_that_is_not_utf_8(peer: Peers, bad: bytes) -> None:
    await refused(peer, publish(bad))
    await refused(peer, subscribe(1, (bad, 0)))
    await refused(peer, unsubscribe(1, bad))


@rule("MQTT-1.5.3-2")
async def test_zero_character_in_a_text_field(peer: Peers) -> None:
    await refused(peer, publish(b"a\0b"))
    zero = raw.text(unique() + "\0")
    name = raw.text(unique())
    await connect_refused(peer, connect(zero))
    await connect_refused(peer, connect(name, zero, flags=0x82))
    await connect_refused(peer, connect(name, zero, raw.text("x"), flags=0x06))


@rule("MQTT-1.5.3-3")
@both
async def test_zero_width_no_break_space_stays_where_it_is(peer: Peers) -> None:
    name = topic("\ufeffstart", "in\ufeffside", "end\ufeff")
    async with peer() as p:
        await p.connect()
        await p.subscribe(name)
        await p.send(publish(name.encode(), b"x"))
        await p.message(topic=name)
        assert p.last_frame == publish(name.encode(), b"x")


@rule("MQTT-3.1.3-4")
@not_utf_8
@both
async def test_client_identifier_that_is_not_utf_8(peer: Peers, speaks: int, bad: bytes) -> None:
    await connect_refused(peer, connect(raw.binary(bad), version=speaks))


@rule("MQTT-3.1.3-10")
@not_utf_8
@both
async def test_will_topic_that_is_not_utf_8(peer: Peers, speaks: int, bad: bytes) -> None:
    fields = (raw.text(unique()), raw.binary(bad), raw.binary(b"gone"))
    await connect_refused(peer, connect(*fields, version=speaks, flags=0x06))


@rule("MQTT-3.1.3-11")
@not_utf_8
async def test_user_name_that_is_not_utf_8(peer: Peers, bad: bytes) -> None:
    await connect_refused(peer, connect(raw.text(unique()), raw.binary(bad), flags=0x82))


# -- the fixed header ------


@rule("MQTT-2.2.2-1")
@both
async def test_first_byte_of_what_the_server_sends(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await p.connect()
        assert p.last_frame == b"\x20\x02\x00\x00"
        await p.send(Subscribe(1, (SubscriptionRequest(name, 2),)))
        await p.expect(SubAck)
        assert p.last_frame == b"\x90\x03\x00\x01\x02"
        await p.send(Publish(topic(), b"x", 1, packet_id=2))
        await p.expect(PubAck)
        assert p.last_frame == b"\x40\x02\x00\x02"
        await p.send(Publish(topic(), b"x", 2, packet_id=3))
        await p.expect(PubRec)
        assert p.last_frame == b"\x50\x02\x00\x03"
        await p.send(PubRel(3))
        await p.expect(PubComp)
        assert p.last_frame == b"\x70\x02\x00\x03"
        await p.send(PingReq())
        await p.expect(PingResp)
        assert p.last_frame == b"\xd0\x00"
        await p.send(Unsubscribe(4, (name,)))
        await p.expect(UnsubAck)
        assert p.last_frame == b"\xb0\x02\x00\x04"


FLAGS = {
    "PUBACK": raw.frame(0x41, raw.uint16(1)),
    "PUBREC": raw.frame(0x52, raw.uint16(1)),
    "PUBCOMP": raw.frame(0x78, raw.uint16(1)),
    "PINGREQ": b"\xc4\x00",
}


@rule("MQTT-2.2.2-2")
@pytest.mark.parametrize("packet", FLAGS.values(), ids=FLAGS)
async def test_reserved_flags_of_the_fixed_header(peer: Peers, packet: bytes) -> None:
    await refused(peer, packet)


@rule("MQTT-2.2.2-2")
@pytest.mark.parametrize("first_byte", [0x11, 0x12, 0x18])
async def test_reserved_flags_of_connect(peer: Peers, first_byte: int) -> None:
    await connect_refused(peer, connect(raw.text(unique()), first_byte=first_byte))


@rule("MQTT-3.3.1-4")
@pytest.mark.parametrize("first_byte", [0x36, 0x37, 0x3E])
@both
async def test_publish_with_qos_3(peer: Peers, first_byte: int) -> None:
    await refused(peer, publish(b"a", b"x", 2, 1, first_byte=first_byte))


@rule("MQTT-3.6.1-1")
@pytest.mark.parametrize("first_byte", [0x60, 0x61, 0x63, 0x6A])
async def test_flags_of_pubrel_from_the_client(peer: Peers, first_byte: int) -> None:
    async with peer() as p:
        await p.connect()
        await p.send(publish(topic().encode(), b"x", 2, 5))
        await p.expect(PubRec, packet_id=5)
        await p.send(raw.frame(first_byte, raw.uint16(5)))
        await p.closed_silently()


@rule("MQTT-3.6.1-1")
@both
async def test_flags_of_pubrel_from_the_server(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await p.connect()
        await p.subscribe(name, 2)
        await p.publish(name, b"x", 2)
        got = await p.expect(Publish, qos=2)
        await p.send(PubRec(got.packet_id))
        await p.expect(PubRel, packet_id=got.packet_id)
        assert p.last_frame == raw.frame(0x62, raw.uint16(got.packet_id))


@rule("MQTT-3.8.1-1")
@pytest.mark.parametrize("first_byte", [0x80, 0x81, 0x83, 0x8A])
async def test_flags_of_subscribe(peer: Peers, first_byte: int) -> None:
    await refused(peer, subscribe(1, (b"a", 0), first_byte=first_byte))


@rule("MQTT-3.10.1-1")
@pytest.mark.parametrize("first_byte", [0xA0, 0xA1, 0xA3, 0xAA])
async def test_flags_of_unsubscribe(peer: Peers, first_byte: int) -> None:
    await refused(peer, unsubscribe(1, b"a", first_byte=first_byte))


@rule("MQTT-3.14.1-1")
@pytest.mark.parametrize("first_byte", [0xE1, 0xE2, 0xE8])
async def test_flags_of_disconnect(peer: Peers, first_byte: int) -> None:
    await refused(peer, bytes([first_byte, 0]))


@rule("X-3-DUPHDR-1")
@pytest.mark.parametrize("speaks", [3], ids=["3.1"])
async def test_repeated_packets_of_mqtt_3_1_are_marked(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await p.connect()
        await p.send(subscribe(1, (name.encode(), 1), first_byte=0x8A))
        await p.expect(SubAck, packet_id=1, reason_codes=(1,))
        await p.send(Publish(name, b"x", 2, packet_id=2))
        await p.answer(PubRec, packet_id=2)
        await p.send(raw.frame(0x6A, raw.uint16(2)))
        await p.answer(PubComp, packet_id=2)
        await p.message(payload=b"x", qos=1)
        await p.send(unsubscribe(3, name.encode(), first_byte=0xAA))
        await p.expect(UnsubAck, packet_id=3)
        await p.nothing()


NO_PACKET = {
    "type 0": b"\x00\x00",
    "type 0 with flags": b"\x0f\x00",
    "type 15": b"\xf0\x00",
    "type 15 with flags": b"\xff\x00",
    "length of five bytes": b"\x30\x80\x80\x80\x80\x01",
    "endless length": b"\x30\xff\xff\xff\xff\xff",
}


@rule("X-3-LENGTH-1")
@pytest.mark.parametrize("data", NO_PACKET.values(), ids=NO_PACKET)
@both
async def test_what_is_no_packet_at_all(peer: Peers, data: bytes) -> None:
    await refused(peer, data)
    await connect_refused(peer, data)


@rule("X-3-LENGTH-1")
@pytest.mark.parametrize("remaining_length", [127, 128, 16_383, 16_384, 300_000])
async def test_remaining_length_of_one_byte_or_more(peer: Peers, remaining_length: int) -> None:
    name = topic()
    payload = bytes(remaining_length - 2 - len(name))
    async with peer() as p:
        await p.connect()
        await p.subscribe(name)
        await p.publish(name, payload)
        await p.message(payload=payload)
        assert p.last_frame == raw.frame(0x30, raw.text(name), payload)
        assert p.last_frame[1:].startswith(raw.integer(remaining_length) + raw.text(name))


# -- packet identifiers ------

NO_IDENTIFIER = {
    "SUBSCRIBE": subscribe(0, (b"a", 0)),
    "UNSUBSCRIBE": unsubscribe(0, b"a"),
    "PUBLISH QoS 1": publish(b"a", b"x", 1, 0),
    "PUBLISH QoS 2": publish(b"a", b"x", 2, 0),
}


@rule("MQTT-2.3.1-1")
@pytest.mark.parametrize("packet", NO_IDENTIFIER.values(), ids=NO_IDENTIFIER)
@both
async def test_packet_identifier_0(peer: Peers, packet: bytes) -> None:
    await refused(peer, packet)


@rule("MQTT-2.3.1-5")
@both
async def test_qos_0_has_no_packet_identifier(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await p.subscribe(name, 2)
        await q.publish(name, b"zero", 0)
        await p.message(payload=b"zero", qos=0)
        assert p.last_frame == publish(name.encode(), b"zero")


# -- options and topics ------


@rule("MQTT-3.8.3-4")
@pytest.mark.parametrize("options", [0x03, 0x04, 0x08, 0x11, 0x41, 0x80, 0xFF])
async def test_qos_3_and_reserved_bits_of_subscribe(peer: Peers, options: int) -> None:
    await refused(peer, subscribe(1, (b"a", options)))
    await refused(peer, subscribe(1, (b"a", 0), (b"b", options)))


@rule("MQTT-4.7.3-2")
@pytest.mark.parametrize(
    "packet",
    [publish(b"a\0b"), subscribe(1, (b"a/\0", 0)), unsubscribe(1, b"\0")],
    ids=["PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE"],
)
@both
async def test_zero_character_in_topics_and_filters(peer: Peers, packet: bytes) -> None:
    await refused(peer, packet)


@rule("MQTT-4.7.3-3")
@both
async def test_topic_of_65535_bytes(peer: Peers) -> None:
    name = topic()
    name += "x" * (65_535 - len(name))
    async with peer() as p:
        await p.connect()
        await p.subscribe(name)
        await p.publish(name, b"long", 1)
        await p.message(topic=name, payload=b"long")
