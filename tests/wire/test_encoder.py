"""The encoder's own rules: hot helpers, size limits, and values that can't be encoded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtrio.wire.encoder import (
    PINGREQ,
    PINGRESP,
    acknowledgement,
    encode,
    encode_within,
    publish_parts,
)
from mqtrio.wire.packets import (
    Acknowledgement,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    UnsubAck,
    Unsubscribe,
    Will,
)
from tests.wire.decoding import decode, decoder_for
from tests.wire.strategies import publishes

KINDS: dict[int, type[Acknowledgement]] = {4: PubAck, 5: PubRec, 6: PubRel, 7: PubComp}


class TestPublishParts:
    @given(st.data())
    @pytest.mark.parametrize("version", [3, 4, 5])
    def test_are_the_packet(self, version: int, data: st.DataObject) -> None:
        packet = data.draw(publishes(version, "server"))
        properties = packet.properties
        head, tail = publish_parts(
            packet.topic,
            packet.payload,
            packet.qos,
            packet.retain,
            properties,
            version,
            () if properties is None else properties.subscription_identifiers,
            0 if properties is None else properties.topic_alias or 0,
            packet.dup,
        )
        if packet.qos == 0:
            assert tail == b""
            whole = head
        else:
            whole = head + packet.packet_id.to_bytes(2, "big") + tail
        assert whole == encode(packet, version)

    @pytest.mark.parametrize(
        "size", [0, 100, 110, *range(118, 126), *range(16_374, 16_382), 16_384, 3_000_000]
    )
    @pytest.mark.parametrize("qos", [0, 1])
    def test_every_size_of_the_length(self, size: int, qos: int) -> None:
        packet = Publish("t", bytes(size), qos, packet_id=qos)
        for version in (3, 4, 5):
            decoder = decoder_for(None, version, limit=1 << 22)
            assert decode(decoder, encode(packet, version)) == [packet]

    def test_what_belongs_to_the_publisher_s_connection_stays_there(self) -> None:
        properties = PublishProperties(
            content_type="text", subscription_identifiers=(3,), topic_alias=9
        )
        head, _ = publish_parts("a", b"x", 0, False, properties, 5)
        expected = Publish("a", b"x", properties=PublishProperties(content_type="text"))
        assert decode(decoder_for(None, 5, from_client=False), head) == [expected]

    def test_alias_and_identifiers_of_the_receiver(self) -> None:
        head, _ = publish_parts("", b"x", 0, True, None, 5, (1, 2), 7)
        expected = PublishProperties(subscription_identifiers=(1, 2), topic_alias=7)
        assert decode(decoder_for(None, 5, from_client=False), head) == [
            Publish("", b"x", 0, True, properties=expected)
        ]

    @pytest.mark.parametrize(
        ("properties", "given_", "expected"),
        [
            (PublishProperties(message_expiry_interval=60), -1, 60),
            (PublishProperties(message_expiry_interval=60), 9, 9),
            (PublishProperties(message_expiry_interval=60), 0, 0),
            (None, 9, 9),
        ],
    )
    def test_message_expiry_interval(
        self, properties: PublishProperties | None, given_: int, expected: int
    ) -> None:
        head, _ = publish_parts("a", b"", 0, False, properties, 5, message_expiry_interval=given_)
        assert decode(decoder_for(None, 5), head) == [
            Publish("a", properties=PublishProperties(message_expiry_interval=expected))
        ]

    @pytest.mark.parametrize("version", [3, 4])
    def test_mqtt_3_gets_no_properties(self, version: int) -> None:
        properties = PublishProperties(content_type="text", user_properties=(("a", "b"),))
        head, _ = publish_parts("a", b"x", 0, False, properties, version, (1,), 0, False, 5)
        assert head == b"\x30\4\0\1ax"

    def test_user_properties_keep_their_order(self) -> None:
        pairs = (("b", "1"), ("a", "2"), ("b", "1"), ("", ""))
        packet = Publish("a", properties=PublishProperties(user_properties=pairs))
        assert decode(decoder_for(None, 5), encode(packet, 5)) == [packet]


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("kind", [4, 5, 6, 7])
@pytest.mark.parametrize("packet_id", [1, 255, 256, 65535])
@pytest.mark.parametrize("reason_code", [0, 0x92])
def test_acknowledgement(version: int, kind: int, packet_id: int, reason_code: int) -> None:
    expected = encode(KINDS[kind](packet_id, reason_code), version)
    assert acknowledgement(kind, packet_id, reason_code, version) == expected
    assert len(expected) == (5 if reason_code and version == 5 else 4)


def test_constants() -> None:
    for version in (3, 4, 5):
        assert encode(PingReq(), version) == PINGREQ
        assert encode(PingResp(), version) == PINGRESP


USER = (("key", "value"),)
SHORTENED: list[Packet] = [
    ConnAck(True, 0, 10, reason_string="why", user_properties=USER),
    PubAck(7, 0x87, "why", USER),
    PubRec(7, 0x87, "why", USER),
    PubRel(7, 0x92, "why", USER),
    PubComp(7, 0x92, "why", USER),
    SubAck(7, (0, 0x87), "why", USER),
    UnsubAck(7, (0, 0x87), "why", USER),
    Disconnect(0x8B, None, "why", USER, "other"),
    Auth(0x18, "K", b"data", "why", USER),
]


def fields(packet: Packet) -> tuple[object, ...]:
    return tuple(value for value in packet.fields() if value not in ("why", None, USER, ()))


@pytest.mark.parametrize("packet", SHORTENED, ids=lambda packet: type(packet).__name__)
class TestEncodeWithin:
    def test_fits(self, packet: Packet) -> None:
        encoded = encode(packet, 5)
        assert encode_within(packet, 5, len(encoded)) == encoded
        assert encode_within(packet, 5, 1 << 28) == encoded

    def test_without_reason_string(self, packet: Packet) -> None:
        size = len(encode(packet, 5))
        before = packet.fields()
        shorter = encode_within(packet, 5, size - 1)
        assert packet.fields() == before
        assert shorter is not None
        assert len(shorter) == size - 6
        assert b"why" not in shorter
        assert b"value" in shorter

    def test_without_both(self, packet: Packet) -> None:
        size = len(encode(packet, 5))
        shortest = encode_within(packet, 5, size - 7)
        assert shortest is not None
        assert len(shortest) <= size - 6 - 13
        (decoded,) = decode(decoder_for(None, 5, from_client=False), shortest)
        assert fields(decoded) == fields(packet)
        assert encode_within(packet, 5, len(shortest)) == shortest
        assert encode_within(packet, 5, len(shortest) - 1) is None


def test_nothing_is_left_out_of_a_publish() -> None:
    packet = Publish("a", b"x", properties=PublishProperties(user_properties=USER))
    assert encode_within(packet, 5, len(encode(packet, 5)) - 1) is None
    assert encode_within(packet, 5, len(encode(packet, 5))) == encode(packet, 5)


class TestMqtt3:
    def test_what_it_does_not_have_is_left_out(self) -> None:
        assert encode(PubAck(1, 0x80, "why", USER), 4) == b"\x40\2\0\1"
        assert encode(UnsubAck(1, (0x11,), "why", USER), 4) == b"\xb0\2\0\1"
        assert encode(Disconnect(0x8B, 5, "why", USER, "other"), 3) == b"\xe0\0"
        assert encode(Unsubscribe(1, ("a",), USER), 4) == b"\xa2\5\0\1\0\1a"
        request = SubscriptionRequest("a", 1, True, True, 2)
        assert encode(Subscribe(1, (request,), 5, USER), 4) == b"\x82\6\0\1\0\1a\1"

    def test_failures_of_suback(self) -> None:
        packet = SubAck(1, (0, 2, 0x87, 0x97), "why")
        assert encode(packet, 4) == b"\x90\6\0\1\0\2\x80\x80"
        # MQTT 3.1 has no failure code: as if QoS 0 were granted.
        assert encode(packet, 3) == b"\x90\6\0\1\0\2\0\0"

    def test_session_present_is_of_3_1_1(self) -> None:
        assert encode(ConnAck(True), 4) == b"\x20\2\1\0"
        assert encode(ConnAck(True), 3) == b"\x20\2\0\0"


@pytest.mark.parametrize(
    ("packet", "version"),
    [
        (Auth(), 4),
        (ConnAck(False, 0x87), 4),
        (Connect(4, "me"), 5),
        (Connect(4, "me", password=b"x"), 4),
        (Connect(5, "me\0"), 5),
        (Connect(5, "x" * 65_536), 5),
        (Connect(5, "\ud800"), 5),
        (Connect(5, "me", keep_alive=65_536), 5),
        (Connect(5, "me", receive_maximum=0), 5),
        (Connect(5, "me", receive_maximum=65_536), 5),
        (Connect(5, "me", session_expiry_interval=1 << 32), 5),
        (Connect(5, "me", will=Will("w", bytes(65_536))), 5),
        (Publish("a", b"", 1), 5),
        (Publish("a", b"", 1, packet_id=65_536), 4),
        (Publish("x" * 65_536), 4),
        (Publish("a", properties=PublishProperties(topic_alias=65_536)), 5),
        (Publish("a", properties=PublishProperties(subscription_identifiers=(0,))), 5),
        (Publish("a", properties=PublishProperties(subscription_identifiers=(1 << 28,))), 5),
        (Publish("a", properties=PublishProperties(payload_format_indicator=2)), 5),
        (PubAck(0), 4),
        (Subscribe(1, ()), 5),
        (Subscribe(0, (SubscriptionRequest("a"),)), 5),
        (Unsubscribe(1, ()), 4),
        (Will("a"), 5),
        (Publish("a", bytes(268_435_456)), 4),
    ],
)
def test_what_cant_be_encoded_is_a_value_error(packet: Packet, version: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode(packet, version)
