"""Between messages, as the engine moves them, and events, as hooks see them."""

from typing import TYPE_CHECKING

from mqtrio.hooks.events import Origin, PublishEvent
from mqtrio.state.message import NEVER, Message

if TYPE_CHECKING:
    from mqtrio.engine.core import Core


def event_of(core: "Core", message: Message) -> PublishEvent:
    """A message as hooks see it."""
    origin: Origin = message.origin  # type: ignore[assignment]  # set by the engine only
    return PublishEvent(
        core.observers.publisher_of(message),
        message.topic,
        message.payload,
        message.qos,
        message.retain,
        message.properties,
        origin,
    )


def message_from(event: PublishEvent, now: float) -> Message:
    """The message that an event describes; its lifetime begins now."""
    properties = event.properties
    expires_at = NEVER
    if properties is not None and properties.message_expiry_interval is not None:
        expires_at = now + properties.message_expiry_interval
    return Message(
        event.topic,
        event.payload,
        event.qos,
        event.retain,
        properties,
        event.client_id,
        event.username,
        event.origin,
        expires_at,
    )


def changed_message(original: Message, event: PublishEvent, now: float) -> Message:
    """A subscriber's own version of a message; where its lifetime was not changed it goes on."""
    message = message_from(event, now)
    before = original.properties
    after = event.properties
    if (
        before is not None
        and after is not None
        and before.message_expiry_interval == after.message_expiry_interval
    ):
        message.expires_at = original.expires_at
    return message


def is_text(payload: bytes) -> bool:
    """Whether a payload is UTF-8, as a payload format indicator of 1 says (3.3.2.3.2)."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
