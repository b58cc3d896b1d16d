"""Packets as bytes and as values: one table for the tests of decoder, encoder and broker.

The bytes are written by hand from the standards, not by our encoder. `BAD` has bytes that a broker
must refuse, with the reason code of MQTT 5 and the statement that they break.
"""

from typing import Final, Literal, NamedTuple

from mqtrio.wire.packets import (
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

Sender = Literal["client", "server", "both"]

MQTT_3 = (3, 4)
ALL = (3, 4, 5)


class Vector(NamedTuple):
    """`data` on the wire is `packet`, in each of `versions`, when `sender` sends it.

    `exact` False: the decoder takes it, but the encoder writes the same packet in other bytes.
    """

    name: str
    data: bytes
    versions: tuple[int, ...]
    packet: Packet
    sender: Sender
    exact: bool = True


class Bad(NamedTuple):
    """`data` is refused with `reason_code`; it breaks `rule`.

    `version` 0: `data` is the first thing that a client sends. Otherwise it follows a CONNECT of
    that version. MQTT 3 has no such codes on the wire: they show what is meant.
    """

    name: str
    data: bytes
    version: int
    reason_code: int
    rule: str


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


CONNECTS: Final = [
    Vector(
        "3.1, clean",
        b"\x10\x12\0\6MQIsdp\3\2\0\x3c\0\4node",
        (3,),
        Connect(3, "node", True, 60),
        "client",
    ),
    Vector(
        "3.1 with everything",
        b"\x10\x27\0\6MQIsdp\3\xee\0\x0a\0\4node\0\1w\0\4gone\0\3ann\0\5\1\2\3\4\5",
        (3,),
        Connect(3, "node", True, 10, "ann", b"\1\2\3\4\5", Will("w", b"gone", 1, True)),
        "client",
    ),
    Vector(
        "3.1, user name and password announced and missing",
        b"\x10\x12\0\6MQIsdp\3\xc2\0\x3c\0\4node",
        (3,),
        Connect(3, "node", True, 60),
        "client",
        exact=False,
    ),
    Vector(
        "3.1.1, clean, no client identifier",
        b"\x10\x0c\0\4MQTT\4\2\0\0\0\0",
        (4,),
        Connect(4, "", True, 0),
        "client",
    ),
    Vector(
        "3.1.1, stored session",
        b"\x10\x10\0\4MQTT\4\0\xff\xff\0\4node",
        (4,),
        Connect(4, "node", False, 65535),
        "client",
    ),
    Vector(
        "3.1.1 with everything",
        b"\x10\x22\0\4MQTT\4\xd6\0\x0a\0\4node\0\1w\0\4gone\0\3ann\0\2\0\xff",
        (4,),
        Connect(4, "node", True, 10, "ann", b"\0\xff", Will("w", b"gone", 2)),
        "client",
    ),
    Vector(
        "5, clean",
        b"\x10\x11\0\4MQTT\5\2\0\x3c\0\0\4node",
        (5,),
        Connect(5, "node", True, 60),
        "client",
    ),
    Vector(
        "5, password without user name",
        b"\x10\x13\0\4MQTT\5\x40\0\x3c\0\0\4node\0\0",
        (5,),
        Connect(5, "node", False, 60, password=b""),
        "client",
    ),
    Vector(
        "5, will with QoS 2 and no properties",
        b"\x10\x17\0\4MQTT\5\x34\0\0\0\0\4node\0\0\1w\0\0",
        (5,),
        Connect(5, "node", False, 0, will=Will("w", b"", 2, True)),
        "client",
    ),
    Vector(
        "5 with everything",
        b"\x10\x74\0\4MQTT\5\xce\0\x0a"
        b"\x2d\x11\xff\xff\xff\xff\x21\0\x14\x27\0\1\0\0\x22\0\x0a\x19\1\x17\0"
        b"\x26\0\1a\0\1b\x26\0\1a\0\1c\x15\0\3KEY\x16\0\2\0\1"
        b"\0\4node"
        b"\x23\x18\0\0\0\5\1\1\2\0\0\0\x3c\3\0\4text\x08\0\1r\x09\0\2\xff\0\x26\0\1k\0\1v"
        b"\0\1w\0\4gone\0\3ann\0\2pw",
        (5,),
        Connect(
            5,
            "node",
            True,
            10,
            "ann",
            b"pw",
            Will(
                "w",
                b"gone",
                1,
                False,
                5,
                PublishProperties(1, 60, "text", "r", b"\xff\0", (("k", "v"),)),
            ),
            0xFFFFFFFF,
            20,
            65536,
            10,
            True,
            False,
            (("a", "b"), ("a", "c")),
            "KEY",
            b"\0\1",
        ),
        "client",
    ),
]

CONNACKS: Final = [
    Vector("accepted", b"\x20\2\0\0", MQTT_3, ConnAck(), "server"),
    Vector("session present", b"\x20\2\1\0", (4,), ConnAck(True), "server"),
    Vector("refused", b"\x20\2\0\5", MQTT_3, ConnAck(False, 5), "server"),
    Vector("accepted", b"\x20\3\0\0\0", (5,), ConnAck(), "server"),
    Vector("session present", b"\x20\3\1\0\0", (5,), ConnAck(True), "server"),
    Vector(
        "refused with a reason",
        b"\x20\x08\0\x87\5\x1f\0\2no",
        (5,),
        ConnAck(False, 0x87, reason_string="no"),
        "server",
    ),
    Vector(
        "with every property",
        b"\x20\x46\0\0\x43\x11\0\0\0\x0a\x21\0\5\x24\1\x25\0\x27\0\0\4\0\x12\0\2me\x22\0\7"
        b"\x1f\0\2ok\x26\0\1a\0\1b\x28\1\x29\0\x2a\1\x13\0\x1e\x1a\0\2r/\x1c\0\5b:123"
        b"\x15\0\1K\x16\0\1\0",
        (5,),
        ConnAck(
            session_expiry_interval=10,
            receive_maximum=5,
            maximum_qos=1,
            retain_available=False,
            maximum_packet_size=1024,
            assigned_client_identifier="me",
            topic_alias_maximum=7,
            reason_string="ok",
            user_properties=(("a", "b"),),
            wildcard_subscription_available=True,
            subscription_identifiers_available=False,
            shared_subscription_available=True,
            server_keep_alive=30,
            response_information="r/",
            server_reference="b:123",
            authentication_method="K",
            authentication_data=b"\0",
        ),
        "server",
    ),
]

PUBLISHES: Final = [
    Vector("QoS 0", b"\x30\7\0\3a/bhi", MQTT_3, Publish("a/b", b"hi"), "both"),
    Vector("empty payload", b"\x30\3\0\1a", MQTT_3, Publish("a"), "both"),
    Vector("retained", b"\x31\7\0\3a/bhi", MQTT_3, Publish("a/b", b"hi", 0, True), "both"),
    Vector(
        "QoS 1", b"\x32\x09\0\3a/b\0\7hi", MQTT_3, Publish("a/b", b"hi", 1, packet_id=7), "both"
    ),
    Vector(
        "QoS 2, empty payload",
        b"\x34\5\0\1a\xff\xff",
        MQTT_3,
        Publish("a", b"", 2, packet_id=65535),
        "both",
    ),
    Vector(
        "QoS 2, DUP, retained",
        b"\x3d\x09\0\3a/b\0\7hi",
        MQTT_3,
        Publish("a/b", b"hi", 2, True, True, 7),
        "both",
    ),
    Vector(
        "200 bytes",
        b"\x30\xcd\1\0\3a/b" + bytes(200),
        MQTT_3,
        Publish("a/b", bytes(200)),
        "both",
    ),
    Vector(
        "100,000 bytes",
        b"\x30\xa5\x8d\6\0\3a/b" + bytes(100_000),
        MQTT_3,
        Publish("a/b", bytes(100_000)),
        "both",
    ),
    Vector(
        "a byte order mark in the topic",
        b"\x30\6\0\4\xef\xbb\xbfa",
        MQTT_3,
        Publish("\ufeffa"),
        "both",
    ),
    Vector(
        "a topic of 65,535 bytes",
        b"\x30\x81\x80\4\xff\xff" + b"t" * 65535,
        MQTT_3,
        Publish("t" * 65535),
        "both",
    ),
    Vector("QoS 0", b"\x30\x08\0\3a/b\0hi", (5,), Publish("a/b", b"hi"), "both"),
    Vector("empty payload", b"\x30\4\0\1a\0", (5,), Publish("a"), "both"),
    Vector("retained", b"\x31\x08\0\3a/b\0hi", (5,), Publish("a/b", b"hi", 0, True), "both"),
    Vector(
        "QoS 1", b"\x32\x0a\0\3a/b\0\7\0hi", (5,), Publish("a/b", b"hi", 1, packet_id=7), "both"
    ),
    Vector(
        "QoS 2, empty payload",
        b"\x34\6\0\1a\xff\xff\0",
        (5,),
        Publish("a", b"", 2, packet_id=65535),
        "both",
    ),
    Vector(
        "QoS 1, DUP, retained",
        b"\x3b\x0a\0\3a/b\0\7\0hi",
        (5,),
        Publish("a/b", b"hi", 1, True, True, 7),
        "both",
    ),
    Vector(
        "200 bytes", b"\x30\xce\1\0\3a/b\0" + bytes(200), (5,), Publish("a/b", bytes(200)), "both"
    ),
    Vector(
        "topic and alias",
        b"\x30\x0b\0\3a/b\3\x23\0\1hi",
        (5,),
        Publish("a/b", b"hi", properties=PublishProperties(topic_alias=1)),
        "both",
    ),
    Vector(
        "alias alone",
        b"\x30\x08\0\0\3\x23\0\1hi",
        (5,),
        Publish("", b"hi", properties=PublishProperties(topic_alias=1)),
        "both",
    ),
    Vector(
        "what a client may say",
        b"\x32\x2e\0\3a/b\0\1\x24\1\1\2\0\0\0\x3c\3\0\4text\x08\0\1r\x09\0\2\xff\0"
        b"\x26\0\1k\0\1v\x26\0\1k\0\0{}",
        (5,),
        Publish(
            "a/b",
            b"{}",
            1,
            packet_id=1,
            properties=PublishProperties(1, 60, "text", "r", b"\xff\0", (("k", "v"), ("k", ""))),
        ),
        "both",
    ),
    Vector(
        "subscription identifiers",
        b"\x30\x10\0\3a/b\7\x0b\1\x0b\xff\xff\xff\x7f\1\2\3",
        (5,),
        Publish(
            "a/b",
            b"\1\2\3",
            properties=PublishProperties(subscription_identifiers=(1, 268_435_455)),
        ),
        "server",
    ),
]


def _acknowledgements() -> list[Vector]:
    vectors = []
    for first, make in ((0x40, PubAck), (0x50, PubRec), (0x62, PubRel), (0x70, PubComp)):
        name = make.__name__
        code = 0x92 if make in (PubRel, PubComp) else 0x80
        start = bytes([first])
        vectors += [
            Vector(f"{name}", start + b"\2\0\1", ALL, make(1), "both"),
            Vector(f"{name}, largest identifier", start + b"\2\xff\xff", ALL, make(65535), "both"),
            Vector(
                f"{name}, reason code",
                start + b"\3\0\7" + bytes([code]),
                (5,),
                make(7, code),
                "both",
            ),
            Vector(
                f"{name}, success written out", start + b"\3\0\7\0", (5,), make(7), "both", False
            ),
            Vector(
                f"{name}, no properties written out",
                start + b"\4\0\7" + bytes([code]) + b"\0",
                (5,),
                make(7, code),
                "both",
                False,
            ),
            Vector(
                f"{name}, properties",
                start + b"\x10\0\7" + bytes([code]) + b"\x0c\x1f\0\2no\x26\0\1a\0\1b",
                (5,),
                make(7, code, "no", (("a", "b"),)),
                "both",
            ),
        ]
    return vectors


SUBSCRIBES: Final = [
    Vector(
        "one filter",
        b"\x82\x08\0\1\0\3a/#\1",
        MQTT_3,
        Subscribe(1, (SubscriptionRequest("a/#", 1),)),
        "client",
    ),
    Vector(
        "two filters",
        b"\x82\x0a\0\2\0\1a\0\0\1+\2",
        MQTT_3,
        Subscribe(2, (SubscriptionRequest("a"), SubscriptionRequest("+", 2))),
        "client",
    ),
    Vector(
        "one filter",
        b"\x82\x09\0\1\0\0\3a/#\1",
        (5,),
        Subscribe(1, (SubscriptionRequest("a/#", 1),)),
        "client",
    ),
    Vector(
        "every option",
        b"\x82\x16\0\2\0\0\1a\x2e\0\1+\x11\0\x08$share/g\0",
        (5,),
        Subscribe(
            2,
            (
                SubscriptionRequest("a", 2, True, True, 2),
                SubscriptionRequest("+", 1, False, False, 1),
                SubscriptionRequest("$share/g"),
            ),
        ),
        "client",
    ),
    Vector(
        "identifier and user property",
        b"\x82\x11\0\3\x0a\x0b\x80\1\x26\0\1a\0\1b\0\1x\0",
        (5,),
        Subscribe(3, (SubscriptionRequest("x"),), 128, (("a", "b"),)),
        "client",
    ),
]

SUBACKS: Final = [
    Vector("granted", b"\x90\3\0\1\1", MQTT_3, SubAck(1, (1,)), "server"),
    Vector("three", b"\x90\5\0\1\0\1\2", MQTT_3, SubAck(1, (0, 1, 2)), "server"),
    Vector("refused", b"\x90\4\0\1\x80\0", (4,), SubAck(1, (0x80, 0)), "server"),
    Vector("granted", b"\x90\4\0\1\0\1", (5,), SubAck(1, (1,)), "server"),
    Vector("refused", b"\x90\6\0\1\0\x87\x8f\2", (5,), SubAck(1, (0x87, 0x8F, 2)), "server"),
    Vector(
        "properties",
        b"\x90\x10\0\1\x0c\x1f\0\2no\x26\0\1a\0\1b\x97",
        (5,),
        SubAck(1, (0x97,), "no", (("a", "b"),)),
        "server",
    ),
]

UNSUBSCRIBES: Final = [
    Vector("one", b"\xa2\x07\0\1\0\3a/#", MQTT_3, Unsubscribe(1, ("a/#",)), "client"),
    Vector("two", b"\xa2\x08\0\2\0\1a\0\1+", MQTT_3, Unsubscribe(2, ("a", "+")), "client"),
    Vector("one", b"\xa2\x08\0\1\0\0\3a/#", (5,), Unsubscribe(1, ("a/#",)), "client"),
    Vector("two", b"\xa2\x09\0\2\0\0\1a\0\1+", (5,), Unsubscribe(2, ("a", "+")), "client"),
    Vector(
        "user property",
        b"\xa2\x0d\0\3\7\x26\0\1a\0\1b\0\1x",
        (5,),
        Unsubscribe(3, ("x",), (("a", "b"),)),
        "client",
    ),
]

UNSUBACKS: Final = [
    Vector("plain", b"\xb0\2\0\1", MQTT_3, UnsubAck(1, ()), "server"),
    Vector("largest identifier", b"\xb0\2\xff\xff", MQTT_3, UnsubAck(65535, ()), "server"),
    Vector("done", b"\xb0\4\0\1\0\0", (5,), UnsubAck(1, (0,)), "server"),
    Vector("nothing there", b"\xb0\5\0\1\0\x11\0", (5,), UnsubAck(1, (0x11, 0)), "server"),
    Vector(
        "properties",
        b"\xb0\x10\0\1\x0c\x1f\0\2no\x26\0\1a\0\1b\x87",
        (5,),
        UnsubAck(1, (0x87,), "no", (("a", "b"),)),
        "server",
    ),
]

OTHERS: Final = [
    Vector("PINGREQ", b"\xc0\0", ALL, PingReq(), "client"),
    Vector("PINGRESP", b"\xd0\0", ALL, PingResp(), "server"),
    Vector("DISCONNECT", b"\xe0\0", MQTT_3, Disconnect(), "client"),
    Vector("DISCONNECT", b"\xe0\0", (5,), Disconnect(), "both"),
    Vector("DISCONNECT, success written out", b"\xe0\1\0", (5,), Disconnect(), "both", False),
    Vector("DISCONNECT with will", b"\xe0\1\4", (5,), Disconnect(4), "client"),
    Vector(
        "DISCONNECT, no properties written out", b"\xe0\2\4\0", (5,), Disconnect(4), "client", False
    ),
    Vector(
        "DISCONNECT, session expiry interval",
        b"\xe0\7\0\5\x11\0\0\0\x0a",
        (5,),
        Disconnect(0, 10),
        "client",
    ),
    Vector(
        "DISCONNECT, server moved",
        b"\xe0\x15\x9d\x13\x1f\0\2go\x26\0\1a\0\1b\x1c\0\4b:12",
        (5,),
        Disconnect(0x9D, None, "go", (("a", "b"),), "b:12"),
        "server",
    ),
    Vector("AUTH, success", b"\xf0\0", (5,), Auth(), "server"),
    Vector(
        "AUTH, continue",
        b"\xf0\x0b\x18\x09\x15\0\1K\x16\0\2\0\1",
        (5,),
        Auth(0x18, "K", b"\0\1"),
        "both",
    ),
    Vector("AUTH, again", b"\xf0\6\x19\4\x15\0\1K", (5,), Auth(0x19, "K"), "client"),
    Vector(
        "AUTH, properties",
        b"\xf0\x12\x18\x10\x15\0\1K\x1f\0\2go\x26\0\1a\0\1b",
        (5,),
        Auth(0x18, "K", None, "go", (("a", "b"),)),
        "both",
    ),
]

VECTORS: Final[list[Vector]] = [
    *CONNECTS,
    *CONNACKS,
    *PUBLISHES,
    *_acknowledgements(),
    *SUBSCRIBES,
    *SUBACKS,
    *UNSUBSCRIBES,
    *UNSUBACKS,
    *OTHERS,
]

MALFORMED, PROTOCOL_ERROR, VERSION, TOPIC, ALIAS = 0x81, 0x82, 0x84, 0x90, 0x94

_C3 = b"\0\6MQIsdp\3"
_C4 = b"\0\4MQTT\4"
_C5 = b"\0\4MQTT\5"


def _frame(first: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([first, len(body)]) + body


def _connect_bad() -> list[Bad]:
    def bad(name: str, body: bytes, code: int, rule: str) -> Bad:
        return Bad(name, _frame(0x10, body), 0, code, rule)

    def with_property(encoded: bytes) -> bytes:
        return _C5 + b"\2\0\0" + bytes([len(encoded)]) + encoded + b"\0\1c"

    def with_will_property(encoded: bytes) -> bytes:
        return _C5 + b"\6\0\0\0\0\1c" + bytes([len(encoded)]) + encoded + b"\0\1w\0\0"

    return [
        Bad("PUBLISH first", b"\x30\3\0\1a", 0, PROTOCOL_ERROR, "MQTT-3.1.0-1"),
        Bad("PINGREQ first", b"\xc0\0", 0, PROTOCOL_ERROR, "MQTT-3.1.0-1"),
        Bad("flags of CONNECT", _frame(0x11, _C4 + b"\2\0\0\0\0"), 0, MALFORMED, "MQTT-2.1.3-1"),
        bad("unknown name", b"\0\4XXXX\4\2\0\0\0\0", VERSION, "MQTT-3.1.2-1"),
        bad("name in small letters", b"\0\4mqtt\4\2\0\0\0\0", VERSION, "MQTT-3.1.2-1"),
        bad("level 6", b"\0\4MQTT\6\2\0\0\0\0\0", VERSION, "MQTT-3.1.2-2"),
        bad("level 0", b"\0\4MQTT\0\2\0\0\0\0", VERSION, "MQTT-3.1.2-2"),
        bad("MQTT with 3", b"\0\4MQTT\3\2\0\0\0\0", VERSION, "X-3-NAME-1"),
        bad("MQIsdp with 4", b"\0\6MQIsdp\4\2\0\0\0\1a", VERSION, "X-3-NAME-1"),
        bad("MQIsdp with 5", b"\0\6MQIsdp\5\2\0\0\0\0\1a", VERSION, "X-3-NAME-1"),
        bad("the level of a bridge", b"\0\4MQTT\x84\2\0\0\0\0", VERSION, "MQTT-3.1.2-2"),
        bad("nothing", b"", MALFORMED, "MQTT-3.1.4-1"),
        bad("no level", b"\0\4MQTT", MALFORMED, "MQTT-3.1.4-1"),
        bad("no client identifier", _C4 + b"\2\0\0", MALFORMED, "MQTT-3.1.3-3"),
        bad("reserved flag, 3.1.1", _C4 + b"\3\0\0\0\0", MALFORMED, "MQTT-3.1.2-3"),
        bad("reserved flag, 5", _C5 + b"\3\0\0\0\0\0", MALFORMED, "MQTT-3.1.2-3"),
        bad("will QoS without will", _C4 + b"\x0a\0\0\0\0", MALFORMED, "MQTT-3.1.2-11"),
        bad("will QoS without will, 5", _C5 + b"\x12\0\0\0\0\0", MALFORMED, "MQTT-3.1.2-11"),
        bad("will retain without will", _C5 + b"\x22\0\0\0\0\0", MALFORMED, "MQTT-3.1.2-13"),
        bad("will QoS 3", _C4 + b"\x1e\0\0\0\0\0\1w\0\0", MALFORMED, "MQTT-3.1.2-12"),
        bad("will QoS 3, 5", _C5 + b"\x1e\0\0\0\0\0\0\0\1w\0\0", MALFORMED, "MQTT-3.1.2-12"),
        bad("no will topic", _C4 + b"\6\0\0\0\0", MALFORMED, "MQTT-3.1.3-1"),
        bad("empty will topic", _C5 + b"\6\0\0\0\0\0\0\0\0\0\0", PROTOCOL_ERROR, "MQTT-4.7.3-1"),
        bad("wildcard in will topic", _C5 + b"\6\0\0\0\0\0\0\0\1#\0\0", TOPIC, "MQTT-4.7.0-1"),
        bad("wildcard in will topic, 3.1.1", _C4 + b"\6\0\0\0\0\0\1#\0\0", MALFORMED, "X-3-WILL-1"),
        bad(
            "will topic is not UTF-8",
            _C5 + b"\6\0\0\0\0\0\0\0\1\xff\0\0",
            MALFORMED,
            "MQTT-3.1.3-11",
        ),
        bad("password alone, 3.1.1", _C4 + b"\x42\0\0\0\0\0\1p", MALFORMED, "MQTT-3.1.2-22"),
        bad("password alone, 3.1", _C3 + b"\x42\0\0\0\1c\0\1p", MALFORMED, "MQTT-3.1.2-22"),
        bad("no user name", _C4 + b"\x82\0\0\0\0", MALFORMED, "MQTT-3.1.2-19"),
        bad("no user name, 5", _C5 + b"\x82\0\0\0\0\0", MALFORMED, "MQTT-3.1.2-17"),
        bad("surplus user name", _C4 + b"\2\0\0\0\0\0\1u", MALFORMED, "MQTT-3.1.2-18"),
        bad("surplus user name, 5", _C5 + b"\2\0\0\0\0\0\0\1u", MALFORMED, "MQTT-3.1.2-16"),
        bad("no password", _C5 + b"\xc2\0\0\0\0\0\0\1u", MALFORMED, "MQTT-3.1.2-19"),
        bad("surplus password", _C5 + b"\x82\0\0\0\0\0\0\1u\0\1p", MALFORMED, "MQTT-3.1.2-18"),
        bad(
            "surrogate in client identifier",
            _C5 + b"\2\0\0\0\0\3\xed\xa0\x80",
            MALFORMED,
            "MQTT-3.1.3-4",
        ),
        bad("NUL in client identifier", _C4 + b"\2\0\0\0\1\0", MALFORMED, "MQTT-1.5.3-2"),
        bad("user name is not UTF-8", _C5 + b"\x82\0\0\0\0\0\0\1\xc0", MALFORMED, "MQTT-3.1.3-12"),
        bad("receive maximum 0", with_property(b"\x21\0\0"), PROTOCOL_ERROR, "X-5-FLOW-1"),
        bad(
            "receive maximum twice",
            with_property(b"\x21\0\1\x21\0\1"),
            PROTOCOL_ERROR,
            "X-5-FLOW-1",
        ),
        bad("maximum packet size 0", with_property(b"\x27\0\0\0\0"), PROTOCOL_ERROR, "X-5-SIZE-2"),
        bad(
            "request problem information 2",
            with_property(b"\x17\2"),
            PROTOCOL_ERROR,
            "X-5-PROBLEM-1",
        ),
        bad(
            "request response information 2", with_property(b"\x19\2"), PROTOCOL_ERROR, "X-5-PROP-1"
        ),
        bad(
            "session expiry interval twice",
            with_property(b"\x11\0\0\0\1" * 2),
            PROTOCOL_ERROR,
            "X-5-PROP-1",
        ),
        bad("data without method", with_property(b"\x16\0\1x"), PROTOCOL_ERROR, "X-5-PROP-1"),
        bad("unknown property", with_property(b"\x7f\0"), MALFORMED, "X-5-PROP-1"),
        bad("property 0", with_property(b"\0\0"), MALFORMED, "X-5-PROP-1"),
        bad("will delay in CONNECT", with_property(b"\x18\0\0\0\1"), MALFORMED, "X-5-PROP-1"),
        bad("topic alias in CONNECT", with_property(b"\x23\0\1"), MALFORMED, "X-5-PROP-1"),
        bad("server keep alive in CONNECT", with_property(b"\x13\0\1"), MALFORMED, "X-5-PROP-1"),
        bad("half a property", with_property(b"\x11\0\0"), MALFORMED, "X-5-PROP-1"),
        bad("properties too long", _C5 + b"\2\0\0\x7f\x11\0\0\0\1\0\1c", MALFORMED, "X-5-PROP-1"),
        bad("half a pair", with_property(b"\x26\0\1a"), MALFORMED, "MQTT-1.5.7-1"),
        bad(
            "pair with a surrogate",
            with_property(b"\x26\0\1a\0\3\xed\xbf\xbf"),
            MALFORMED,
            "MQTT-1.5.7-1",
        ),
        bad("topic alias in a will", with_will_property(b"\x23\0\1"), MALFORMED, "X-5-PROP-1"),
        bad("will payload format 2", with_will_property(b"\1\2"), PROTOCOL_ERROR, "X-5-PROP-1"),
        bad(
            "wildcard in will's response topic",
            with_will_property(b"\x08\0\1+"),
            PROTOCOL_ERROR,
            "MQTT-3.3.2-14",
        ),
    ]


def _publish_5(encoded: bytes, topic: str = "a") -> bytes:
    return _frame(0x30, _text(topic) + bytes([len(encoded)]) + encoded)


_AFTER_5: Final = [
    Bad("type 0", b"\0\0", 5, MALFORMED, "X-3-LENGTH-1"),
    Bad("second CONNECT", _frame(0x10, _C5 + b"\2\0\0\0\0\0"), 5, PROTOCOL_ERROR, "MQTT-3.1.0-2"),
    Bad("CONNACK from a client", b"\x20\3\0\0\0", 5, PROTOCOL_ERROR, "MQTT-3.2.0-1"),
    Bad("SUBACK from a client", b"\x90\4\0\1\0\0", 5, PROTOCOL_ERROR, "MQTT-3.8.4-1"),
    Bad("UNSUBACK from a client", b"\xb0\4\0\1\0\0", 5, PROTOCOL_ERROR, "MQTT-3.10.4-4"),
    Bad("PINGRESP from a client", b"\xd0\0", 5, PROTOCOL_ERROR, "MQTT-3.12.4-1"),
    Bad("length of five bytes", b"\x30\x80\x80\x80\x80\1", 5, MALFORMED, "X-3-LENGTH-1"),
    Bad("length too long", b"\x30\x84\0\0\1a\0", 5, MALFORMED, "MQTT-1.5.5-1"),
    Bad("length far too long", b"\xc0\x80\x80\0", 5, MALFORMED, "MQTT-1.5.5-1"),
    Bad("PINGREQ with a body", b"\xc0\1\0", 5, MALFORMED, "MQTT-3.12.4-1"),
    *(
        Bad(f"flags of type {first >> 4}", bytes([first]) + b"\2\0\1", 5, MALFORMED, rule)
        for first, rule in (
            (0x41, "MQTT-2.1.3-1"),
            (0x52, "MQTT-2.1.3-1"),
            (0x60, "MQTT-3.6.1-1"),
            (0x6A, "MQTT-3.6.1-1"),
            (0x78, "MQTT-2.1.3-1"),
            (0x80, "MQTT-3.8.1-1"),
            (0x8A, "MQTT-3.8.1-1"),
            (0xA0, "MQTT-3.10.1-1"),
            (0xC1, "MQTT-2.1.3-1"),
            (0xE1, "MQTT-3.14.1-1"),
            (0xF1, "MQTT-3.15.1-1"),
        )
    ),
    # PUBLISH
    Bad("QoS 3", b"\x36\6\0\1a\0\1\0", 5, MALFORMED, "MQTT-3.3.1-4"),
    Bad("QoS 3 before a wildcard", b"\x36\6\0\1#\0\1\0", 5, MALFORMED, "MQTT-3.3.1-4"),
    Bad("DUP with QoS 0", b"\x38\4\0\1a\0", 5, MALFORMED, "MQTT-3.3.1-2"),
    Bad("no topic", b"\x30\0", 5, MALFORMED, "MQTT-3.3.2-1"),
    Bad("topic beyond the packet", b"\x30\4\0\5a\0\x30\4\0\1a\0", 5, MALFORMED, "MQTT-3.3.2-1"),
    Bad("no property length", b"\x30\3\0\1a", 5, MALFORMED, "MQTT-2.2.2-1"),
    Bad("no packet identifier", b"\x32\4\0\1a\0", 5, MALFORMED, "MQTT-2.2.1-3"),
    Bad("packet identifier 0", b"\x32\6\0\1a\0\0\0", 5, PROTOCOL_ERROR, "MQTT-2.2.1-3"),
    Bad(
        "topic with a surrogate", _publish_5(b"")[:2] + b"\0\1\xff\0", 5, MALFORMED, "MQTT-1.5.4-1"
    ),
    Bad("topic with an overlong byte", b"\x30\5\0\2\xc0\x80\0", 5, MALFORMED, "MQTT-1.5.4-1"),
    Bad("topic with NUL", b"\x30\6\0\3a\0b\0", 5, MALFORMED, "MQTT-1.5.4-2"),
    Bad("topic with +", _publish_5(b"", "a/+"), 5, TOPIC, "MQTT-3.3.2-2"),
    Bad("topic with #", _publish_5(b"", "#"), 5, TOPIC, "MQTT-3.3.2-2"),
    Bad("neither topic nor alias", _publish_5(b"", ""), 5, PROTOCOL_ERROR, "X-5-ALIAS-3"),
    Bad("topic alias 0", _publish_5(b"\x23\0\0"), 5, ALIAS, "MQTT-3.3.2-8"),
    Bad("topic alias twice", _publish_5(b"\x23\0\1" * 2), 5, PROTOCOL_ERROR, "X-5-PROP-1"),
    Bad("payload format 2", _publish_5(b"\1\2"), 5, PROTOCOL_ERROR, "X-5-PROP-1"),
    Bad("response topic with +", _publish_5(b"\x08\0\3a/+"), 5, PROTOCOL_ERROR, "MQTT-3.3.2-14"),
    Bad("response topic is not UTF-8", _publish_5(b"\x08\0\1\xff"), 5, MALFORMED, "MQTT-3.3.2-13"),
    Bad("content type is not UTF-8", _publish_5(b"\3\0\1\xff"), 5, MALFORMED, "MQTT-3.3.2-19"),
    Bad(
        "subscription identifier of a client",
        _publish_5(b"\x0b\1"),
        5,
        PROTOCOL_ERROR,
        "MQTT-3.3.4-6",
    ),
    Bad("subscription identifier 0", _publish_5(b"\x0b\0"), 5, PROTOCOL_ERROR, "X-5-SUBID-1"),
    Bad("reason string in PUBLISH", _publish_5(b"\x1f\0\1x"), 5, MALFORMED, "X-5-PROP-1"),
    Bad("will delay in PUBLISH", _publish_5(b"\x18\0\0\0\1"), 5, MALFORMED, "X-5-PROP-1"),
    # Acknowledgements
    *(
        bad
        for first in (0x40, 0x50, 0x62, 0x70)
        for bad in (
            Bad("one byte", bytes([first]) + b"\1\0", 5, MALFORMED, "MQTT-2.2.1-5"),
            Bad("identifier 0", bytes([first]) + b"\2\0\0", 5, PROTOCOL_ERROR, "MQTT-2.2.1-5"),
            Bad("reason code", bytes([first]) + b"\3\0\1\x42", 5, PROTOCOL_ERROR, "MQTT-3.4.2-1"),
            Bad("of DISCONNECT", bytes([first]) + b"\3\0\1\x8e", 5, PROTOCOL_ERROR, "MQTT-3.4.2-1"),
            Bad("surplus", bytes([first]) + b"\5\0\1\0\0\0", 5, MALFORMED, "X-5-PROP-1"),
            Bad("misplaced", bytes([first]) + b"\6\0\1\0\2\1\1", 5, MALFORMED, "X-5-PROP-1"),
        )
    ),
    # SUBSCRIBE and UNSUBSCRIBE
    Bad("no filter", b"\x82\3\0\1\0", 5, PROTOCOL_ERROR, "MQTT-3.8.3-2"),
    Bad("no options", b"\x82\6\0\1\0\0\1a", 5, MALFORMED, "MQTT-3.8.3-2"),
    Bad("identifier 0", b"\x82\7\0\0\0\0\1a\0", 5, PROTOCOL_ERROR, "MQTT-2.2.1-3"),
    Bad("option bit 6", b"\x82\7\0\1\0\0\1a\x40", 5, MALFORMED, "MQTT-3.8.3-5"),
    Bad("option bit 7", b"\x82\7\0\1\0\0\1a\x80", 5, MALFORMED, "MQTT-3.8.3-5"),
    Bad("QoS 3", b"\x82\7\0\1\0\0\1a\3", 5, PROTOCOL_ERROR, "MQTT-3.8.3-5"),
    Bad("retain handling 3", b"\x82\7\0\1\0\0\1a\x30", 5, PROTOCOL_ERROR, "MQTT-3.8.3-5"),
    Bad("no local, shared", b"\x82\x10\0\1\0\0\x0a$share/g/a\4", 5, PROTOCOL_ERROR, "MQTT-3.8.3-4"),
    Bad("filter with NUL", b"\x82\7\0\1\0\0\1\0\0", 5, MALFORMED, "MQTT-4.7.3-2"),
    Bad(
        "filter with a surrogate", b"\x82\x09\0\1\0\0\3\xed\xa0\x80\0", 5, MALFORMED, "MQTT-3.8.3-1"
    ),
    Bad(
        "subscription identifier 0",
        b"\x82\x09\0\1\2\x0b\0\0\1a\0",
        5,
        PROTOCOL_ERROR,
        "X-5-SUBID-1",
    ),
    Bad(
        "two subscription identifiers",
        b"\x82\x0b\0\1\4\x0b\1\x0b\1\0\1a\0",
        5,
        PROTOCOL_ERROR,
        "X-5-SUBID-1",
    ),
    Bad(
        "long subscription identifier",
        b"\x82\x0a\0\1\3\x0b\x81\0\0\1a\0",
        5,
        MALFORMED,
        "MQTT-1.5.5-1",
    ),
    Bad(
        "reason string in SUBSCRIBE", b"\x82\x0b\0\1\4\x1f\0\1x\0\1a\0", 5, MALFORMED, "X-5-PROP-1"
    ),
    Bad("no filter", b"\xa2\3\0\1\0", 5, PROTOCOL_ERROR, "MQTT-3.10.3-2"),
    Bad("identifier 0", b"\xa2\6\0\0\0\0\1a", 5, PROTOCOL_ERROR, "MQTT-2.2.1-3"),
    Bad("half a filter", b"\xa2\6\0\1\0\0\2a", 5, MALFORMED, "MQTT-3.10.3-1"),
    Bad("misplaced", b"\xa2\x08\0\1\2\x0b\1\0\1a", 5, MALFORMED, "X-5-PROP-1"),
    # DISCONNECT and AUTH
    Bad("reason code of DISCONNECT", b"\xe0\1\1", 5, PROTOCOL_ERROR, "MQTT-3.14.2-1"),
    Bad("expiry twice", b"\xe0\x0c\0\x0a" + b"\x11\0\0\0\1" * 2, 5, PROTOCOL_ERROR, "X-5-PROP-1"),
    Bad("surplus", b"\xe0\3\0\0\0", 5, MALFORMED, "X-5-PROP-1"),
    Bad("misplaced", b"\xe0\5\0\3\x21\0\1", 5, MALFORMED, "X-5-PROP-1"),
    Bad("AUTH says success", b"\xf0\6\0\4\x15\0\1K", 5, PROTOCOL_ERROR, "MQTT-3.15.2-1"),
    Bad("empty AUTH", b"\xf0\0", 5, PROTOCOL_ERROR, "MQTT-3.15.2-1"),
    Bad("reason code of AUTH", b"\xf0\6\x87\4\x15\0\1K", 5, PROTOCOL_ERROR, "MQTT-3.15.2-1"),
    Bad("AUTH without method", b"\xf0\2\x18\0", 5, PROTOCOL_ERROR, "MQTT-3.15.2-1"),
    Bad("AUTH without properties", b"\xf0\1\x18", 5, MALFORMED, "MQTT-3.15.2-1"),
]

_AFTER_3: Final = [
    bad
    for version in MQTT_3
    for bad in (
        Bad("type 0", b"\0\0", version, MALFORMED, "X-3-LENGTH-1"),
        Bad("type 15", b"\xf0\0", version, MALFORMED, "X-3-LENGTH-1"),
        Bad(
            "second CONNECT",
            _frame(0x10, _C4 + b"\2\0\0\0\0"),
            version,
            PROTOCOL_ERROR,
            "MQTT-3.1.0-2",
        ),
        Bad("CONNACK from a client", b"\x20\2\0\0", version, PROTOCOL_ERROR, "MQTT-3.2.0-1"),
        Bad("SUBACK from a client", b"\x90\3\0\1\0", version, PROTOCOL_ERROR, "MQTT-3.8.4-1"),
        Bad("PINGRESP from a client", b"\xd0\0", version, PROTOCOL_ERROR, "MQTT-3.12.4-1"),
        Bad("length of five bytes", b"\x30\xff\xff\xff\xff\1", version, MALFORMED, "X-3-LENGTH-1"),
        Bad("QoS 3", b"\x36\5\0\1a\0\1", version, MALFORMED, "MQTT-3.3.1-4"),
        Bad("DUP with QoS 0", b"\x38\3\0\1a", version, MALFORMED, "MQTT-3.3.1-2"),
        Bad("empty topic", b"\x30\2\0\0", version, MALFORMED, "MQTT-4.7.3-1"),
        Bad("topic with +", b"\x30\3\0\1+", version, TOPIC, "MQTT-3.3.2-2"),
        Bad("topic with NUL", b"\x30\3\0\1\0", version, MALFORMED, "MQTT-1.5.3-2"),
        Bad(
            "topic with a surrogate", b"\x30\5\0\3\xed\xa0\x80", version, MALFORMED, "MQTT-1.5.3-1"
        ),
        Bad("packet identifier 0", b"\x32\5\0\1a\0\0", version, PROTOCOL_ERROR, "MQTT-2.3.1-1"),
        Bad("no packet identifier", b"\x32\4\0\1a\1", version, MALFORMED, "MQTT-2.3.1-1"),
        Bad("PUBACK of three bytes", b"\x40\3\0\1\0", version, MALFORMED, "MQTT-2.2.2-2"),
        Bad("flags of PUBREL", b"\x60\2\0\1", version, MALFORMED, "MQTT-3.6.1-1"),
        Bad("flags of SUBSCRIBE", b"\x80\6\0\1\0\1a\0", version, MALFORMED, "MQTT-3.8.1-1"),
        Bad("flags of UNSUBSCRIBE", b"\xa0\5\0\1\0\1a", version, MALFORMED, "MQTT-3.10.1-1"),
        Bad("flags of DISCONNECT", b"\xe1\0", version, MALFORMED, "MQTT-3.14.1-1"),
        Bad("no filter", b"\x82\2\0\1", version, PROTOCOL_ERROR, "MQTT-3.8.3-3"),
        Bad("QoS 3", b"\x82\6\0\1\0\1a\3", version, MALFORMED, "MQTT-3.8.3-4"),
        Bad("option bit 2", b"\x82\6\0\1\0\1a\4", version, MALFORMED, "MQTT-3.8.3-4"),
        Bad("identifier 0", b"\x82\6\0\0\0\1a\0", version, PROTOCOL_ERROR, "MQTT-2.3.1-1"),
        Bad("no filter", b"\xa2\2\0\1", version, PROTOCOL_ERROR, "MQTT-3.10.3-2"),
        Bad("DISCONNECT with a body", b"\xe0\1\0", version, MALFORMED, "MQTT-3.14.1-1"),
    )
] + [
    Bad("DUP with PUBREL", b"\x6a\2\0\1", 4, MALFORMED, "MQTT-3.6.1-1"),
    Bad("DUP with SUBSCRIBE", b"\x8a\6\0\1\0\1a\0", 4, MALFORMED, "MQTT-3.8.1-1"),
    Bad("DUP with UNSUBSCRIBE", b"\xaa\5\0\1\0\1a", 4, MALFORMED, "MQTT-3.10.1-1"),
]

BAD: Final[list[Bad]] = [*_connect_bad(), *_AFTER_5, *_AFTER_3]
