"""MQTT over WebSocket (chapter 6): what the tests of both versions do.

The client's end is the sans-IO protocol of the library websockets, over a plain TCP connection.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import CloseCode, Frame, Opcode
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from tests.conformance import raw
from tests.conformance.peer import PATIENCE, Peers

PINGREQ = raw.frame(raw.PINGREQ)
PINGRESP = b"\xd0\x00"


class WebSocket:
    """A WebSocket, of which the test says every frame."""

    def __init__(self, stream: trio.SocketStream, offered: str | None) -> None:
        self._stream = stream
        names = None if offered is None else [Subprotocol(offered)]
        self.protocol = ClientProtocol(parse_uri("ws://127.0.0.1/mqtt"), subprotocols=names)
        #: The bytes of MQTT that have come and were not asked for yet.
        self.received = b""
        self.ended = False

    async def open(self) -> int:
        """Shake hands; the status of the answer."""
        self.protocol.send_request(self.protocol.connect())
        await self.flush()
        while self.protocol.handshake_exc is None and self.protocol.state.name == "CONNECTING":
            await self.read()
        error = self.protocol.handshake_exc
        if error is None:
            return 101
        assert isinstance(error, InvalidStatus), error
        return error.response.status_code

    async def flush(self) -> None:
        """Send what the protocol has to say."""
        for data in self.protocol.data_to_send():
            if data:
                await self._stream.send_all(data)

    async def read(self) -> None:
        """Take what comes next."""
        data = await self._stream.receive_some()
        if not data:
            self.ended = True
            self.protocol.receive_eof()
            return
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Frame) and event.opcode is not Opcode.CLOSE:
                assert event.opcode in (Opcode.BINARY, Opcode.CONT)
                self.received += event.data

    async def binary(self, *pieces: bytes) -> None:
        """Send a frame for each piece."""
        for piece in pieces:
            self.protocol.send_binary(piece)
        await self.flush()

    async def expect(self, wanted: bytes) -> None:
        """The next bytes of MQTT must be these."""
        while len(self.received) < len(wanted):
            assert not self.ended, self.received
            await self.read()
        assert self.received.startswith(wanted)
        self.received = self.received[len(wanted) :]

    async def packet(self) -> bytes:
        """The next packet, whose length is one byte."""
        while len(self.received) < 2 or len(self.received) < 2 + self.received[1]:
            assert not self.ended, self.received
            await self.read()
        size = 2 + self.received[1]
        packet, self.received = self.received[:size], self.received[size:]
        return packet


@asynccontextmanager
async def tcp(peer: Peers, offered: str | None = "mqtt") -> AsyncIterator[WebSocket]:
    """A TCP connection on which nothing was said yet."""
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream(peer.host, peer.port) as stream:
            yield WebSocket(stream, offered)


@asynccontextmanager
async def opened(peer: Peers) -> AsyncIterator[WebSocket]:
    """A WebSocket that is open."""
    async with tcp(peer) as socket:
        assert await socket.open() == 101
        yield socket


# -- what the tests do


async def refuses_text(peer: Peers, connect: bytes) -> None:
    """A frame of text ends the connection, whatever it holds."""
    async with opened(peer) as socket:
        await socket.binary(connect)
        assert (await socket.packet())[0] == 0x20
        socket.protocol.send_text(b"text")
        await socket.flush()
        while not socket.ended:
            await socket.read()
        assert socket.received[:1] in (b"", b"\xe0")  # MQTT 5 may say DISCONNECT before
        close = socket.protocol.close_rcvd
        assert close is not None
        assert close.code == CloseCode.UNSUPPORTED_DATA


async def does_not_align(peer: Peers, connect: bytes) -> None:
    """Packets are split over frames and joined in them."""
    async with opened(peer) as socket:
        await socket.binary(*(connect[at : at + 1] for at in range(len(connect))))
        assert (await socket.packet())[0] == 0x20
        await socket.binary(PINGREQ * 2 + PINGREQ[:1], PINGREQ[1:])
        await socket.expect(PINGRESP * 3)


async def names_mqtt(peer: Peers) -> None:
    """The subprotocol that the server names is the one that was offered."""
    async with opened(peer) as socket:
        assert socket.protocol.subprotocol == "mqtt"


async def wants_mqtt(peer: Peers) -> None:
    """Who does not offer the subprotocol is refused."""
    for offered in (None, "chat"):
        async with tcp(peer, offered) as socket:
            assert await socket.open() == 400
