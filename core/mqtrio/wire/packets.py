"""The fifteen control packets as plain values (MQTT 5 chapter 3; MQTT 3 uses a part of them).

A packet knows nothing of bytes: decoder.py makes them, encoder.py writes them. What MQTT 3 does not
have (reason codes, properties) stands at its default there. A repr never shows a payload, a
password or authentication data.
"""

from typing import Final

MQTT_3_1: Final = 3
MQTT_3_1_1: Final = 4
MQTT_5: Final = 5

#: Session expiry interval that means "never" (3.1.2.11.2).
NEVER_EXPIRES: Final = 0xFFFFFFFF

UserProperties = tuple[tuple[str, str], ...]


class Packet:
    """Base of all packets; two packets are equal when their type and all their fields are."""

    __slots__ = ()

    def fields(self) -> tuple[object, ...]:
        """All values of the packet, in the order of its constructor."""
        return ()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Packet)
            and type(self) is type(other)
            and self.fields() == other.fields()
        )

    def __hash__(self) -> int:
        return hash((type(self), self.fields()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class PublishProperties(Packet):
    """What a PUBLISH or a will may carry beside topic and payload (3.3.2.3)."""

    __slots__ = (
        "payload_format_indicator",
        "message_expiry_interval",
        "content_type",
        "response_topic",
        "correlation_data",
        "user_properties",
        "subscription_identifiers",
        "topic_alias",
    )

    def __init__(
        self,
        payload_format_indicator: int | None = None,
        message_expiry_interval: int | None = None,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
        user_properties: UserProperties = (),
        subscription_identifiers: tuple[int, ...] = (),
        topic_alias: int | None = None,
    ) -> None:
        self.payload_format_indicator = payload_format_indicator
        self.message_expiry_interval = message_expiry_interval
        self.content_type = content_type
        self.response_topic = response_topic
        self.correlation_data = correlation_data
        self.user_properties = user_properties
        self.subscription_identifiers = subscription_identifiers
        self.topic_alias = topic_alias

    def fields(self) -> tuple[object, ...]:
        return (
            self.payload_format_indicator,
            self.message_expiry_interval,
            self.content_type,
            self.response_topic,
            self.correlation_data,
            self.user_properties,
            self.subscription_identifiers,
            self.topic_alias,
        )


class Will(Packet):
    """The message that the server publishes when the connection ends badly (3.1.2.5)."""

    __slots__ = ("topic", "payload", "qos", "retain", "delay_interval", "properties")

    def __init__(
        self,
        topic: str,
        payload: bytes = b"",
        qos: int = 0,
        retain: bool = False,
        delay_interval: int = 0,
        properties: PublishProperties | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.delay_interval = delay_interval
        self.properties = properties

    def fields(self) -> tuple[object, ...]:
        return (
            self.topic,
            self.payload,
            self.qos,
            self.retain,
            self.delay_interval,
            self.properties,
        )

    def __repr__(self) -> str:
        return f"Will(topic={self.topic!r}, qos={self.qos}, retain={self.retain})"


class Connect(Packet):
    """CONNECT (3.1). `clean_start` is Clean Session in MQTT 3.

    `session_expiry_interval` None means absent; `receive_maximum` and `maximum_packet_size` None
    mean absent too (65,535 and no limit).
    """

    __slots__ = (
        "version",
        "client_id",
        "clean_start",
        "keep_alive",
        "username",
        "password",
        "will",
        "session_expiry_interval",
        "receive_maximum",
        "maximum_packet_size",
        "topic_alias_maximum",
        "request_response_information",
        "request_problem_information",
        "user_properties",
        "authentication_method",
        "authentication_data",
    )

    def __init__(
        self,
        version: int = MQTT_5,
        client_id: str = "",
        clean_start: bool = True,
        keep_alive: int = 0,
        username: str | None = None,
        password: bytes | None = None,
        will: Will | None = None,
        session_expiry_interval: int | None = None,
        receive_maximum: int | None = None,
        maximum_packet_size: int | None = None,
        topic_alias_maximum: int = 0,
        request_response_information: bool = False,
        request_problem_information: bool = True,
        user_properties: UserProperties = (),
        authentication_method: str | None = None,
        authentication_data: bytes | None = None,
    ) -> None:
        self.version = version
        self.client_id = client_id
        self.clean_start = clean_start
        self.keep_alive = keep_alive
        self.username = username
        self.password = password
        self.will = will
        self.session_expiry_interval = session_expiry_interval
        self.receive_maximum = receive_maximum
        self.maximum_packet_size = maximum_packet_size
        self.topic_alias_maximum = topic_alias_maximum
        self.request_response_information = request_response_information
        self.request_problem_information = request_problem_information
        self.user_properties = user_properties
        self.authentication_method = authentication_method
        self.authentication_data = authentication_data

    def fields(self) -> tuple[object, ...]:
        return (
            self.version,
            self.client_id,
            self.clean_start,
            self.keep_alive,
            self.username,
            self.password,
            self.will,
            self.session_expiry_interval,
            self.receive_maximum,
            self.maximum_packet_size,
            self.topic_alias_maximum,
            self.request_response_information,
            self.request_problem_information,
            self.user_properties,
            self.authentication_method,
            self.authentication_data,
        )

    def __repr__(self) -> str:
        return (
            f"Connect(version={self.version}, client_id={self.client_id!r}, "
            f"clean_start={self.clean_start}, keep_alive={self.keep_alive})"
        )


class ConnAck(Packet):
    """CONNACK (3.2). `reason_code` is the MQTT 3 return code where the version is below 5.

    None means that the property is absent.
    """

    __slots__ = (
        "session_present",
        "reason_code",
        "session_expiry_interval",
        "receive_maximum",
        "maximum_qos",
        "retain_available",
        "maximum_packet_size",
        "assigned_client_identifier",
        "topic_alias_maximum",
        "reason_string",
        "user_properties",
        "wildcard_subscription_available",
        "subscription_identifiers_available",
        "shared_subscription_available",
        "server_keep_alive",
        "response_information",
        "server_reference",
        "authentication_method",
        "authentication_data",
    )

    def __init__(
        self,
        session_present: bool = False,
        reason_code: int = 0,
        session_expiry_interval: int | None = None,
        receive_maximum: int | None = None,
        maximum_qos: int | None = None,
        retain_available: bool | None = None,
        maximum_packet_size: int | None = None,
        assigned_client_identifier: str | None = None,
        topic_alias_maximum: int | None = None,
        reason_string: str | None = None,
        user_properties: UserProperties = (),
        wildcard_subscription_available: bool | None = None,
        subscription_identifiers_available: bool | None = None,
        shared_subscription_available: bool | None = None,
        server_keep_alive: int | None = None,
        response_information: str | None = None,
        server_reference: str | None = None,
        authentication_method: str | None = None,
        authentication_data: bytes | None = None,
    ) -> None:
        self.session_present = session_present
        self.reason_code = reason_code
        self.session_expiry_interval = session_expiry_interval
        self.receive_maximum = receive_maximum
        self.maximum_qos = maximum_qos
        self.retain_available = retain_available
        self.maximum_packet_size = maximum_packet_size
        self.assigned_client_identifier = assigned_client_identifier
        self.topic_alias_maximum = topic_alias_maximum
        self.reason_string = reason_string
        self.user_properties = user_properties
        self.wildcard_subscription_available = wildcard_subscription_available
        self.subscription_identifiers_available = subscription_identifiers_available
        self.shared_subscription_available = shared_subscription_available
        self.server_keep_alive = server_keep_alive
        self.response_information = response_information
        self.server_reference = server_reference
        self.authentication_method = authentication_method
        self.authentication_data = authentication_data

    def fields(self) -> tuple[object, ...]:
        return (
            self.session_present,
            self.reason_code,
            self.session_expiry_interval,
            self.receive_maximum,
            self.maximum_qos,
            self.retain_available,
            self.maximum_packet_size,
            self.assigned_client_identifier,
            self.topic_alias_maximum,
            self.reason_string,
            self.user_properties,
            self.wildcard_subscription_available,
            self.subscription_identifiers_available,
            self.shared_subscription_available,
            self.server_keep_alive,
            self.response_information,
            self.server_reference,
            self.authentication_method,
            self.authentication_data,
        )

    def __repr__(self) -> str:
        return (
            f"ConnAck(session_present={self.session_present}, reason_code=0x{self.reason_code:02X})"
        )


class Publish(Packet):
    """PUBLISH (3.3). `packet_id` is 0 at QoS 0; `properties` is None where there are none.

    `frame` holds the packet's bytes as they were received, if they may be passed on unchanged to
    another connection of the same kind at once: QoS 0, DUP 0, RETAIN 0, no topic alias. (A message
    expiry interval in it is the sender's.) MQTT 3.1 and 3.1.1 are of one kind. It is no part of the
    packet's value.
    """

    __slots__ = ("topic", "payload", "qos", "retain", "dup", "packet_id", "properties", "frame")

    def __init__(
        self,
        topic: str,
        payload: bytes = b"",
        qos: int = 0,
        retain: bool = False,
        dup: bool = False,
        packet_id: int = 0,
        properties: PublishProperties | None = None,
        frame: bytes | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.dup = dup
        self.packet_id = packet_id
        self.properties = properties
        self.frame = frame

    def fields(self) -> tuple[object, ...]:
        return (
            self.topic,
            self.payload,
            self.qos,
            self.retain,
            self.dup,
            self.packet_id,
            self.properties,
        )

    def __repr__(self) -> str:
        return (
            f"Publish(topic={self.topic!r}, qos={self.qos}, retain={self.retain}, dup={self.dup}, "
            f"packet_id={self.packet_id}, payload of {len(self.payload)} bytes)"
        )


class Acknowledgement(Packet):
    """Base of PUBACK, PUBREC, PUBREL and PUBCOMP (3.4 to 3.7): they differ in type only."""

    __slots__ = ("packet_id", "reason_code", "reason_string", "user_properties")

    def __init__(
        self,
        packet_id: int,
        reason_code: int = 0,
        reason_string: str | None = None,
        user_properties: UserProperties = (),
    ) -> None:
        self.packet_id = packet_id
        self.reason_code = reason_code
        self.reason_string = reason_string
        self.user_properties = user_properties

    def fields(self) -> tuple[object, ...]:
        return (self.packet_id, self.reason_code, self.reason_string, self.user_properties)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(packet_id={self.packet_id}, "
            f"reason_code=0x{self.reason_code:02X})"
        )


class PubAck(Acknowledgement):
    """PUBACK (3.4): the QoS 1 message is owned by the receiver."""

    __slots__ = ()


class PubRec(Acknowledgement):
    """PUBREC (3.5): the QoS 2 message is owned by the receiver."""

    __slots__ = ()


class PubRel(Acknowledgement):
    """PUBREL (3.6): the sender has seen PUBREC and gives the message free."""

    __slots__ = ()


class PubComp(Acknowledgement):
    """PUBCOMP (3.7): the QoS 2 exchange is over."""

    __slots__ = ()


class SubscriptionRequest(Packet):
    """One topic filter of a SUBSCRIBE with its options (3.8.3.1)."""

    __slots__ = ("topic_filter", "qos", "no_local", "retain_as_published", "retain_handling")

    def __init__(
        self,
        topic_filter: str,
        qos: int = 0,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
    ) -> None:
        self.topic_filter = topic_filter
        self.qos = qos
        self.no_local = no_local
        self.retain_as_published = retain_as_published
        self.retain_handling = retain_handling

    def fields(self) -> tuple[object, ...]:
        return (
            self.topic_filter,
            self.qos,
            self.no_local,
            self.retain_as_published,
            self.retain_handling,
        )

    def __repr__(self) -> str:
        return f"SubscriptionRequest({self.topic_filter!r}, qos={self.qos})"


class Subscribe(Packet):
    """SUBSCRIBE (3.8). `subscription_identifier` 0 means none."""

    __slots__ = ("packet_id", "requests", "subscription_identifier", "user_properties")

    def __init__(
        self,
        packet_id: int,
        requests: tuple[SubscriptionRequest, ...],
        subscription_identifier: int = 0,
        user_properties: UserProperties = (),
    ) -> None:
        self.packet_id = packet_id
        self.requests = requests
        self.subscription_identifier = subscription_identifier
        self.user_properties = user_properties

    def fields(self) -> tuple[object, ...]:
        return (self.packet_id, self.requests, self.subscription_identifier, self.user_properties)

    def __repr__(self) -> str:
        return f"Subscribe(packet_id={self.packet_id}, requests={self.requests!r})"


class SubAck(Packet):
    """SUBACK (3.9): one reason code for each topic filter, in their order."""

    __slots__ = ("packet_id", "reason_codes", "reason_string", "user_properties")

    def __init__(
        self,
        packet_id: int,
        reason_codes: tuple[int, ...],
        reason_string: str | None = None,
        user_properties: UserProperties = (),
    ) -> None:
        self.packet_id = packet_id
        self.reason_codes = reason_codes
        self.reason_string = reason_string
        self.user_properties = user_properties

    def fields(self) -> tuple[object, ...]:
        return (self.packet_id, self.reason_codes, self.reason_string, self.user_properties)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(packet_id={self.packet_id}, reason_codes={self.reason_codes})"
        )


class Unsubscribe(Packet):
    """UNSUBSCRIBE (3.10)."""

    __slots__ = ("packet_id", "topic_filters", "user_properties")

    def __init__(
        self,
        packet_id: int,
        topic_filters: tuple[str, ...],
        user_properties: UserProperties = (),
    ) -> None:
        self.packet_id = packet_id
        self.topic_filters = topic_filters
        self.user_properties = user_properties

    def fields(self) -> tuple[object, ...]:
        return (self.packet_id, self.topic_filters, self.user_properties)

    def __repr__(self) -> str:
        return f"Unsubscribe(packet_id={self.packet_id}, topic_filters={self.topic_filters!r})"


class UnsubAck(SubAck):
    """UNSUBACK (3.11): one reason code for each topic filter; MQTT 3 has none on the wire."""

    __slots__ = ()


class PingReq(Packet):
    """PINGREQ (3.12)."""

    __slots__ = ()


class PingResp(Packet):
    """PINGRESP (3.13)."""

    __slots__ = ()


class Disconnect(Packet):
    """DISCONNECT (3.14). MQTT 3 knows it from the client only, with reason code 0."""

    __slots__ = (
        "reason_code",
        "session_expiry_interval",
        "reason_string",
        "user_properties",
        "server_reference",
    )

    def __init__(
        self,
        reason_code: int = 0,
        session_expiry_interval: int | None = None,
        reason_string: str | None = None,
        user_properties: UserProperties = (),
        server_reference: str | None = None,
    ) -> None:
        self.reason_code = reason_code
        self.session_expiry_interval = session_expiry_interval
        self.reason_string = reason_string
        self.user_properties = user_properties
        self.server_reference = server_reference

    def fields(self) -> tuple[object, ...]:
        return (
            self.reason_code,
            self.session_expiry_interval,
            self.reason_string,
            self.user_properties,
            self.server_reference,
        )

    def __repr__(self) -> str:
        return f"Disconnect(reason_code=0x{self.reason_code:02X})"


class Auth(Packet):
    """AUTH (3.15), MQTT 5 only."""

    __slots__ = (
        "reason_code",
        "authentication_method",
        "authentication_data",
        "reason_string",
        "user_properties",
    )

    def __init__(
        self,
        reason_code: int = 0,
        authentication_method: str | None = None,
        authentication_data: bytes | None = None,
        reason_string: str | None = None,
        user_properties: UserProperties = (),
    ) -> None:
        self.reason_code = reason_code
        self.authentication_method = authentication_method
        self.authentication_data = authentication_data
        self.reason_string = reason_string
        self.user_properties = user_properties

    def fields(self) -> tuple[object, ...]:
        return (
            self.reason_code,
            self.authentication_method,
            self.authentication_data,
            self.reason_string,
            self.user_properties,
        )

    def __repr__(self) -> str:
        return f"Auth(reason_code=0x{self.reason_code:02X}, method={self.authentication_method!r})"
