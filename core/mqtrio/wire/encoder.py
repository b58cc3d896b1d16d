"""Packets -> bytes. A value that can't stand in a packet is our own mistake: ValueError.

`publish_parts` and `acknowledgement` are for the hot paths: they need no packet object.
"""

from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from mqtrio.wire.packets import (
    MQTT_3_1,
    MQTT_3_1_1,
    MQTT_5,
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
    UnsubAck,
    Unsubscribe,
    UserProperties,
    Will,
)
from mqtrio.wire.primitives import (
    LARGEST_VARIABLE,
    encode_binary,
    encode_text,
    encode_two_byte,
    encode_variable,
)
from mqtrio.wire.properties import (
    ASSIGNED_CLIENT_IDENTIFIER,
    AUTHENTICATION_DATA,
    AUTHENTICATION_METHOD,
    CONTENT_TYPE,
    CORRELATION_DATA,
    MAXIMUM_PACKET_SIZE,
    MAXIMUM_QOS,
    MESSAGE_EXPIRY_INTERVAL,
    NO_PROPERTIES,
    PAYLOAD_FORMAT_INDICATOR,
    REASON_STRING,
    RECEIVE_MAXIMUM,
    REQUEST_PROBLEM_INFORMATION,
    REQUEST_RESPONSE_INFORMATION,
    RESPONSE_INFORMATION,
    RESPONSE_TOPIC,
    RETAIN_AVAILABLE,
    SERVER_KEEP_ALIVE,
    SERVER_REFERENCE,
    SESSION_EXPIRY_INTERVAL,
    SHARED_SUBSCRIPTION_AVAILABLE,
    SUBSCRIPTION_IDENTIFIER,
    SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
    TOPIC_ALIAS,
    TOPIC_ALIAS_MAXIMUM,
    WILDCARD_SUBSCRIPTION_AVAILABLE,
    WILL_DELAY_INTERVAL,
    PropertyWriter,
)

PINGREQ: Final = b"\xc0\0"
PINGRESP: Final = b"\xd0\0"

#: Version -> protocol name with its length, and protocol level (3.1.2.1).
_PROTOCOLS: Final = {
    MQTT_3_1: b"\0\6MQIsdp\3",
    MQTT_3_1_1: b"\0\4MQTT\4",
    MQTT_5: b"\0\4MQTT\5",
}

# First byte, remaining length of one and of two bytes, length of the topic or packet identifier.
_head_1: Final = Struct(">BBH").pack
_head_2: Final = Struct(">BBBH").pack


def encode(packet: Packet, version: int) -> bytes:
    """The bytes of `packet` for a peer that speaks `version`.

    What the version does not have (properties, reason codes) is left out. ValueError for a packet
    that the version does not have at all, or a value that can't be encoded.
    """
    try:
        write = _WRITERS[type(packet)]
    except KeyError:
        raise ValueError(f"{type(packet).__name__} is no control packet") from None
    encoded: bytes = write(packet, version)
    return encoded


def encode_within(packet: Packet, version: int, maximum: int) -> bytes | None:
    """`encode` in at most `maximum` bytes: the reason string goes first, then the user properties.

    None if the packet is still too large, or is one of which nothing may be left out
    ([MQTT-3.2.2-19], [MQTT-3.2.2-20] and their like for the other acknowledgements,
    [MQTT-3.1.2-24]).
    """
    encoded = encode(packet, version)
    if len(encoded) <= maximum:
        return encoded
    if not isinstance(packet, ConnAck | Acknowledgement | SubAck | Disconnect | Auth):
        return None
    values: Any = packet.fields()
    shorter: ConnAck | Acknowledgement | SubAck | Disconnect | Auth = type(packet)(*values)
    shorter.reason_string = None
    encoded = encode(shorter, version)
    if len(encoded) > maximum:
        shorter.user_properties = ()
        encoded = encode(shorter, version)
    return encoded if len(encoded) <= maximum else None


def publish_parts(
    topic: str,
    payload: bytes,
    qos: int,
    retain: bool,
    properties: PublishProperties | None,
    version: int,
    subscription_identifiers: tuple[int, ...] = (),
    topic_alias: int = 0,
    dup: bool = False,
    message_expiry_interval: int = -1,
) -> tuple[bytes, bytes]:
    """A PUBLISH without its packet identifier: (head, tail).

    At QoS 0 the packet is head + tail, and tail is empty; otherwise it is head + two bytes of
    packet identifier + tail. Many receivers may share both. `properties.topic_alias` and
    `properties.subscription_identifiers` belong to the connection that the message came by and
    are not used: the arguments count (0 and empty: none). `message_expiry_interval` -1 keeps the
    one of `properties`. MQTT 3 gets no properties. The topic is taken as it is.
    """
    name = topic.encode()
    name_size = len(name)
    first = 0x30 | (qos << 1)
    if retain:
        first |= 1
    if dup:
        first |= 8
    if version != MQTT_5:
        tail = payload
    elif (
        properties is None
        and not subscription_identifiers
        and not topic_alias
        and message_expiry_interval < 0
    ):
        tail = NO_PROPERTIES + payload
    else:
        writer = PropertyWriter()
        _put_publish_properties(writer, properties, message_expiry_interval)
        for identifier in subscription_identifiers:
            writer.number(SUBSCRIPTION_IDENTIFIER, identifier)
        if topic_alias:
            writer.number(TOPIC_ALIAS, topic_alias)
        tail = writer.finish() + payload
    length = name_size + len(tail) + (4 if qos else 2)
    if length < 0x80:
        head = _head_1(first, length, name_size) + name
    elif length < 0x4000 and name_size <= 0xFFFF:
        head = _head_2(first, (length & 0x7F) | 0x80, length >> 7, name_size) + name
    else:
        head = _start(first, length) + encode_binary(name)
    if qos:
        return head, tail
    return head + tail, b""


def acknowledgement(kind: int, packet_id: int, reason_code: int, version: int) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP (`kind` 4 to 7) without properties.

    A reason code of 0 is left out, as MQTT 5 allows and MQTT 3 demands.
    """
    first = kind << 4 if kind != 6 else 0x62
    if reason_code and version == MQTT_5:
        return _head_1(first, 3, packet_id) + reason_code.to_bytes(1, "big")
    return _head_1(first, 2, packet_id)


def _start(first: int, length: int) -> bytes:
    if length > LARGEST_VARIABLE:
        raise ValueError(f"a packet of {length} bytes is longer than the standard allows")
    return first.to_bytes(1, "big") + encode_variable(length)


def _packet(first: int, body: bytes) -> bytes:
    return _start(first, len(body)) + body


def _packet_id(packet_id: int) -> bytes:
    if packet_id == 0:
        raise ValueError("a packet identifier must not be 0")
    return encode_two_byte(packet_id)


def _put_publish_properties(
    writer: PropertyWriter, properties: PublishProperties | None, message_expiry_interval: int
) -> None:
    """All properties of a PUBLISH or will that go from the publisher to the receivers."""
    if properties is None:
        if message_expiry_interval >= 0:
            writer.number(MESSAGE_EXPIRY_INTERVAL, message_expiry_interval)
        return
    writer.number(PAYLOAD_FORMAT_INDICATOR, properties.payload_format_indicator)
    if message_expiry_interval >= 0:
        writer.number(MESSAGE_EXPIRY_INTERVAL, message_expiry_interval)
    else:
        writer.number(MESSAGE_EXPIRY_INTERVAL, properties.message_expiry_interval)
    writer.text(CONTENT_TYPE, properties.content_type)
    writer.text(RESPONSE_TOPIC, properties.response_topic)
    writer.binary(CORRELATION_DATA, properties.correlation_data)
    writer.user(properties.user_properties)


def _publish(packet: Publish, version: int) -> bytes:
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
    if packet.qos:
        return head + _packet_id(packet.packet_id) + tail
    return head


def _connect(packet: Connect, version: int) -> bytes:
    if packet.version != version:
        raise ValueError("a CONNECT is encoded in its own version")
    will = packet.will
    flags = 0
    if packet.clean_start:
        flags |= 0x02
    if will is not None:
        flags |= 0x04 | (will.qos << 3) | (0x20 if will.retain else 0)
    if packet.password is not None:
        if packet.username is None and version != MQTT_5:
            raise ValueError("MQTT 3 has no password without a user name")
        flags |= 0x40
    if packet.username is not None:
        flags |= 0x80
    body = _PROTOCOLS[version] + flags.to_bytes(1, "big") + encode_two_byte(packet.keep_alive)
    if version == MQTT_5:
        body += _connect_properties(packet)
    body += encode_text(packet.client_id)
    if will is not None:
        if version == MQTT_5:
            body += _will_properties(will)
        body += encode_text(will.topic) + encode_binary(will.payload)
    if packet.username is not None:
        body += encode_text(packet.username)
    if packet.password is not None:
        body += encode_binary(packet.password)
    return _packet(0x10, body)


def _connect_properties(packet: Connect) -> bytes:
    writer = PropertyWriter()
    writer.number(SESSION_EXPIRY_INTERVAL, packet.session_expiry_interval)
    writer.number(RECEIVE_MAXIMUM, packet.receive_maximum)
    writer.number(MAXIMUM_PACKET_SIZE, packet.maximum_packet_size)
    writer.number(TOPIC_ALIAS_MAXIMUM, packet.topic_alias_maximum or None)
    if packet.request_response_information:
        writer.number(REQUEST_RESPONSE_INFORMATION, 1)
    if not packet.request_problem_information:
        writer.number(REQUEST_PROBLEM_INFORMATION, 0)
    writer.user(packet.user_properties)
    writer.text(AUTHENTICATION_METHOD, packet.authentication_method)
    writer.binary(AUTHENTICATION_DATA, packet.authentication_data)
    return writer.finish()


def _will_properties(will: Will) -> bytes:
    writer = PropertyWriter()
    writer.number(WILL_DELAY_INTERVAL, will.delay_interval or None)
    _put_publish_properties(writer, will.properties, -1)
    return writer.finish()


def _connack(packet: ConnAck, version: int) -> bytes:
    if version != MQTT_5:
        if not 0 <= packet.reason_code <= 5:
            raise ValueError(f"MQTT 3 has no return code {packet.reason_code}")
        # MQTT 3.1 knows no Session Present: the byte is reserved there.
        present = packet.session_present and version == MQTT_3_1_1
        return bytes((0x20, 2, present, packet.reason_code))
    writer = PropertyWriter()
    writer.number(SESSION_EXPIRY_INTERVAL, packet.session_expiry_interval)
    writer.number(RECEIVE_MAXIMUM, packet.receive_maximum)
    writer.number(MAXIMUM_QOS, packet.maximum_qos)
    writer.number(RETAIN_AVAILABLE, packet.retain_available)
    writer.number(MAXIMUM_PACKET_SIZE, packet.maximum_packet_size)
    writer.text(ASSIGNED_CLIENT_IDENTIFIER, packet.assigned_client_identifier)
    writer.number(TOPIC_ALIAS_MAXIMUM, packet.topic_alias_maximum)
    writer.text(REASON_STRING, packet.reason_string)
    writer.user(packet.user_properties)
    writer.number(WILDCARD_SUBSCRIPTION_AVAILABLE, packet.wildcard_subscription_available)
    writer.number(SUBSCRIPTION_IDENTIFIERS_AVAILABLE, packet.subscription_identifiers_available)
    writer.number(SHARED_SUBSCRIPTION_AVAILABLE, packet.shared_subscription_available)
    writer.number(SERVER_KEEP_ALIVE, packet.server_keep_alive)
    writer.text(RESPONSE_INFORMATION, packet.response_information)
    writer.text(SERVER_REFERENCE, packet.server_reference)
    writer.text(AUTHENTICATION_METHOD, packet.authentication_method)
    writer.binary(AUTHENTICATION_DATA, packet.authentication_data)
    return _packet(0x20, bytes((packet.session_present, packet.reason_code)) + writer.finish())


def _reasons(reason_string: str | None, user_properties: UserProperties) -> bytes:
    """The properties that most answers have."""
    if reason_string is None and not user_properties:
        return NO_PROPERTIES
    writer = PropertyWriter()
    writer.text(REASON_STRING, reason_string)
    writer.user(user_properties)
    return writer.finish()


def _acknowledgement(first: int) -> Callable[[Acknowledgement, int], bytes]:
    def write(packet: Acknowledgement, version: int) -> bytes:
        body = _packet_id(packet.packet_id)
        if version == MQTT_5:
            properties = _reasons(packet.reason_string, packet.user_properties)
            if properties != NO_PROPERTIES:
                body += packet.reason_code.to_bytes(1, "big") + properties
            elif packet.reason_code:
                body += packet.reason_code.to_bytes(1, "big")
        return _packet(first, body)

    return write


def _subscribe(packet: Subscribe, version: int) -> bytes:
    if not packet.requests:
        raise ValueError("a SUBSCRIBE needs a topic filter")
    body = bytearray(_packet_id(packet.packet_id))
    if version == MQTT_5:
        writer = PropertyWriter()
        writer.number(SUBSCRIPTION_IDENTIFIER, packet.subscription_identifier or None)
        writer.user(packet.user_properties)
        body += writer.finish()
    for request in packet.requests:
        options = request.qos
        if version == MQTT_5:
            options |= request.retain_handling << 4
            if request.no_local:
                options |= 0x04
            if request.retain_as_published:
                options |= 0x08
        body += encode_text(request.topic_filter)
        body.append(options)
    return _packet(0x82, bytes(body))


def _suback(packet: SubAck, version: int) -> bytes:
    body = _packet_id(packet.packet_id)
    codes = packet.reason_codes
    if version == MQTT_5:
        body += _reasons(packet.reason_string, packet.user_properties)
    elif version == MQTT_3_1_1:
        codes = tuple([min(code, 0x80) for code in codes])
    else:
        # MQTT 3.1 has no failure code: a refusal looks like QoS 0 granted.
        codes = tuple([code if code < 0x80 else 0 for code in codes])
    return _packet(0x90, body + bytes(codes))


def _unsubscribe(packet: Unsubscribe, version: int) -> bytes:
    if not packet.topic_filters:
        raise ValueError("an UNSUBSCRIBE needs a topic filter")
    body = bytearray(_packet_id(packet.packet_id))
    if version == MQTT_5:
        body += _reasons(None, packet.user_properties)
    for topic_filter in packet.topic_filters:
        body += encode_text(topic_filter)
    return _packet(0xA2, bytes(body))


def _unsuback(packet: UnsubAck, version: int) -> bytes:
    body = _packet_id(packet.packet_id)
    if version == MQTT_5:
        body += _reasons(packet.reason_string, packet.user_properties) + bytes(packet.reason_codes)
    return _packet(0xB0, body)


def _pingreq(packet: PingReq, version: int) -> bytes:
    return PINGREQ


def _pingresp(packet: PingResp, version: int) -> bytes:
    return PINGRESP


def _disconnect(packet: Disconnect, version: int) -> bytes:
    if version != MQTT_5:
        return b"\xe0\0"
    writer = PropertyWriter()
    writer.number(SESSION_EXPIRY_INTERVAL, packet.session_expiry_interval)
    writer.text(REASON_STRING, packet.reason_string)
    writer.user(packet.user_properties)
    writer.text(SERVER_REFERENCE, packet.server_reference)
    if not writer.empty:
        return _packet(0xE0, packet.reason_code.to_bytes(1, "big") + writer.finish())
    if packet.reason_code:
        return bytes((0xE0, 1, packet.reason_code))
    return b"\xe0\0"


def _auth(packet: Auth, version: int) -> bytes:
    if version != MQTT_5:
        raise ValueError("MQTT 3 has no AUTH")
    writer = PropertyWriter()
    writer.text(AUTHENTICATION_METHOD, packet.authentication_method)
    writer.binary(AUTHENTICATION_DATA, packet.authentication_data)
    writer.text(REASON_STRING, packet.reason_string)
    writer.user(packet.user_properties)
    if packet.reason_code == 0 and writer.empty:
        return b"\xf0\0"
    return _packet(0xF0, packet.reason_code.to_bytes(1, "big") + writer.finish())


# Any: each function takes its own type of packet, which the key names.
_WRITERS: Final[dict[type[Packet], Callable[[Any, int], bytes]]] = {
    Connect: _connect,
    ConnAck: _connack,
    Publish: _publish,
    PubAck: _acknowledgement(0x40),
    PubRec: _acknowledgement(0x50),
    PubRel: _acknowledgement(0x62),
    PubComp: _acknowledgement(0x70),
    Subscribe: _subscribe,
    SubAck: _suback,
    Unsubscribe: _unsubscribe,
    UnsubAck: _unsuback,
    PingReq: _pingreq,
    PingResp: _pingresp,
    Disconnect: _disconnect,
    Auth: _auth,
}
