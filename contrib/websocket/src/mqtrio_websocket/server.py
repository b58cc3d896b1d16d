"""The server's end: which requests open a WebSocket, and what the others are told."""

from functools import partial
from http import HTTPStatus
from typing import Final, NoReturn

import attrs
from websockets.exceptions import (
    InvalidHeader,
    InvalidUpgrade,
    NegotiationError,
)
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

import mqtrio
from mqtrio_websocket.layer import WebSocketLayer, no_log
from mqtrio_websocket.proxies import TrustedProxies
from mqtrio_websocket.settings import SUBPROTOCOLS, WebSocketSettings

#: What the first byte tells of who doesn't speak HTTP at all.
_OTHERS: Final = {0x10: "MQTT without WebSocket: use mqtt://", 0x16: "TLS: use wss://"}

#: Methods of HTTP that open no WebSocket.
_METHODS: Final = (b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH")

#: What may stand among the origins besides origins. "null" is what pages from a file send.
_WORDS: Final = ("*", "same", "null")

_VERSION: Final = "Sec-WebSocket-Version"

#: Windows of 4 KiB and little memory for the compressor: less than 64 KiB a connection.
_DEFLATE: Final = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
)


def server_factory(settings: WebSocketSettings) -> mqtrio.LayerFactory:
    """Make what makes the layer of each connection; raises ConfigurationError."""
    _check(settings)
    protocol = partial(
        ServerProtocol,
        subprotocols=[Subprotocol(each) for each in SUBPROTOCOLS],
        extensions=[_DEFLATE] if settings.compression else None,
        max_size=settings.max_frame_size,
        logger=no_log(),
    )
    proxies = TrustedProxies(settings.trusted_proxies)
    return lambda: ServerLayer(protocol(), settings, proxies)


def _check(settings: WebSocketSettings) -> None:
    for path in settings.paths:
        if path != "*" and (not path.startswith("/") or "?" in path or "#" in path):
            raise mqtrio.ConfigurationError(f'paths: {path!r} must begin with "/", or be "*"')
    for origin in settings.origins:
        scheme, _, host = origin.partition("://")
        if origin not in _WORDS and (not scheme or not host or "/" in host):
            raise mqtrio.ConfigurationError(
                f'origins: {origin!r} must look like "https://example.org", without a path'
            )
        if origin != origin.lower():
            raise mqtrio.ConfigurationError(
                f"origins: {origin!r} must be in lower case, as browsers send it"
            )


class ServerLayer(WebSocketLayer):
    """The server's end of a WebSocket; `server_factory` makes them."""

    __slots__ = ("_http", "_proxies", "_settings")

    _protocol: ServerProtocol
    _server = True

    def __init__(
        self, protocol: ServerProtocol, settings: WebSocketSettings, proxies: TrustedProxies
    ) -> None:
        super().__init__(protocol, settings.max_header_size, settings.max_frame_size)
        self._settings = settings
        self._proxies = proxies
        self._http: mqtrio.HttpFacts | None = None

    def describe(self, peer: mqtrio.PeerFacts) -> mqtrio.PeerFacts:
        """The request that opened it, and the client's own address behind a trusted proxy."""
        if self._http is None:
            return peer
        http, self._http = self._http, None
        return self._proxies.look_behind(attrs.evolve(peer, http=http), http)

    # -- the handshake

    def _check_begin(self, begin: bytes) -> None:
        if begin and not begin[:1].isalpha():
            said = _OTHERS.get(begin[0], "no HTTP request")
            self._turn_away(400, "This is no HTTP request.", f"the peer speaks {said}")

    def _too_large(self) -> NoReturn:
        self._turn_away(
            431, "The headers are too large.", f"headers of more than {self._max_head} bytes"
        )

    def _agree(self, head: bytes) -> None:
        if head.count(b"\n") - 2 > self._settings.max_headers:
            self._turn_away(
                431,
                "There are too many headers.",
                f"more than {self._settings.max_headers} headers",
            )
        # Older versions of the library take neither for what it is.
        if head.partition(b" ")[0] in _METHODS:
            self._turn_away(405, "The method must be GET.", "a method other than GET", Allow="GET")
        protocol = self._protocol
        protocol.receive_data(head)
        request = next(iter(protocol.events_received()), None)
        if not isinstance(request, Request) or not request.path.isascii():
            self._turn_away(400, "This is no valid HTTP request.", "no valid HTTP request")
        path, _, query = request.path.partition("?")
        if path not in self._settings.paths and "*" not in self._settings.paths:
            self._turn_away(404, "MQTT is not served at this path.", f"no path {path[:100]!r}")
        origins = request.headers.get_all("Origin")
        if len(origins) == 1 and not self._admits(origins[0], request.headers.get_all("Host")):
            said = f"origin {origins[0][:100]!r} is not listed"
            self._turn_away(403, "Pages of this origin may not connect.", said)
        response = protocol.accept(request)
        if response.status_code != 101:
            self._explain(response.status_code, protocol.handshake_exc)
        protocol.send_response(response)
        self._http = mqtrio.HttpFacts(
            path=path,
            query=query,
            headers=tuple((name.lower(), value) for name, value in request.headers.raw_items()),
            origin=protocol.origin,
            subprotocol=protocol.subprotocol or "",
        )
        self._open(b"".join(protocol.data_to_send()))

    def _admits(self, origin: str, hosts: list[str]) -> bool:
        """Whether pages of an origin may connect, to the host that the request names."""
        listed = self._settings.origins
        # Of two Host headers nobody knows which one the page has sent its request to.
        same = "same" in listed and [origin.partition("://")[2]] == [each.lower() for each in hosts]
        return same or origin in listed or "*" in listed

    def _explain(self, status: int, error: Exception | None) -> NoReturn:
        """Turn away who is not let in, by what the library found wrong."""
        if isinstance(error, InvalidUpgrade):
            self._turn_away(
                status,
                "This is an MQTT broker: open a WebSocket with the subprotocol mqtt.",
                "a plain HTTP request",
                Upgrade="websocket",
            )
        if isinstance(error, NegotiationError):
            self._turn_away(
                status,
                "The subprotocol must be mqtt.",
                "the client offers no subprotocol of MQTT",
            )
        if isinstance(error, InvalidHeader):
            version = (
                {"Sec-WebSocket-Version": "13"} if error.name == "Sec-WebSocket-Version" else {}
            )
            self._turn_away(
                426 if version else status,
                f"The header {error.name} is missing or wrong.",
                f"the header {error.name} is missing or wrong",
                **version,
            )
        self._turn_away(
            status, "This request can't open a WebSocket.", "no request for a WebSocket"
        )

    def _turn_away(self, status: int, text: str, said: str, **headers: str) -> NoReturn:
        """Answer with an error of HTTP; `said` is for our log."""
        response = self._protocol.reject(HTTPStatus(status), text + "\n")
        for name, value in headers.items():
            response.headers[name] = value
        self._refuse(f"{status}, {said}", response.serialize())
