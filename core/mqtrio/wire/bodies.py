"""Reading what stands behind the fixed header: one function for each packet type but CONNECT.

Every function gets the reader of the body, the first byte, the version and who sent it, and
raises ProtocolError: 0x81 for what can't be parsed, 0x82 for values that the standard names and
forbids. An unknown reason code and a packet identifier of 0 can be parsed and are forbidden: 0x82.
"""

from collections.abc import Callable
from typing import Final

from mqtrio.errors import MalformedPacket, ProtocolError
from mqtrio.reasons import ALLOWED, ReasonCode
from mqtrio.wire.connect import check_authentication, publish_properties
from mqtrio.wire.packets import (
    MQTT_5,
    Acknowledgement,
    Auth,
    ConnAck,
    Disconnect,
    Packet,
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
    UserProperties,
)
from mqtrio.wire.primitives import Reader
from mqtrio.wire.properties import (
    ASSIGNED_CLIENT_IDENTIFIER,
    AUTH,
    AUTHENTICATION_DATA,
    AUTHENTICATION_METHOD,
    CONNACK,
    DISCONNECT,
    MAXIMUM_PACKET_SIZE,
    MAXIMUM_QOS,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    REASON_STRING,
    RECEIVE_MAXIMUM,
    RESPONSE_INFORMATION,
    RETAIN_AVAILABLE,
    SERVER_KEEP_ALIVE,
    SERVER_REFERENCE,
    SESSION_EXPIRY_INTERVAL,
    SHARED_SUBSCRIPTION_AVAILABLE,
    SUBACK,
    SUBSCRIBE,
    SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
    TOPIC_ALIAS_MAXIMUM,
    UNSUBACK,
    UNSUBSCRIBE,
    WILDCARD_SUBSCRIPTION_AVAILABLE,
    Properties,
    read_properties,
)
from mqtrio.wire.topics import TopicCache

#: Topic filters that one SUBSCRIBE or UNSUBSCRIBE may carry: each costs its sender four bytes and
#: us a few hundred, so the packet's size alone would be a weak bound.
MOST_TOPIC_FILTERS: Final = 10_000

#: CONNACK return codes and SUBACK return codes of MQTT 3 (3.1.1 tables 3.1 and 3.9.3).
_RETURN_CODES_3: Final = frozenset(range(6))
_GRANTED_3: Final = frozenset({0x00, 0x01, 0x02, 0x80})


def _packet_id(reader: Reader) -> int:
    packet_id = reader.two_byte()
    if packet_id == 0:  # [MQTT-2.2.1-3], 3.1.1 [MQTT-2.3.1-1]
        raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "a packet identifier is 0")
    return packet_id


def _check_reason(packet: int, reason_code: int) -> int:
    if reason_code not in ALLOWED[packet]:
        raise ProtocolError(
            ReasonCode.PROTOCOL_ERROR, f"the reason code 0x{reason_code:02X} does not belong here"
        )
    return reason_code


def _reason_string(found: Properties | None) -> str | None:
    return None if found is None else found.text(REASON_STRING)


def _user_properties(found: Properties | None) -> UserProperties:
    return () if found is None else found.user_properties


def read_publish(
    reader: Reader, first: int, version: int, from_client: bool, topics: TopicCache
) -> Publish:
    """PUBLISH (3.3) without its `frame`. The first byte's QoS and DUP are checked already."""
    start = reader.position
    length = reader.two_byte()
    topic_end = reader.position + length
    if topic_end > reader.end:
        raise MalformedPacket("the packet ends within a field")
    reader.position = topic_end
    topic = ""
    if length:
        field = reader.data[start:topic_end]
        known = topics.known.get(field)
        topic = topics.add(field) if known is None else known
    elif version != MQTT_5:
        raise MalformedPacket("a topic name is empty")
    qos = (first >> 1) & 0x03
    packet_id = _packet_id(reader) if qos else 0
    properties = None
    if version == MQTT_5:
        properties = publish_properties(read_properties(reader, PUBLISH))
        if not topic and (properties is None or properties.topic_alias is None):
            raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "neither topic name nor topic alias")
        if from_client and properties is not None and properties.subscription_identifiers:
            raise ProtocolError(  # [MQTT-3.3.4-6]
                ReasonCode.PROTOCOL_ERROR, "a client must not send a subscription identifier"
            )
    return Publish(
        topic,
        reader.rest(),
        qos,
        first & 0x01 != 0,
        first & 0x08 != 0,
        packet_id,
        properties,
        None,
    )


def _acknowledgement(
    packet: int, make: Callable[[int, int, str | None, UserProperties], Acknowledgement]
) -> Callable[[Reader, int, int, bool], Packet]:
    def read(reader: Reader, first: int, version: int, from_client: bool) -> Packet:
        packet_id = _packet_id(reader)
        reason_code = 0
        found = None
        if version == MQTT_5 and reader.position < reader.end:
            reason_code = _check_reason(packet, reader.byte())
            if reader.position < reader.end:
                found = read_properties(reader, packet)
        return make(packet_id, reason_code, _reason_string(found), _user_properties(found))

    return read


def _connack(reader: Reader, first: int, version: int, from_client: bool) -> Packet:
    flags = reader.byte()
    if flags > 1:
        raise MalformedPacket("reserved bits of CONNACK are set")  # [MQTT-3.2.2-1]
    reason_code = reader.byte()
    answer = ConnAck(session_present=flags == 1, reason_code=reason_code)
    if version != MQTT_5:
        if reason_code not in _RETURN_CODES_3:
            raise MalformedPacket("an unknown return code")
        return answer
    _check_reason(CONNACK, reason_code)
    found = read_properties(reader, CONNACK)
    if found is not None:
        answer.session_expiry_interval = found.number(SESSION_EXPIRY_INTERVAL)
        answer.receive_maximum = found.number(RECEIVE_MAXIMUM)
        answer.maximum_qos = found.number(MAXIMUM_QOS)
        answer.retain_available = found.flag(RETAIN_AVAILABLE)
        answer.maximum_packet_size = found.number(MAXIMUM_PACKET_SIZE)
        answer.assigned_client_identifier = found.text(ASSIGNED_CLIENT_IDENTIFIER)
        answer.topic_alias_maximum = found.number(TOPIC_ALIAS_MAXIMUM)
        answer.reason_string = found.text(REASON_STRING)
        answer.user_properties = found.user_properties
        answer.wildcard_subscription_available = found.flag(WILDCARD_SUBSCRIPTION_AVAILABLE)
        answer.subscription_identifiers_available = found.flag(SUBSCRIPTION_IDENTIFIERS_AVAILABLE)
        answer.shared_subscription_available = found.flag(SHARED_SUBSCRIPTION_AVAILABLE)
        answer.server_keep_alive = found.number(SERVER_KEEP_ALIVE)
        answer.response_information = found.text(RESPONSE_INFORMATION)
        answer.server_reference = found.text(SERVER_REFERENCE)
        answer.authentication_method = found.text(AUTHENTICATION_METHOD)
        answer.authentication_data = found.binary(AUTHENTICATION_DATA)
        check_authentication(answer.authentication_method, answer.authentication_data)
    return answer


def _subscribe(reader: Reader, first: int, version: int, from_client: bool) -> Packet:
    packet_id = _packet_id(reader)
    found = read_properties(reader, SUBSCRIBE) if version == MQTT_5 else None
    requests: list[SubscriptionRequest] = []
    while reader.position < reader.end:
        _check_count(len(requests))
        topic_filter = reader.text()
        requests.append(_subscription_request(topic_filter, reader.byte(), version))
    if not requests:  # [MQTT-3.8.3-2]
        raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "a SUBSCRIBE without a topic filter")
    identifiers = () if found is None else found.subscription_identifiers
    return Subscribe(
        packet_id,
        tuple(requests),
        identifiers[0] if identifiers else 0,
        _user_properties(found),
    )


def _subscription_request(topic_filter: str, options: int, version: int) -> SubscriptionRequest:
    if version != MQTT_5:
        if options > 2:
            raise MalformedPacket("QoS 3 or reserved bits are set")  # 3.1.1 [MQTT-3-8.3-4]
        return SubscriptionRequest(topic_filter, options)
    if options & 0xC0:
        raise MalformedPacket("reserved bits of the subscription options are set")  # [MQTT-3.8.3-5]
    qos = options & 0x03
    retain_handling = options >> 4
    no_local = options & 0x04 != 0
    if qos == 3 or retain_handling == 3:
        raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "QoS 3 or retain handling 3")
    if no_local and topic_filter.startswith("$share/"):  # [MQTT-3.8.3-4]
        raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "no local with a shared subscription")
    return SubscriptionRequest(topic_filter, qos, no_local, options & 0x08 != 0, retain_handling)


def _check_count(filters: int) -> None:
    if filters >= MOST_TOPIC_FILTERS:
        raise ProtocolError(
            ReasonCode.QUOTA_EXCEEDED, f"more than {MOST_TOPIC_FILTERS} topic filters in a packet"
        )


def _unsubscribe(reader: Reader, first: int, version: int, from_client: bool) -> Packet:
    packet_id = _packet_id(reader)
    found = read_properties(reader, UNSUBSCRIBE) if version == MQTT_5 else None
    topic_filters: list[str] = []
    while reader.position < reader.end:
        _check_count(len(topic_filters))
        topic_filters.append(reader.text())
    if not topic_filters:  # [MQTT-3.10.3-2]
        raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "an UNSUBSCRIBE without a topic filter")
    return Unsubscribe(packet_id, tuple(topic_filters), _user_properties(found))


def _suback(reader: Reader, first: int, version: int, from_client: bool) -> Packet:
    packet_id = _packet_id(reader)
    found = read_properties(reader, SUBACK) if version == MQTT_5 else None
    reason_codes = tuple(reader.rest())
    if not reason_codes:
        raise MalformedPacket("a SUBACK without a reason code")
    for reason_code in reason_codes:
        if version == MQTT_5:
            _check_reason(SUBACK, reason_code)
        elif reason_code not in _GRANTED_3:  # 3.1.1 [MQTT-3.9.3-2]
            raise MalformedPacket("an unknown return code")
    return SubAck(packet_id, reason_codes, _reason_string(found), _user_properties(found))


def _unsuback(reader: Reader, first: int, version: int, from_client: bool) -> Packet:
    packet_id = _packet_id(reader)
    if version != MQTT_5:
        return UnsubAck(packet_id, ())
    found = read_properties(reader, UNSUBACK)
    reason_codes = tuple(reader.rest())
    if not reason_codes:
        raise MalformedPacket("an UNSUBACK without a reason code")
    for reason_code in reason_codes:
        _check_reason(UNSUBACK, reason_code)
    return UnsubAck(packet_id, reason_codes, _reason_string(found), _user_properties(found))


def _pingreq(reader: Reader, first: int, version: int, from_client: bool) -> Packet:
    return PingReq()


def _pingresp(reader: Reader, first: int, version: int, from_client: bool) -> Packet:
    return PingResp()


def _disconnect(reader: Reader, first: int, version: int, from_client: bool) -> Packet:
    if version != MQTT_5 or reader.position == reader.end:
        return Disconnect()
    reason_code = _check_reason(DISCONNECT, reader.byte())
    if reader.position == reader.end:
        return Disconnect(reason_code)
    found = read_properties(reader, DISCONNECT)
    if found is None:
        return Disconnect(reason_code)
    session_expiry_interval = found.number(SESSION_EXPIRY_INTERVAL)
    if session_expiry_interval is not None and not from_client:  # [MQTT-3.14.2-2]
        raise ProtocolError(
            ReasonCode.PROTOCOL_ERROR, "a server must not send a session expiry interval"
        )
    return Disconnect(
        reason_code,
        session_expiry_interval,
        found.text(REASON_STRING),
        found.user_properties,
        found.text(SERVER_REFERENCE),
    )


def _auth(reader: Reader, first: int, version: int, from_client: bool) -> Packet:
    reason_code = 0
    found = None
    if reader.position < reader.end:
        reason_code = _check_reason(AUTH, reader.byte())
        found = read_properties(reader, AUTH)
    # Only the server says Success, only the client asks to re-authenticate (table 3-11).
    if reason_code == (ReasonCode.SUCCESS if from_client else ReasonCode.RE_AUTHENTICATE):
        raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "a reason code of the other side")
    method = None if found is None else found.text(AUTHENTICATION_METHOD)
    # 3.15.2.2.2; 3.15.2.1 lets a Success without properties be empty
    if method is None and (reason_code or found is not None):
        raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "AUTH without an authentication method")
    return Auth(
        reason_code,
        method,
        None if found is None else found.binary(AUTHENTICATION_DATA),
        _reason_string(found),
        _user_properties(found),
    )


#: Packet type -> reader of its body. CONNECT and PUBLISH need more than these and are read apart.
BODIES: Final[dict[int, Callable[[Reader, int, int, bool], Packet]]] = {
    CONNACK: _connack,
    PUBACK: _acknowledgement(PUBACK, PubAck),
    PUBREC: _acknowledgement(PUBREC, PubRec),
    PUBREL: _acknowledgement(PUBREL, PubRel),
    PUBCOMP: _acknowledgement(PUBCOMP, PubComp),
    SUBSCRIBE: _subscribe,
    SUBACK: _suback,
    UNSUBSCRIBE: _unsubscribe,
    UNSUBACK: _unsuback,
    PINGREQ: _pingreq,
    PINGRESP: _pingresp,
    DISCONNECT: _disconnect,
    AUTH: _auth,
}
