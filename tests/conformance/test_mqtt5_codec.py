"""MQTT 5: how bytes have to be, in both directions."""

import pytest

from mqtrio.wire.packets import (
    PingResp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    UnsubAck,
)
from tests.conformance import raw
from tests.conformance.peer import Peers, topic
from tests.conformance.rules import rule
from tests.conformance.scripts import connect_refused, refused

NOT_UTF_8 = {
    "surrogate": b"a\xed\xa0\x80b",
    "surrogate pair": b"\xed\xa0\xbd\xed\xb8\x80",
    "overlong": b"\xc0\xaf",
    "beyond the last character": b"\xf4\x90\x80\x80",
    "no character at all": b"\xff",
    "cut short": b"a\xe2\x82",
}
not_utf_8 = pytest.mark.parametrize("bad", NOT_UTF_8.values(), ids=NOT_UTF_8)


@rule("MQTT-1.5.4-1")
@not_utf_8
async def test_text_that_is_not_utf_8(peer: Peers, bad: bytes) -> None:
    await refused(peer, raw.publish(bad))
    await refused(peer, raw.subscribe(1, [(bad, 0)]))


@rule("MQTT-1.5.4-2")
async def test_zero_character_in_a_text_field(peer: Peers) -> None:
    await refused(peer, raw.publish(b"a", property_list=raw.properties(b"\x03" + raw.text("a\0b"))))
    await refused(peer, raw.frame(0xE0, b"\x00", raw.properties(b"\x1f" + raw.text("\0"))))
    await connect_refused(peer, raw.connect(raw.text("a\0b")), 0x81, 0x85)


@rule("MQTT-1.5.4-3")
async def test_zero_width_no_break_space_stays_where_it_is(peer: Peers) -> None:
    name = topic("\ufeffstart", "in\ufeffside", "end\ufeff")
    async with peer() as p:
        await p.connect()
        await p.subscribe(name)
        await p.send(raw.publish(name.encode(), b"x"))
        await p.message(topic=name)
        assert name.encode() in p.last_frame


@rule("MQTT-1.5.5-1")
@pytest.mark.parametrize("number", [1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455])
async def test_subscription_identifier_comes_in_its_shortest_form(peer: Peers, number: int) -> None:
    name = topic()
    async with peer() as p:
        await p.connect()
        await p.subscribe(name, identifier=number)
        await p.publish(name, b"x")
        await p.message()
        identifier = raw.properties(b"\x0b" + raw.integer(number))
        assert p.last_frame == raw.publish(name.encode(), b"x", property_list=identifier)


@rule("MQTT-1.5.5-1")
@pytest.mark.parametrize("remaining_length", [127, 128, 16_383, 16_384, 300_000])
async def test_remaining_length_comes_in_its_shortest_form(
    peer: Peers, remaining_length: int
) -> None:
    name = topic()
    payload = bytes(remaining_length - 2 - len(name) - 1)
    async with peer() as p:
        await p.connect()
        await p.subscribe(name)
        await p.publish(name, payload)
        await p.message(payload=payload)
        assert p.last_frame[1:].startswith(raw.integer(remaining_length) + raw.text(name))


@rule("MQTT-1.5.5-1")
@pytest.mark.parametrize("in_header", [True, False])
async def test_lengths_longer_than_needed_are_not_passed_on(peer: Peers, in_header: bool) -> None:
    name = topic()
    good = raw.publish(name.encode(), b"x")
    length, body = good[1], good[2:]
    if in_header:
        bad = bytes([0x30, length | 0x80, 0x00]) + body
    else:
        bad = raw.publish(name.encode(), b"x", property_list=b"\x80\x00")
    async with peer() as p, peer() as q:
        await p.connect()
        await p.subscribe(name)
        await q.connect()
        await q.send(bad, b"\xc0\x00")
        if isinstance(await q.peek(), PingResp):  # it may be tolerated
            await p.message(payload=b"x")
            assert p.last_frame == good
        else:
            await q.expect_closed(0x81)
            await p.nothing(after=p)


@rule("MQTT-1.5.7-1")
@pytest.mark.parametrize("bad", [b"\xff", b"\0", b"\xed\xa0\x80"])
@pytest.mark.parametrize("in_name", [True, False])
async def test_bad_text_in_a_user_property(peer: Peers, bad: bytes, in_name: bool) -> None:
    pair = raw.user_property(bad, b"value") if in_name else raw.user_property(b"name", bad)
    await refused(peer, raw.publish(b"a", property_list=raw.properties(pair)))
    await refused(peer, raw.subscribe(1, [(b"a", 0)], property_list=raw.properties(pair)))
    await connect_refused(peer, raw.connect(raw.text(""), property_list=raw.properties(pair)), 0x81)


FLAGS = {
    "PUBACK": raw.frame(0x41, raw.uint16(1)),
    "PUBREC": raw.frame(0x52, raw.uint16(1)),
    "PUBCOMP": raw.frame(0x78, raw.uint16(1)),
    "PINGREQ": b"\xc4\x00",
    "DISCONNECT": b"\xe2\x00",
    "reserved type 0": b"\x00\x00",
}


@rule("MQTT-2.1.3-1")
@pytest.mark.parametrize("packet", FLAGS.values(), ids=FLAGS)
async def test_reserved_flags_of_the_fixed_header(peer: Peers, packet: bytes) -> None:
    await refused(peer, packet, codes=(0x81, 0x82) if packet[0] == 0 else (0x81,))


@rule("MQTT-2.1.3-1")
@pytest.mark.parametrize("first_byte", [0x11, 0x12, 0x18])
async def test_reserved_flags_of_connect(peer: Peers, first_byte: int) -> None:
    await connect_refused(peer, raw.connect(raw.text(""), first_byte=first_byte))


@rule("MQTT-2.2.1-2")
async def test_qos_0_has_no_packet_identifier(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await p.subscribe(name, 2)
        await q.publish(name, b"zero", 0)
        await p.message(payload=b"zero", qos=0)
        assert p.last_frame == raw.publish(name.encode(), b"zero")


NO_IDENTIFIER = {
    "SUBSCRIBE": raw.subscribe(0, [(b"a", 0)]),
    "UNSUBSCRIBE": raw.frame(0xA2, raw.uint16(0), b"\x00", raw.text("a")),
    "PUBLISH QoS 1": raw.publish(b"a", b"x", 1, 0),
    "PUBLISH QoS 2": raw.publish(b"a", b"x", 2, 0),
}


@rule("MQTT-2.2.1-3")
@pytest.mark.parametrize("packet", NO_IDENTIFIER.values(), ids=NO_IDENTIFIER)
async def test_packet_identifier_0(peer: Peers, packet: bytes) -> None:
    await refused(peer, packet, codes=(0x81, 0x82))


@rule("MQTT-2.2.2-1")
async def test_an_empty_property_list_is_written(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await p.connect()
        await p.send(Subscribe(7, (SubscriptionRequest(name, 1),)))
        suback = await p.expect(SubAck)
        if suback.reason_string is None and not suback.user_properties:
            assert p.last_frame == b"\x90\x04\x00\x07\x00\x01"
        await q.publish(name, b"x", 0)
        await p.message()
        assert p.last_frame == raw.frame(0x30, raw.text(name), b"\x00", b"x")
        await q.publish(name, b"x", 1)
        got = await p.message()
        assert p.last_frame == raw.frame(
            0x32, raw.text(name), raw.uint16(got.packet_id), b"\x00", b"x"
        )
        await p.send(raw.frame(0xA2, raw.uint16(8), b"\x00", raw.text(name)))
        unsuback = await p.expect(UnsubAck)
        if unsuback.reason_string is None and not unsuback.user_properties:
            assert p.last_frame == b"\xb0\x04\x00\x08\x00\x00"


@rule("MQTT-3.1.3-4")
@not_utf_8
async def test_client_identifier_that_is_not_utf_8(peer: Peers, bad: bytes) -> None:
    await connect_refused(peer, raw.connect(raw.binary(bad)), 0x81, 0x85)


@rule("MQTT-3.1.3-11")
@not_utf_8
async def test_will_topic_that_is_not_utf_8(peer: Peers, bad: bytes) -> None:
    will = b"\x00" + raw.binary(bad) + raw.binary(b"gone")
    await connect_refused(peer, raw.connect(raw.text(""), will, flags=0x06), 0x81)


@rule("MQTT-3.1.3-12")
@not_utf_8
async def test_user_name_that_is_not_utf_8(peer: Peers, bad: bytes) -> None:
    await connect_refused(peer, raw.connect(raw.text(""), raw.binary(bad), flags=0x82), 0x81)


@rule("MQTT-3.2.2-1")
async def test_acknowledge_flags_of_connack(peer: Peers) -> None:
    async with peer() as p:
        await p.connect(session_expiry_interval=30, session_present=False)
        assert p.last_frame[2 if p.last_frame[1] < 0x80 else 3] == 0
        await p.disconnect()
    async with peer(client_id=p.client_id) as p:
        await p.connect(clean_start=False, session_present=True)
        assert p.last_frame[2 if p.last_frame[1] < 0x80 else 3] == 1


@rule("MQTT-3.3.1-4")
@pytest.mark.parametrize("first_byte", [0x36, 0x37, 0x3E])
async def test_publish_with_qos_3(peer: Peers, first_byte: int) -> None:
    await refused(peer, raw.publish(b"a", b"x", 2, 1, first_byte=first_byte))


@rule("MQTT-3.6.1-1")
@pytest.mark.parametrize("first_byte", [0x60, 0x61, 0x63, 0x6A])
async def test_flags_of_pubrel_from_the_client(peer: Peers, first_byte: int) -> None:
    async with peer() as p:
        await p.connect()
        await p.send(raw.publish(topic().encode(), b"x", 2, 5))
        await p.expect(PubRec, packet_id=5)
        await p.send(raw.frame(first_byte, raw.uint16(5)))
        await p.expect_closed(0x81)


@rule("MQTT-3.6.1-1")
async def test_flags_of_pubrel_from_the_server(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await p.connect()
        await p.subscribe(name, 2)
        await p.publish(name, b"x", 2)
        got = await p.expect(Publish, qos=2)
        await p.send(PubRec(got.packet_id))
        await p.expect(PubRel, packet_id=got.packet_id)
        assert p.last_frame[0] == 0x62


@rule("MQTT-3.8.1-1")
@pytest.mark.parametrize("first_byte", [0x80, 0x81, 0x83, 0x8A])
async def test_flags_of_subscribe(peer: Peers, first_byte: int) -> None:
    await refused(peer, raw.subscribe(1, [(b"a", 0)], first_byte=first_byte))


@rule("MQTT-3.8.3-5")
@pytest.mark.parametrize("reserved", [0x40, 0x80, 0xC0])
async def test_reserved_subscription_options(peer: Peers, reserved: int) -> None:
    await refused(peer, raw.subscribe(1, [(b"a", reserved | 1)]))
    await refused(peer, raw.subscribe(1, [(b"a", 0), (b"b", reserved)]))


@rule("MQTT-3.10.1-1")
@pytest.mark.parametrize("first_byte", [0xA0, 0xA1, 0xA3, 0xAA])
async def test_flags_of_unsubscribe(peer: Peers, first_byte: int) -> None:
    await refused(peer, raw.frame(first_byte, raw.uint16(1), b"\x00", raw.text("a")))


@rule("MQTT-3.14.1-1")
@pytest.mark.parametrize("first_byte", [0xE1, 0xE2, 0xE8])
async def test_flags_of_disconnect(peer: Peers, first_byte: int) -> None:
    await refused(peer, bytes([first_byte, 0]))


@rule("MQTT-3.15.1-1")
@pytest.mark.parametrize("first_byte", [0xF1, 0xF2, 0xF8])
async def test_flags_of_auth(peer: Peers, first_byte: int) -> None:
    method = raw.properties(b"\x15" + raw.text("none"))
    await refused(peer, raw.frame(first_byte, b"\x18", method), codes=(0x81,))


@rule("MQTT-4.7.3-2")
@pytest.mark.parametrize(
    "packet",
    [
        raw.publish(b"a\0b"),
        raw.subscribe(1, [(b"a/\0", 0)]),
        raw.frame(0xA2, raw.uint16(1), b"\x00", raw.text("\0")),
    ],
    ids=["PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE"],
)
async def test_zero_character_in_topics_and_filters(peer: Peers, packet: bytes) -> None:
    await refused(peer, packet)


@rule("MQTT-4.7.3-3")
async def test_topic_of_65535_bytes(peer: Peers) -> None:
    name = topic()
    name += "x" * (65_535 - len(name))
    async with peer() as p:
        await p.connect()
        await p.subscribe(name)
        await p.publish(name, b"long", 1)
        await p.message(topic=name, payload=b"long")


EXPIRY = b"\x02" + raw.uint32(10)
REPEATED = {
    "CONNECT": raw.connect(
        raw.text(""), property_list=raw.properties((b"\x11" + raw.uint32(1)) * 2)
    ),
    "will": raw.connect(
        raw.text(""), raw.properties(EXPIRY * 2), raw.text("a"), raw.text(""), flags=0x06
    ),
    "PUBLISH": raw.publish(b"a", property_list=raw.properties(EXPIRY * 2)),
    "PUBACK": raw.frame(0x40, b"\x00\x01\x00", raw.properties((b"\x1f" + raw.text("why")) * 2)),
    "DISCONNECT": raw.frame(0xE0, b"\x00", raw.properties((b"\x1f" + raw.text("why")) * 2)),
}


@rule("X-5-PROP-1")
@pytest.mark.parametrize("packet", REPEATED.values(), ids=REPEATED)
async def test_property_given_twice(peer: Peers, packet: bytes) -> None:
    if packet[0] == raw.CONNECT:
        await connect_refused(peer, packet, 0x82)
    else:
        await refused(peer, packet, codes=(0x82,))


UNKNOWN = {
    "unknown in CONNECT": raw.connect(raw.text(""), property_list=raw.properties(b"\x7e\x00")),
    "of PUBLISH in CONNECT": raw.connect(raw.text(""), property_list=raw.properties(EXPIRY)),
    "of CONNECT in a will": raw.connect(
        raw.text(""),
        raw.properties(b"\x11" + raw.uint32(1)),
        raw.text("a"),
        raw.text(""),
        flags=0x06,
    ),
    "unknown in PUBLISH": raw.publish(b"a", property_list=raw.properties(b"\x04\x00")),
    "of a will in PUBLISH": raw.publish(
        b"a", property_list=raw.properties(b"\x18" + raw.uint32(1))
    ),
    "of CONNACK in PUBLISH": raw.publish(
        b"a", property_list=raw.properties(b"\x12" + raw.text("x"))
    ),
    "of PUBLISH in SUBSCRIBE": raw.subscribe(1, [(b"a", 0)], raw.properties(EXPIRY)),
    "of SUBSCRIBE in UNSUBSCRIBE": raw.frame(
        0xA2, raw.uint16(1), raw.properties(b"\x0b\x01"), raw.text("a")
    ),
    "of CONNECT in PUBACK": raw.frame(0x40, b"\x00\x01\x00", raw.properties(b"\x17\x01")),
}


@rule("X-5-PROP-1")
@pytest.mark.parametrize("packet", UNKNOWN.values(), ids=UNKNOWN)
async def test_property_unknown_or_out_of_place(peer: Peers, packet: bytes) -> None:
    if packet[0] == raw.CONNECT:
        await connect_refused(peer, packet, 0x81)
    else:
        await refused(peer, packet, codes=(0x81,))
