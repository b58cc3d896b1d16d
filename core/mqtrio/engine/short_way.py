"""The short way of plain messages: no retain, no properties, no plugin that transforms them.

Most messages of a busy broker are so, and each function call counts there. What happens to them is
what publish.py says; whatever is out of the ordinary goes there. Where plugins are asked or told
about a message it goes by asked_way.py, at QoS 0.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mqtrio.engine import asked_way, publish
from mqtrio.engine.route import Group, Route
from mqtrio.engine.weights import RECEIPT
from mqtrio.state.message import NEVER, Message
from mqtrio.state.session import WIRE_3, WIRE_5, Delivery
from mqtrio.store.batch import COMMITTED, Batch, BatchState
from mqtrio.wire.encoder import publish_parts
from mqtrio.wire.packets import MQTT_3_1_1, MQTT_5, Publish

if TYPE_CHECKING:
    from mqtrio.engine.connection import Connection
    from mqtrio.engine.router import Router

#: What handling one packet costs of a turn's budget; a delivery costs 1.
PACKET_WORK: Final = 16

PACKET_IDS: Final = tuple(number.to_bytes(2, "big") for number in range(65536))

#: QoS -> the first two bytes of its plain acknowledgement: PUBACK, PUBREC.
_ANSWERS: Final = (b"", b"\x40\x02", b"\x50\x02")


def take(connection: "Connection", packets: list[Any], at: int) -> int:
    """Handle the PUBLISH at `packets[at]`; at QoS 0 with it those to the same topic that follow.

    Returns the place of the next packet to handle. The work for the first one is counted already.
    """
    packet: Publish = packets[at]
    if packet.properties is not None or packet.retain:
        publish.on_publish(connection, packet)
        return at + 1
    core = connection.core
    router = core.router
    topic = packet.topic
    route = router.routes.get(topic)
    if route is None:
        route = router.route(topic)
    if packet.qos:
        if route.simple and not connection.asked and (packet.qos == 1 or not connection.owed):
            _exchange(connection, packet, route)
        else:
            publish.on_publish(connection, packet)
        return at + 1
    frame = packet.frame
    if frame is None or not route.plain:
        publish.on_publish(connection, packet)
        return at + 1
    start = at
    at += 1
    frames = [frame]
    if at < len(packets):
        work = PACKET_WORK + route.weight
        end = min(len(packets), at + (core.budget - core.work) // work)
        while at < end:
            packet = packets[at]
            if packet.__class__ is not Publish:
                break
            frame = packet.frame
            if frame is None or packet.topic != topic or packet.properties is not None:
                break
            frames.append(frame)
            at += 1
    run = packets[start:at]
    if connection.asked:
        forward = partial(_forward, connection, route, run, frames)
        at = start + asked_way.take(connection, run, forward)
    else:
        _forward(connection, route, run, frames, len(run))
    core.statistics.messages_received += at - start
    core.work += (at - start - 1) * PACKET_WORK + (at - start) * route.weight
    if core.pressure.congested:
        core.pressure.stall(connection)
    return at


def _forward(
    publisher: "Connection", route: Route, packets: list[Any], frames: list[bytes], count: int
) -> None:
    """Pass on the first `count` QoS 0 messages: as they came, where that is what a target wants."""
    core = publisher.core
    router = core.router
    if count < len(packets):
        packets = packets[:count]
        frames = frames[:count]
    dirty = core.dirty
    profile = WIRE_5 if publisher.version5 else WIRE_3
    messages: list[Message] | None = None
    for group in route.groups:
        if group.takes != profile:
            if messages is None:
                messages = [_message(packet, publisher) for packet in packets]
            for message in messages:
                router.deliver_to_group(group, message)
            continue
        core.statistics.messages_sent += count * len(group.sessions)
        for session in group.sessions:
            outlet = session.outlet
            if outlet is None:
                continue
            if outlet.blocked:
                router.squeeze(session, frames)
                continue
            out = outlet.out
            if not out:
                dirty.append(outlet)  # type: ignore[arg-type]  # only wires share frames
            out += frames
    if not route.simple:
        if messages is None:
            messages = [_message(packet, publisher) for packet in packets]
        for message in messages:
            router.deliver_specially(route, message)


def _message(packet: Publish, publisher: "Connection") -> Message:
    return Message(
        packet.topic,
        packet.payload,
        packet.qos,
        False,
        None,
        publisher.client_id,
        publisher.username,
        "client",
        NEVER,
    )


def _exchange(connection: "Connection", packet: Publish, route: Route) -> None:
    """A QoS 1 or 2 message: into the windows of all its targets, and acknowledged."""
    core = connection.core
    session = connection.session
    qos = packet.qos
    packet_id = packet.packet_id
    if (
        session is None
        or (qos == 2 and session.stored)
        or qos > connection.maximum_qos
        or packet.dup
        or core.recorder.journal.full
        or (
            connection.receive_maximum
            and connection.owed_pubacks + len(session.received or ()) >= connection.receive_maximum
        )
    ):
        publish.on_publish(connection, packet)
        return
    message = _message(packet, connection)
    if core.router.refusal(route, message):
        publish.on_publish(connection, packet)
        return
    if qos == 2:
        if not session.begin_receipt(packet_id):
            connection.write(_ANSWERS[2] + PACKET_IDS[packet_id])
            return
        core.memory += RECEIPT
    core.statistics.messages_received += 1
    core.work += route.weight
    batch = COMMITTED
    for group in route.groups:
        if group.qos and group.shared_frame:
            batch = _send(core.router, group, message) or batch
        else:
            batch = core.router.deliver_to_group(group, message) or batch
    if batch.state is BatchState.OPEN and qos == 1:  # so there is somebody who gets it
        connection.owe(b"\x40\x02" + PACKET_IDS[packet_id], batch)
    elif batch is COMMITTED and not connection.owed and (route.weight or not connection.version5):
        out = connection.out
        if connection.blocked:
            connection.write(_ANSWERS[qos] + PACKET_IDS[packet_id])
        else:
            if not out:
                core.dirty.append(connection)
            out.append(_ANSWERS[qos] + PACKET_IDS[packet_id])
    else:
        publish.answer(connection, packet, route, batch)
    if core.pressure.congested:
        core.pressure.stall(connection)


def _send(router: "Router", group: Group, message: Message) -> Batch | None:
    """`Router.deliver_to_group` for sessions that share a frame."""
    core = router.core
    qos = min(message.qos, group.qos)
    identifiers = group.identifiers
    sessions = group.sessions
    version5 = group.profile == WIRE_5
    frame: tuple[bytes, bytes] | None = None
    core.statistics.messages_sent += len(sessions)
    dirty = core.dirty
    batch = None
    for session in sessions:
        outlet = session.outlet
        inflight = session.inflight
        if (
            outlet is None
            or session.queue
            or outlet.blocked
            or len(inflight) >= session.window
            or (session.stored and (qos == 2 or session.unread is not None))
        ):
            batch = router.hand(session, message, qos, False, identifiers) or batch
            continue
        if frame is not None:
            pass
        elif len(sessions) == 1:  # nobody to share a frame with
            version = MQTT_5 if version5 else MQTT_3_1_1
            frame = publish_parts(
                message.topic, message.payload, qos, False, None, version, identifiers
            )
        else:
            frame = message.parts(version5, qos, False, identifiers, core.now)
        delivery = Delivery(message, qos, False, identifiers)
        delivery.sent = True
        core.deliveries.hold(message)
        if session.stored:
            batch = core.recorder.queued(session, delivery)
        packet_id = session.open_flight(delivery)
        out = outlet.out
        if not out:
            dirty.append(outlet)  # type: ignore[arg-type]  # only wires share frames
        out += (frame[0], PACKET_IDS[packet_id], frame[1])
        outlet.extra_parts += 2  # type: ignore[attr-defined]  # only wires share frames
    return batch
