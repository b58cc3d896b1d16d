"""Which packet is handled where, in each phase of a connection."""

from typing import Final

from mqtrio.engine import acknowledge, authenticate, connect, control, publish, subscribe
from mqtrio.engine.connection import Handler
from mqtrio.wire.packets import (
    Auth,
    Connect,
    Disconnect,
    PingReq,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    Subscribe,
    Unsubscribe,
)

CONNECTED: Final[dict[type, Handler]] = {
    Publish: publish.on_publish,
    PubAck: acknowledge.on_puback,
    PubRec: acknowledge.on_pubrec,
    PubRel: acknowledge.on_pubrel,
    PubComp: acknowledge.on_pubcomp,
    Subscribe: subscribe.on_subscribe,
    Unsubscribe: subscribe.on_unsubscribe,
    PingReq: control.on_pingreq,
    Disconnect: control.on_disconnect,
    Auth: authenticate.on_auth,
    Connect: connect.on_late_connect,
}

BEFORE_CONNECT: Final[dict[type, Handler]] = {
    **dict.fromkeys(CONNECTED, connect.on_early),
    Connect: connect.on_connect,
}

AUTHENTICATING: Final[dict[type, Handler]] = {
    **dict.fromkeys(CONNECTED, connect.on_unexpected_while_connecting),
    Auth: connect.on_auth_while_connecting,
    Disconnect: connect.on_disconnect_while_connecting,
}
