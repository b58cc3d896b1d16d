"""The decoder as a stream: limits, pieces, order, and what it holds on to."""

import tracemalloc

import pytest

from mqtrio.errors import ProtocolError
from mqtrio.wire.bodies import MOST_TOPIC_FILTERS
from mqtrio.wire.decoder import Decoder, TopicCache
from mqtrio.wire.encoder import encode
from mqtrio.wire.packets import (
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PubAck,
    Publish,
    PublishProperties,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
)
from mqtrio.wire.primitives import encode_variable
from mqtrio.wire.properties import MOST_REPEATED
from tests.wire.decoding import decode, decoder_for


def code_of(decoder: Decoder, data: bytes) -> int:
    decoder.feed(data)
    with pytest.raises(ProtocolError) as caught:
        decoder.take(1)
    return caught.value.reason_code


def header(first: int, length: int) -> bytes:
    return bytes([first]) + encode_variable(length)


class TestMaximumPacketSize:
    @pytest.mark.parametrize("limit", [2, 20, 127, 128, 129, 130, 1000, 70_000])
    def test_a_packet_of_the_limit_passes_and_one_more_byte_does_not(self, limit: int) -> None:
        payload = bytes(limit)
        while len(encode(Publish("a", payload), 4)) > limit and payload:
            payload = payload[1:]
        packet = Publish("a", payload) if limit > 4 else PingReq()
        fitting = encode(packet, 4)
        # Where the length grows by a byte, no packet has exactly this size.
        assert len(fitting) in (limit, limit - 1)
        assert decode(decoder_for(None, 4, limit=limit), fitting) == [packet]
        larger = encode(Publish("a", payload + b"xx"), 4)
        assert code_of(decoder_for(None, 4, limit=limit), larger) == 0x95

    @pytest.mark.parametrize("version", [0, 3, 4, 5])
    def test_refused_from_the_header(self, version: int) -> None:
        decoder = decoder_for(None, version, limit=1000)
        first = 0x30 if version else 0x10
        decoder.feed(header(first, 998)[:2])
        assert decoder.take(1) == []
        assert code_of(decoder_for(None, version, limit=1000), header(first, 998)) == 0x95
        assert code_of(decoder_for(None, version, limit=1000), header(first, 268_435_455)) == 0x95

    def test_refused_from_a_header_in_pieces(self) -> None:
        decoder = decoder_for(None, 5, limit=1 << 20)
        for byte in header(0x30, 268_435_455)[:-1]:
            decoder.feed(bytes([byte]))
            assert decoder.take(1) == []
        assert code_of(decoder, b"\x7f") == 0x95

    def test_may_be_changed_between_packets(self) -> None:
        decoder = decoder_for(None, 5, limit=20)
        large = encode(Publish("a", bytes(500)), 5)
        decoder.feed(encode(PingReq(), 5) + large)
        assert decoder.take(1) == [PingReq()]
        decoder.maximum_packet_size = 1000
        assert decoder.maximum_packet_size == 1000
        assert decoder.take(1) == [Publish("a", bytes(500))]
        decoder.maximum_packet_size = 20
        assert code_of(decoder, large) == 0x95

    def test_wrong_packets_are_refused_from_the_header_too(self) -> None:
        assert code_of(decoder_for(None, 5), header(0x20, 1000)) == 0x82
        assert code_of(decoder_for(None, 5), header(0x36, 1000)) == 0x81
        assert code_of(decoder_for(None, 0), header(0x30, 1000)) == 0x82
        assert code_of(decoder_for(None, 4), b"\xf0\x10") == 0x81


class TestMemory:
    def test_a_declared_length_allocates_nothing(self) -> None:
        decoders = [decoder_for(None, 5, limit=268_435_460) for _ in range(20)]
        tracemalloc.start()
        try:
            for decoder in decoders:
                decoder.feed(header(0x30, 268_435_455) + b"\0\1a")
                assert decoder.take(10) == []
            assert tracemalloc.get_traced_memory()[1] < 20 * 2000
        finally:
            tracemalloc.stop()

    def test_small_pieces_cost_what_they_hold(self) -> None:
        decoder = decoder_for(None, 5, limit=268_435_460)
        decoder.feed(header(0x30, 268_435_455))
        tracemalloc.start()
        try:
            for _ in range(100_000):
                decoder.feed(bytes(2))
                assert decoder.take(1) == []
            assert tracemalloc.get_traced_memory()[0] < 2 * 200_000
        finally:
            tracemalloc.stop()
        assert decoder.buffered == 200_005

    def test_a_large_buffer_is_not_kept_for_its_last_bytes(self) -> None:
        decoder = decoder_for(None, 4)
        tracemalloc.start()
        try:
            decoder.feed(encode(Publish("a", bytes(500_000)), 4) + b"\x30")
            decoder.take(10)
            assert decoder.buffered == 1
            assert tracemalloc.get_traced_memory()[0] < 100_000
        finally:
            tracemalloc.stop()

    def test_an_error_drops_what_is_held(self) -> None:
        decoder = decoder_for(None, 4)
        tracemalloc.start()
        try:
            decoder.feed(b"\0\0" + bytes(500_000))
            with pytest.raises(ProtocolError):
                decoder.take(1)
            decoder.feed(bytes(500_000))
            assert tracemalloc.get_traced_memory()[0] < 100_000
        finally:
            tracemalloc.stop()
        assert decoder.buffered == 0

    # Copying everything at each step would take minutes here, not parts of a second.
    def test_a_large_packet_in_small_pieces_takes_linear_time(self) -> None:
        decoder = decoder_for(None, 4, limit=1 << 23)
        data = encode(Publish("a", bytes(4_000_000)), 4)
        for start in range(0, len(data) - 16, 16):
            decoder.feed(data[start : start + 16])
            decoder.take(1)
        assert decoder.take(1) == []
        decoder.feed(data[decoder.buffered :])
        assert decoder.take(1) == [Publish("a", bytes(4_000_000))]

    def test_a_backlog_takes_linear_time(self) -> None:
        decoder = decoder_for(None, 4)
        decoder.feed(encode(PingReq(), 4) * 2_000_000)
        for _ in range(100_000):
            decoder.feed(b"\xc0\0")
            assert len(decoder.take(1)) == 1
        assert decoder.buffered == 4_000_000

    def test_repeated_fields_are_bounded(self) -> None:
        """Five bytes become some hundred, so that the packet's size alone is a weak bound."""
        pairs = (("", ""),) * MOST_REPEATED
        packet = Publish("a", properties=PublishProperties(user_properties=pairs))
        assert decode(decoder_for(None, 5), encode(packet, 5)) == [packet]
        packet.properties = PublishProperties(user_properties=(*pairs, ("", "")))
        assert code_of(decoder_for(None, 5), encode(packet, 5)) == 0x97
        packet.properties = PublishProperties(subscription_identifiers=(1,) * (MOST_REPEATED + 1))
        assert code_of(decoder_for(None, 5, from_client=False), encode(packet, 5)) == 0x97

    @pytest.mark.parametrize("version", [3, 4, 5])
    def test_topic_filters_are_bounded(self, version: int) -> None:
        requests = (SubscriptionRequest("a"),) * MOST_TOPIC_FILTERS
        whole: list[Packet] = [
            Subscribe(1, requests),
            Unsubscribe(1, ("a",) * MOST_TOPIC_FILTERS),
        ]
        more: list[Packet] = [
            Subscribe(1, (*requests, SubscriptionRequest("a"))),
            Unsubscribe(1, ("a",) * (MOST_TOPIC_FILTERS + 1)),
        ]
        for packet, too_many in zip(whole, more, strict=True):
            assert decode(decoder_for(None, version), encode(packet, version)) == [packet]
            assert code_of(decoder_for(None, version), encode(too_many, version)) == 0x97


class TestTake:
    def test_at_most_the_limit(self) -> None:
        packets: list[Packet] = [Publish(str(index)) for index in range(10)]
        decoder = decoder_for(None, 4)
        decoder.feed(b"".join(encode(packet, 4) for packet in packets))
        assert decoder.take(0) == []
        assert decoder.take(3) == packets[:3]
        decoder.feed(encode(PingReq(), 4)[:1])
        assert decoder.take(7) == packets[3:]
        assert decoder.take(5) == []
        assert decoder.buffered == 1
        decoder.feed(encode(PingReq(), 4)[1:])
        assert decoder.take(5) == [PingReq()]
        assert decoder.buffered == 0

    def test_pending_says_whether_it_is_worth_it(self) -> None:
        decoder = decoder_for(None, 4)
        pending = [decoder.pending]
        for data in (b"\x40", b"\2\0", b"\1" + encode(PingReq(), 4) * 2, b"\xf0\0"):
            decoder.feed(data)
            pending.append(decoder.pending)
            decoder.take(1)
            pending.append(decoder.pending)
        assert pending == [False, False, False, True, False, True, True, True, True]

    def test_an_error_comes_after_what_was_before_it(self) -> None:
        decoder = decoder_for(None, 4)
        decoder.feed(encode(PubAck(1), 4) + b"\xf0\0" + encode(PubAck(2), 4))
        assert decoder.take(5) == [PubAck(1)]
        assert decoder.pending
        for _ in range(3):
            with pytest.raises(ProtocolError, match="0x81"):
                decoder.take(5)

    def test_nothing_is_decoded_beyond_the_limit(self) -> None:
        """So that the limit on packets may be raised once the client is let in."""
        decoder = decoder_for(Connect(), 0, limit=100)
        decoder.feed(encode(Connect(5, "me"), 5) + encode(Publish("a", bytes(200)), 5))
        assert decoder.take(1) == [Connect(5, "me")]
        decoder.maximum_packet_size = 1000
        assert decoder.take(1) == [Publish("a", bytes(200))]


class TestConnect:
    @pytest.mark.parametrize("version", [3, 4, 5])
    def test_packets_behind_it_are_read_in_its_version(self, version: int) -> None:
        packets: list[Packet] = [
            Connect(version, "me"),
            Publish("a/b", b"\0\0"),
            Subscribe(7, (SubscriptionRequest("a/#", 1),)),
            Publish("a/b", b"\0\0", 1, packet_id=9),
            Disconnect(),
        ]
        decoder = decoder_for(packets[0], 0)
        assert decoder.version == 0
        assert decode(decoder, b"".join(encode(p, version) for p in packets)) == packets
        assert decoder.version == version

    @pytest.mark.parametrize(
        ("start", "level"),
        [
            (b"\0\4MQTT\6", 6),
            (b"\0\4MQTT\3", 3),
            (b"\0\6MQIsdp\5", 5),
            (b"\0\4XXXX\4", 4),
            (b"\0\4MQTT\x84", 4),  # the bit of a bridge
        ],
    )
    def test_an_unknown_version_leaves_its_level(self, start: bytes, level: int) -> None:
        decoder = decoder_for(Connect(), 0)
        body = start + b"\2\0\0\0\0\0"
        assert code_of(decoder, header(0x10, len(body)) + body) == 0x84
        assert decoder.refused_level == level
        assert decoder.version == 0

    @pytest.mark.parametrize("level", [4, 5])
    def test_a_malformed_one_leaves_its_level_too(self, level: int) -> None:
        decoder = decoder_for(Connect(), 0)
        body = b"\0\4MQTT" + bytes([level]) + b"\xff"
        assert code_of(decoder, header(0x10, len(body)) + body) == 0x81
        assert decoder.refused_level == level

    def test_no_level_is_left_where_none_was_seen(self) -> None:
        decoder = decoder_for(Connect(), 0)
        assert code_of(decoder, b"\x10\3\0\4M") == 0x81
        assert decoder.refused_level == 0


class TestDupOfMqtt31:
    @pytest.mark.parametrize(
        "packet",
        [
            Subscribe(1, (SubscriptionRequest("a"),)),
            Unsubscribe(1, ("a",)),
        ],
    )
    def test_accepted_in_3_1_only(self, packet: Packet) -> None:
        data = bytearray(encode(packet, 3))
        data[0] |= 0x08
        assert decode(decoder_for(None, 3), bytes(data)) == [packet]
        assert code_of(decoder_for(None, 4), bytes(data)) == 0x81

    def test_pubrel(self) -> None:
        (packet,) = decode(decoder_for(None, 3), b"\x6a\2\0\7")
        assert encode(packet, 3) == b"\x62\2\0\7"


class TestFrame:
    """`Publish.frame`: the bytes as they came, where others may get the same ones."""

    @pytest.mark.parametrize("version", [3, 4, 5])
    @pytest.mark.parametrize("payload", [b"", b"x", bytes(200), bytes(20_000)])
    def test_qos_0(self, version: int, payload: bytes) -> None:
        data = encode(Publish("a/b", payload), version)
        packets = decode(decoder_for(None, version), data * 3)
        assert [packet.frame for packet in packets if isinstance(packet, Publish)] == [data] * 3

    def test_properties_are_part_of_it(self) -> None:
        properties = PublishProperties(content_type="text", user_properties=(("a", "b"),))
        data = encode(Publish("a/b", b"x", properties=properties), 5)
        (packet,) = decode(decoder_for(None, 5), b"\xc0\0" + data)[1:]
        assert isinstance(packet, Publish)
        assert packet.frame == data

    @pytest.mark.parametrize(
        "packet",
        [
            Publish("a", b"x", retain=True),
            Publish("a", b"x", 1, packet_id=1),
            Publish("a", b"x", 2, dup=True, packet_id=1),
            Publish("a", b"x", properties=PublishProperties(topic_alias=1)),
            Publish("", b"x", properties=PublishProperties(topic_alias=1)),
        ],
    )
    def test_none_where_others_get_other_bytes(self, packet: Publish) -> None:
        (decoded,) = decode(decoder_for(None, 5), encode(packet, 5))
        assert decoded == packet
        assert isinstance(decoded, Publish)
        assert decoded.frame is None

    def test_none_with_subscription_identifiers(self) -> None:
        properties = PublishProperties(subscription_identifiers=(1,))
        data = encode(Publish("a", b"x", properties=properties), 5)
        (decoded,) = decode(decoder_for(None, 5, from_client=False), data)
        assert isinstance(decoded, Publish)
        assert decoded.frame is None


class TestTopicCache:
    def test_one_str_for_one_topic(self) -> None:
        cache = TopicCache()
        data = encode(Publish("sensors/1", b"x"), 4)
        topics = []
        for _ in range(2):
            decoder = Decoder(1000, cache, version=4)
            decoder.feed(data * 2)
            topics += [packet.topic for packet in decoder.take(2) if isinstance(packet, Publish)]
        assert len({id(topic) for topic in topics}) == 1
        assert list(cache.known) == [b"\0\x09sensors/1"]

    def test_is_bounded(self) -> None:
        cache = TopicCache(maximum=10)
        decoder = Decoder(100_000, cache, version=4)
        packets: list[Packet] = [Publish(f"t/{index}") for index in range(100)]
        packets += [Publish("x" * 60_000), Publish("y" * 60_000)]
        decoder.feed(b"".join(encode(packet, 4) for packet in packets))
        assert decoder.take(200) == packets
        assert 0 < len(cache.known) <= 10
        assert max(map(len, cache.known)) < 300

    @pytest.mark.parametrize("field", [b"\0\1+", b"\0\1\xff", b"\0\1\0"])
    def test_holds_nothing_wrong(self, field: bytes) -> None:
        cache = TopicCache()
        for _ in range(2):
            decoder = Decoder(1000, cache, version=4)
            assert code_of(decoder, b"\x30\3" + field) in (0x81, 0x90)
        assert cache.known == {}

    @pytest.mark.parametrize("version", [4, 5])
    def test_a_topic_that_begins_like_the_last_one(self, version: int) -> None:
        packets: list[Packet] = [
            Publish(topic, payload)
            for topic, payload in [
                ("a/b", b"c"),
                ("a/bc", b""),
                ("a/b", b"c"),
                ("a", b"/bc"),
                ("a/b", b""),
                ("a/c", b"c"),
            ]
        ]
        data = b"".join(encode(packet, version) for packet in packets * 2)
        assert decode(decoder_for(None, version), data) == packets * 2

    def test_the_last_topic_never_reaches_into_the_next_packet(self) -> None:
        decoder = decoder_for(None, 4)
        good = encode(Publish("abcdef"), 4)
        decoder.feed(good + b"\x30\4\0\6ab" + b"cdef" + good)
        assert decoder.take(1) == [Publish("abcdef")]
        with pytest.raises(ProtocolError, match="0x81"):
            decoder.take(1)


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (b"\x16\x03\x01\x02\x00", "TLS"),
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"POST / HTTP/1.1\r\n", "HTTP or a PROXY header"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 5 6\r\n", "HTTP or a PROXY header"),
        (b"\r\n\r\n\0\r\nQUIT\n", "a PROXY header"),
    ],
)
def test_who_speaks_something_else_is_told_apart(said: bytes, what: str) -> None:
    decoder = decoder_for(None, 0)
    decoder.feed(said)
    with pytest.raises(ProtocolError, match=f"this is {what}, spoken to a listener of MQTT"):
        decoder.take(1)
