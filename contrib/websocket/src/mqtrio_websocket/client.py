"""The client's end: opens a WebSocket at somebody else's broker."""

from functools import partial

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.http11 import Response
from websockets.typing import Origin, Subprotocol
from websockets.uri import parse_uri

import mqtrio
from mqtrio_websocket.layer import WebSocketLayer, no_log
from mqtrio_websocket.settings import SUBPROTOCOLS, WebSocketClientSettings


def client_factory(settings: WebSocketClientSettings, host: str) -> mqtrio.LayerFactory:
    """Make what makes the layer of a connection to `host`; raises ConfigurationError."""
    if not settings.path.startswith("/"):
        raise mqtrio.ConfigurationError('path must begin with "/"')
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    try:
        uri = parse_uri(f"ws://{bracketed}{settings.path}")
    except (InvalidURI, ValueError):
        raise mqtrio.ConfigurationError("path is none that a URL can have") from None
    protocol = partial(
        ClientProtocol,
        uri,
        origin=None if settings.origin is None else Origin(settings.origin),
        subprotocols=[Subprotocol(each) for each in SUBPROTOCOLS[:1]],
        extensions=[ClientPerMessageDeflateFactory()] if settings.compression else None,
        max_size=settings.max_frame_size,
        logger=no_log(),
    )
    return lambda: ClientLayer(protocol(), settings)


class ClientLayer(WebSocketLayer):
    """The client's end of a WebSocket; `client_factory` makes them."""

    __slots__ = ()

    _protocol: ClientProtocol
    _server = False

    def __init__(self, protocol: ClientProtocol, settings: WebSocketClientSettings) -> None:
        super().__init__(protocol, settings.max_header_size, settings.max_frame_size)
        protocol.send_request(protocol.connect())
        self._said = b"".join(protocol.data_to_send())

    def _check_begin(self, begin: bytes) -> None:
        if not b"HTTP/1.".startswith(begin[:7]):
            self._refuse("the server speaks no HTTP")

    def _agree(self, head: bytes) -> None:
        status = head.split(b"\n", 1)[0].split(b" ", 2)[1:]
        if not status or status[0].strip() != b"101":
            answer = b" ".join(status).decode("ascii", "replace").strip()
            self._refuse(f"the server has answered {answer[:100]!r}")
        protocol = self._protocol
        protocol.receive_data(head)
        response = next(iter(protocol.events_received()), None)
        if protocol.handshake_exc is not None or not isinstance(response, Response):
            self._refuse("the server's answer is no valid handshake")
        if protocol.subprotocol is None:
            self._refuse("the server does not speak MQTT here: it named no subprotocol")
        self._open(b"")
