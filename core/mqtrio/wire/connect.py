"""Reading CONNECT: which version a client speaks, and what it says about itself (3.1)."""

from typing import Final

from mqtrio.errors import MalformedPacket, ProtocolError
from mqtrio.reasons import ReasonCode
from mqtrio.wire.packets import (
    MQTT_3_1,
    MQTT_3_1_1,
    MQTT_5,
    Connect,
    PublishProperties,
    Will,
)
from mqtrio.wire.primitives import Reader
from mqtrio.wire.properties import (
    AUTHENTICATION_DATA,
    AUTHENTICATION_METHOD,
    CONNECT,
    CONTENT_TYPE,
    CORRELATION_DATA,
    MAXIMUM_PACKET_SIZE,
    MESSAGE_EXPIRY_INTERVAL,
    PAYLOAD_FORMAT_INDICATOR,
    RECEIVE_MAXIMUM,
    REQUEST_PROBLEM_INFORMATION,
    REQUEST_RESPONSE_INFORMATION,
    RESPONSE_TOPIC,
    SESSION_EXPIRY_INTERVAL,
    TOPIC_ALIAS,
    TOPIC_ALIAS_MAXIMUM,
    WILL,
    WILL_DELAY_INTERVAL,
    Properties,
    read_properties,
)
from mqtrio.wire.topics import check_topic_name

#: Protocol name and level -> version; any other pair is refused.
_VERSIONS: Final = {
    (b"MQIsdp", 3): MQTT_3_1,
    (b"MQTT", 4): MQTT_3_1_1,
    (b"MQTT", 5): MQTT_5,
}

_CLEAN_START: Final = 0x02
_WILL: Final = 0x04
_WILL_RETAIN: Final = 0x20
_PASSWORD: Final = 0x40
_USERNAME: Final = 0x80


def read_level(reader: Reader) -> tuple[bytes, int]:
    """The protocol name and the protocol level with which every CONNECT begins (3.1.2.1)."""
    name = reader.binary()
    return name, reader.byte()


def check_version(name: bytes, level: int) -> int:
    """The version that name and level stand for; ProtocolError 0x84 if there is none.

    So MQIsdp with 4 or MQTT with 3 is refused like a name that nobody knows [MQTT-3.1.2-1],
    [MQTT-3.1.2-2].
    """
    version = _VERSIONS.get((name, level))
    if version is None:
        raise ProtocolError(
            ReasonCode.UNSUPPORTED_PROTOCOL_VERSION, "unknown protocol name or protocol level"
        )
    return version


def read_connect(reader: Reader, version: int) -> Connect:
    """What follows the protocol level in a CONNECT of `version`."""
    flags = reader.byte()
    _check_flags(flags, version)
    keep_alive = reader.two_byte()
    found = read_properties(reader, CONNECT) if version == MQTT_5 else None
    client_id = reader.text()  # [MQTT-3.1.3-3], [MQTT-3.1.3-4]
    will = _read_will(reader, version, flags) if flags & _WILL else None
    # In MQTT 3.1 the remaining length goes before the flags: a user name or password that was
    # announced may be missing (3.1 section 3.1, "User name and password flags").
    lenient = version == MQTT_3_1
    username: str | None = None
    if flags & _USERNAME and not (lenient and reader.position == reader.end):
        username = reader.text()  # [MQTT-3.1.2-17], [MQTT-3.1.3-12]
    password: bytes | None = None
    if flags & _PASSWORD and not (lenient and reader.position == reader.end):
        password = reader.binary()  # [MQTT-3.1.2-19]
    packet = Connect(
        version=version,
        client_id=client_id,
        clean_start=flags & _CLEAN_START != 0,
        keep_alive=keep_alive,
        username=username,
        password=password,
        will=will,
    )
    if found is not None:
        _apply(packet, found)
    return packet


def _check_flags(flags: int, version: int) -> None:
    if flags & 0x01:
        raise MalformedPacket("the reserved connect flag is set")  # [MQTT-3.1.2-3]
    if flags & _WILL:
        if flags & 0x18 == 0x18:
            raise MalformedPacket("the will has QoS 3")  # [MQTT-3.1.2-12]
    elif flags & 0x38 and version != MQTT_3_1:
        # [MQTT-3.1.2-11], [MQTT-3.1.2-13]; MQTT 3.1 says that the bits then mean nothing
        raise MalformedPacket("will flags are set, but there is no will")
    if version != MQTT_5 and flags & _PASSWORD and not flags & _USERNAME:
        raise MalformedPacket("a password without a user name")  # 3.1.1 [MQTT-3.1.2-22]


def _apply(packet: Connect, found: Properties) -> None:
    packet.session_expiry_interval = found.number(SESSION_EXPIRY_INTERVAL)
    packet.receive_maximum = found.number(RECEIVE_MAXIMUM)
    packet.maximum_packet_size = found.number(MAXIMUM_PACKET_SIZE)
    packet.topic_alias_maximum = found.number(TOPIC_ALIAS_MAXIMUM) or 0
    packet.request_response_information = found.flag(REQUEST_RESPONSE_INFORMATION) is True
    packet.request_problem_information = found.flag(REQUEST_PROBLEM_INFORMATION) is not False
    packet.user_properties = found.user_properties
    packet.authentication_method = found.text(AUTHENTICATION_METHOD)
    packet.authentication_data = found.binary(AUTHENTICATION_DATA)
    check_authentication(packet.authentication_method, packet.authentication_data)


def check_authentication(method: str | None, data: bytes | None) -> None:
    """Authentication data without a method is a protocol error (3.1.2.11.10)."""
    if data is not None and method is None:
        raise ProtocolError(
            ReasonCode.PROTOCOL_ERROR, "authentication data without an authentication method"
        )


def _read_will(reader: Reader, version: int, flags: int) -> Will:
    found = read_properties(reader, WILL) if version == MQTT_5 else None
    topic = reader.text()  # [MQTT-3.1.3-11]
    if version == MQTT_5:
        check_topic_name(topic)
    elif not topic or "+" in topic or "#" in topic:
        # MQTT 3 has no return code for it: a malformed CONNECT is not answered.
        raise MalformedPacket("the will topic is empty or holds a wildcard")
    will = Will(
        topic=topic,
        payload=reader.binary(),
        qos=(flags >> 3) & 0x03,
        retain=flags & _WILL_RETAIN != 0,
    )
    if found is not None:
        will.delay_interval = found.number(WILL_DELAY_INTERVAL) or 0
        found.numbers.pop(WILL_DELAY_INTERVAL, None)
        will.properties = publish_properties(found)
    return will


def publish_properties(found: Properties | None) -> PublishProperties | None:
    """The properties of a PUBLISH or will; None if there are none (3.3.2.3).

    Raises ProtocolError 0x82 for a response topic with a wildcard [MQTT-3.3.2-14].
    """
    if found is None:
        return None
    numbers = found.numbers
    texts = found.texts
    if not (
        numbers
        or texts
        or found.binaries
        or found.user_properties
        or found.subscription_identifiers
    ):
        return None
    response_topic = texts.get(RESPONSE_TOPIC)
    if response_topic is not None and ("+" in response_topic or "#" in response_topic):
        raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "the response topic holds a wildcard")
    return PublishProperties(
        payload_format_indicator=numbers.get(PAYLOAD_FORMAT_INDICATOR),
        message_expiry_interval=numbers.get(MESSAGE_EXPIRY_INTERVAL),
        content_type=texts.get(CONTENT_TYPE),
        response_topic=response_topic,
        correlation_data=found.binaries.get(CORRELATION_DATA),
        user_properties=found.user_properties,
        subscription_identifiers=found.subscription_identifiers,
        topic_alias=numbers.get(TOPIC_ALIAS),
    )
