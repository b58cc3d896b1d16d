"""PUBACK, PUBREC, PUBCOMP of what we sent, and PUBREL of what was sent to us (4.3)."""

from typing import TYPE_CHECKING, Final

from mqtrio.engine.short_way import PACKET_IDS
from mqtrio.engine.weights import RECEIPT
from mqtrio.reasons import ReasonCode
from mqtrio.state.session import Delivery, Session
from mqtrio.store.batch import COMMITTED
from mqtrio.wire.encoder import acknowledgement
from mqtrio.wire.packets import PubAck, PubComp, PubRec, PubRel

if TYPE_CHECKING:
    from mqtrio.engine.connection import Connection

PUBREL: Final = 6
PUBCOMP: Final = 7

# The first two bytes of those with success, which need no encoder.
_PUBREL: Final = b"\x62\x02"
_PUBCOMP: Final = b"\x70\x02"


def on_puback(connection: "Connection", packet: PubAck) -> None:
    """A QoS 1 message is settled, with success or not [MQTT-4.3.2-3], [MQTT-4.4.0-2]."""
    session = connection.session
    assert session is not None
    delivery = session.inflight.get(packet.packet_id)
    if delivery is None or delivery.qos != 1:
        return
    _finish(connection, session, delivery, packet.reason_code)


def on_pubrec(connection: "Connection", packet: PubRec) -> None:
    """A QoS 2 message has arrived: PUBREL, or if it was refused the end [MQTT-4.3.3-4]."""
    session = connection.session
    assert session is not None
    packet_id = packet.packet_id
    delivery = session.inflight.get(packet_id)
    if delivery is None or delivery.qos != 2 or not delivery.sent:  # it waits for the store
        if packet.reason_code < 0x80:
            code = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
            version = connection.decoder.version
            connection.reply(acknowledgement(PUBREL, packet_id, code, version), COMMITTED)
        return
    if packet.reason_code >= 0x80:
        _finish(connection, session, delivery, packet.reason_code)
        return
    batch = COMMITTED
    if not delivery.released:
        delivery.released = True
        connection.settled += delivery.message.size
        if session.stored:
            batch = connection.core.recorder.released(session, delivery)
    connection.reply(_PUBREL + PACKET_IDS[packet_id], batch)


def on_pubcomp(connection: "Connection", packet: PubComp) -> None:
    """A QoS 2 exchange that we began is over [MQTT-4.3.3-5]."""
    session = connection.session
    assert session is not None
    delivery = session.inflight.get(packet.packet_id)
    if delivery is None or not delivery.released:
        return
    _finish(connection, session, delivery, packet.reason_code)


def on_pubrel(connection: "Connection", packet: PubRel) -> None:
    """A QoS 2 exchange that the client began is over: its identifier is free [MQTT-4.3.3-11]."""
    session = connection.session
    assert session is not None
    packet_id = packet.packet_id
    if not session.end_receipt(packet_id):
        code = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
        version = connection.decoder.version
        connection.reply(acknowledgement(PUBCOMP, packet_id, code, version), COMMITTED)
        return
    connection.core.memory -= RECEIPT
    batch = COMMITTED
    if session.stored:
        batch = connection.core.recorder.receipt_ended(session, packet_id)
    connection.reply(_PUBCOMP + PACKET_IDS[packet_id], batch)


def _finish(
    connection: "Connection", session: Session, delivery: Delivery, reason_code: int
) -> None:
    core = connection.core
    del session.inflight[delivery.packet_id]
    connection.settled += delivery.message.size
    if session.stored:
        core.recorder.settled(session, delivery)
    core.deliveries.let_go(delivery.message)
    if core.hooks.acknowledged:
        core.observers.acknowledged(session, delivery, reason_code)
    if session.queue or session.replays:
        core.deliveries.pump(session)
