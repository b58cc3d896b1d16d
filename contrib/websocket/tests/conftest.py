"""What the tests share: requests, frames, and a layer that has shaken hands."""

import struct
from typing import Any

import pytest

import mqtrio
from mqtrio_websocket import ServerLayer, WebSocketSettings
from mqtrio_websocket.server import server_factory

#: The key of RFC 6455's example, and what it asks for.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

HEADERS = {
    "Host": "broker.example",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "mqtt",
}


class Kit:
    """Makes what a client sends, by hand."""

    accept = ACCEPT

    def request(self, target: str = "/mqtt", method: str = "GET", **headers: str | None) -> bytes:
        """A request; an underscore in a header's name stands for a hyphen, None leaves it out."""
        merged: dict[str, str | None] = dict(HEADERS)
        names = {name.lower(): name for name in merged}
        for name, value in headers.items():
            name = name.replace("_", "-")
            merged[names.get(name.lower(), name)] = value
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in merged.items() if value is not None]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def frame(
        self, first: int, payload: bytes, key: bytes | None = b"\x01\x02\x03\xff", size: int = -1
    ) -> bytes:
        """A frame; without a key it is not masked. `size` is what it says of its length."""
        size = len(payload) if size < 0 else size
        bit = 0 if key is None else 0x80
        if size < 126:
            head = struct.pack("!BB", first, bit | size)
        elif size < 65536:
            head = struct.pack("!BBH", first, bit | 126, size)
        else:
            head = struct.pack("!BBQ", first, bit | 127, size)
        if key is None:
            return head + payload
        return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))

    def server(self, **settings: Any) -> ServerLayer:
        """The server's end, before its handshake."""
        layer = server_factory(WebSocketSettings(**settings))()
        assert isinstance(layer, ServerLayer)
        return layer

    def open(self, **settings: Any) -> ServerLayer:
        """The server's end, after its handshake."""
        layer = self.server(**settings)
        assert layer.receive(self.request()) == b""
        assert layer.handshake_done
        assert layer.send(b"").startswith(b"HTTP/1.1 101 ")
        return layer

    def refused(self, request: bytes, **settings: Any) -> tuple[int, str, str]:
        """Status, answer and reason for the log of a request that opens nothing."""
        layer = self.server(**settings)
        with pytest.raises(mqtrio.ProtocolError) as caught:
            layer.receive(request)
        with pytest.raises(mqtrio.ProtocolError):
            layer.receive(b"")
        assert not layer.handshake_done
        assert layer.send(b"") == b""
        answer = layer.close().decode()
        assert layer.close() == b""
        assert answer.startswith("HTTP/1.1 ")
        assert "\r\nConnection: close\r\n" in answer
        return int(answer[9:12]), answer, caught.value.message


@pytest.fixture(scope="session")
def kit() -> Kit:
    """The kit."""
    return Kit()
