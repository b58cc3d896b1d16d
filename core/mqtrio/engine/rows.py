"""Messages and queue entries made of what a store gives back."""

from typing import TYPE_CHECKING

from mqtrio.state.message import NEVER, Message
from mqtrio.state.session import Delivery
from mqtrio.store.changes import MessagePut, RetainedPut, publish_properties
from mqtrio.store.protocol import QueuedRow

if TYPE_CHECKING:
    from mqtrio.engine.core import Core


def message_of_row(core: "Core", row: MessagePut | RetainedPut, retain: bool) -> Message:
    """A message as it was published, with what is left of its lifetime."""
    interval: int | None = None
    moment = NEVER
    if row.expires_at is not None:
        moment = max(core.clock.to_monotonic(row.expires_at), 0.0)
        interval = max(0, int(moment - core.now + 0.999))
    properties = publish_properties(row.properties, interval)
    message = Message(row.topic, row.payload, row.qos, retain, properties)
    message.expires_at = moment
    message.client_id = row.publisher
    message.username = row.username
    message.origin = row.origin
    message.node = row.node
    return message


def delivery_of_row(core: "Core", row: QueuedRow) -> Delivery:
    """An entry of a queue that was unread until now; its message is held by it.

    The message is the one that memory has, if it does, so that each exists once.
    """
    put = row.message
    recorder = core.recorder
    message = recorder.messages.get(put.message_id)
    recorder.references.read(put.message_id, message is not None, len(put.payload))
    if message is None:
        message = message_of_row(core, put, put.retain)
        message.message_id = put.message_id
        recorder.messages[put.message_id] = message
    core.deliveries.hold(message)
    group = core.router.index.group_of(row.shared) if row.shared else None
    delivery = Delivery(message, row.qos, row.retain, row.identifiers, group)
    delivery.sequence = row.sequence
    delivery.packet_id = row.packet_id
    delivery.sent = bool(row.packet_id)
    delivery.released = row.released
    return delivery
