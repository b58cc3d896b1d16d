"""What a transform has made is checked as a packet from a client would be; errors are ValueErrors.

The texts name the rule, never the value.
"""

from typing import Final

from mqtrio.hooks.events import PublishEvent, SubscribeEvent
from mqtrio.state.topics import check_topic, check_topic_filter
from mqtrio.wire.packets import PublishProperties

#: What a four byte integer can hold (1.5.3).
_FOUR_BYTES: Final = 0xFFFF_FFFF

#: What a field with a two byte length can hold (1.5.4, 1.5.6).
_TWO_BYTES: Final = 0xFFFF

#: Largest subscription identifier (1.5.5).
_VARIABLE: Final = 268_435_455


def check_message(message: PublishEvent, original: PublishEvent, maximum_levels: int) -> None:
    """Raise ValueError unless `message`, made from `original`, may be published."""
    if message.client is not original.client or message.origin != original.origin:
        raise ValueError("it is not made from the message that was asked about")
    if message.topic is not original.topic:
        if type(message.topic) is not str:
            raise ValueError("its topic is no str")
        check_topic(message.topic, maximum_levels)
    if type(message.payload) is not bytes:
        raise ValueError("its payload is not bytes")
    _check_qos(message.qos)
    _check_flag(message.retain)
    if message.properties is not original.properties and message.properties is not None:
        _check_properties(message.properties)


def check_subscription(
    request: SubscribeEvent, original: SubscribeEvent, maximum_levels: int
) -> None:
    """Raise ValueError unless a client may ask for `request`, made from `original`."""
    if request.client is not original.client or request.origin != original.origin:
        raise ValueError("it is not made from the request that was asked about")
    if type(request.topic_filter) is not str:
        raise ValueError("its topic filter is no str")
    check_topic_filter(request.topic_filter, maximum_levels)
    _check_qos(request.qos)
    _check_flag(request.no_local)
    _check_flag(request.retain_as_published)
    if request.no_local and request.topic_filter.startswith("$share/"):
        raise ValueError("a shared subscription can't have no local")  # [MQTT-3.8.3-4]
    if type(request.retain_handling) is not int or not 0 <= request.retain_handling <= 2:
        raise ValueError("its retain handling is not 0, 1 or 2")
    if type(request.identifier) is not int or not 0 <= request.identifier <= _VARIABLE:
        raise ValueError("its subscription identifier is out of range")


def _check_qos(qos: object) -> None:
    if type(qos) is not int or not 0 <= qos <= 2:
        raise ValueError("its QoS is not 0, 1 or 2")


def _check_flag(flag: object) -> None:
    if type(flag) is not bool:
        raise ValueError("one of its flags is no bool")


def _check_properties(properties: PublishProperties) -> None:
    if type(properties) is not PublishProperties:
        raise ValueError("its properties are no PublishProperties")
    if properties.payload_format_indicator not in (None, 0, 1):
        raise ValueError("its payload format indicator is not 0 or 1")
    expiry = properties.message_expiry_interval
    if expiry is not None and (type(expiry) is not int or not 0 <= expiry <= _FOUR_BYTES):
        raise ValueError("its message expiry interval is no number of seconds")
    if properties.content_type is not None:
        _check_text(properties.content_type, "content type")
    if properties.response_topic is not None:
        _check_text(properties.response_topic, "response topic")
        check_topic(properties.response_topic)  # [MQTT-3.3.2-14]
    data = properties.correlation_data
    if data is not None and (type(data) is not bytes or len(data) > _TWO_BYTES):
        raise ValueError("its correlation data is no short bytes")
    if type(properties.user_properties) is not tuple:
        raise ValueError("its user properties are no tuple")
    for pair in properties.user_properties:
        if type(pair) is not tuple or len(pair) != 2:
            raise ValueError("a user property is no pair of name and value")
        _check_text(pair[0], "user property")
        _check_text(pair[1], "user property")


def _check_text(text: object, what: str) -> None:
    if type(text) is not str:
        raise ValueError(f"its {what} is no str")
    if "\0" in text:
        raise ValueError(f"its {what} has a zero character")  # [MQTT-1.5.4-2]
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"its {what} has surrogates") from None  # [MQTT-1.5.4-1]
    if size > _TWO_BYTES:
        raise ValueError(f"its {what} takes more than {_TWO_BYTES} bytes")
