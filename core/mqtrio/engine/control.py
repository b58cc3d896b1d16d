"""PINGREQ and DISCONNECT (3.12, 3.14)."""

from typing import TYPE_CHECKING

from mqtrio.errors import ProtocolError
from mqtrio.reasons import ReasonCode
from mqtrio.store.batch import COMMITTED
from mqtrio.wire.encoder import PINGRESP
from mqtrio.wire.packets import Disconnect, PingReq

if TYPE_CHECKING:
    from mqtrio.engine.connection import Connection


def on_pingreq(connection: "Connection", packet: PingReq) -> None:
    """Answer at once [MQTT-3.12.4-1], only never before CONNACK."""
    if connection.announced:
        connection.write(PINGRESP)
    else:
        connection.reply(PINGRESP, COMMITTED)


def on_disconnect(connection: "Connection", packet: Disconnect) -> None:
    """The client ends the connection; with reason code 0 its will is forgotten [MQTT-3.14.4-3]."""
    session = connection.session
    assert session is not None
    interval = packet.session_expiry_interval
    if interval is not None:
        connect = connection.connect
        assert connect is not None
        if interval and not connect.session_expiry_interval:  # 3.14.2.2.2
            raise ProtocolError(
                ReasonCode.PROTOCOL_ERROR, "a session of interval 0 can't be prolonged"
            )
        connection.core.sessions.change_expiry(connection, interval)
    if packet.reason_code == ReasonCode.SUCCESS:
        connection.forget_will()
    connection.said_goodbye = True
    connection.close(packet.reason_code, "by the client", say=False)
