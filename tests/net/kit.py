"""A small engine that speaks lines of text, and clients for both kinds of links."""

import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio.testing

from mqtrio.engine.link import Link, LinkConnection, PeerFacts
from mqtrio.errors import ProtocolError
from mqtrio.hooks.peer import TlsFacts
from mqtrio.net.addresses import parse_listener
from mqtrio.net.layers import LayerFactory, build
from mqtrio.net.network import Network, open_network
from mqtrio.net.poller import Poller
from mqtrio.settings import Limits, Settings

LINE_WORK = 16
PEER = PeerFacts(address="192.0.2.7", port=4711, listener="test")

# Bits of `hold`; like the engine's, but that does not matter.
WAIT, BUDGET = 1, 4


class Statistics:
    bytes_sent = 0
    packets_sent = 0


class Connection:
    """Handles lines: echo TEXT, big SIZE, bye, bad, bug, wait, work UNITS, note TEXT."""

    def __init__(self, core: "Core", link: Link) -> None:
        self.core = core
        self.link = link
        self.out: list[bytes] = []
        self.extra_parts = 0
        self.hold = 0
        self.blocked = False
        self.announced = True
        self.queued = 0
        self.progress = 0
        self.closed = False
        self.ended = False
        self.buffer = b""
        self.chunks: list[int] = []
        self.peers: list[PeerFacts] = []
        self.seen: list[str] = []
        self.drains = 0
        self.was_lost = False

    # -- for the link

    def receive(self, data: bytes) -> None:
        assert type(data) is bytes
        self.chunks.append(len(data))
        self.buffer += data
        if not self.hold:
            self.run()

    def introduce(self, peer: PeerFacts) -> None:
        assert not self.chunks
        self.peers.append(peer)

    def end_of_input(self) -> None:
        assert not self.ended
        self.ended = True
        if not self.hold:
            self.close()

    def proceed(self) -> None:
        self.hold &= ~BUDGET
        self.go_on()

    def drained(self) -> None:
        assert not self.blocked
        assert not self.queued
        self.drains += 1

    def lost(self) -> None:
        self.was_lost = True
        self.close()

    # -- the engine's own

    def run(self) -> None:
        while not self.hold and not self.closed:
            line, newline, rest = self.buffer.partition(b"\n")
            if not newline:
                break
            self.buffer = rest
            self.core.work += LINE_WORK
            self.handle(line.decode())
            if self.core.work >= self.core.settings.limits.turn_budget and not self.closed:
                self.hold |= BUDGET
                self.link.again()
        if self.ended and not self.hold:
            self.close()

    def handle(self, line: str) -> None:
        self.seen.append(line)
        self.core.seen.append((self, line))
        word, _, rest = line.partition(" ")
        match word:
            case "echo":
                self.write(rest.encode() + b"\n")
            case "big":
                self.write(pattern(int(rest)))
            case "bye":
                self.write(b"bye\n")
                self.close()
            case "bad":
                raise ProtocolError(0x82, "bad line")
            case "bug":
                raise RuntimeError("bug")
            case "wait":
                self.hold |= WAIT
            case "work":
                self.core.work += int(rest)

    def release(self) -> None:
        """What `wait` waited for has come."""
        self.hold &= ~WAIT
        self.core.tick()
        self.go_on()
        self.core.flush()

    def go_on(self) -> None:
        if self.may_go_on():
            self.core.guard(self, self.run)
        if self.may_go_on():
            self.link.resume()

    def may_go_on(self) -> bool:
        return not self.hold and not self.closed

    def write(self, data: bytes) -> None:
        if not self.out:
            self.core.dirty.append(self)
        self.out.append(data)
        if self.blocked:
            self.queued += len(data)
            self.core.memory += len(data)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.core.memory -= self.queued
            self.queued = 0
            self.link.close()


class Core:
    def __init__(self, **limits: Any) -> None:
        self.settings = Settings(limits=attrs.evolve(Limits(), **limits))
        self.statistics = Statistics()
        self.dirty: list[Connection] = []
        self.work = 0
        self.memory = 0
        self.now = 0.0
        self.kick: Callable[[], None] = lambda: None
        self.flushes = 0
        self.accepted: list[Connection] = []
        self.refusing = False
        self.seen: list[tuple[Connection, str]] = []
        self.failures: list[tuple[LinkConnection, Exception]] = []

    def tick(self) -> None:
        self.now = trio.current_time()
        self.work = 0

    def turn_took(self, seconds: float) -> None:
        pass

    def flush(self) -> None:
        self.flushes += 1
        while self.dirty:
            dirty, self.dirty = self.dirty, []
            for connection in dirty:
                self.guard(connection, connection.link.flush)

    def guard(
        self, connection: Connection, function: Callable[..., object], *arguments: object
    ) -> None:
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001 (all of them, as the engine does)
            self.failures.append((connection, error))
            if isinstance(error, ProtocolError) and not connection.closed:
                connection.write(b"fail %#x\n" % error.reason_code)
            connection.close()

    def accept(self, link: Link) -> Connection | None:
        if self.refusing:
            return None
        connection = Connection(self, link)
        self.accepted.append(connection)
        return connection

    def goodbye(self) -> None:
        for connection in self.accepted:
            if not connection.closed:
                connection.write(b"stopping\n")
                connection.close()


def pattern(size: int) -> bytes:
    """Bytes that show where they belong."""
    return b"".join(struct.pack(">I", number) for number in range(size // 4 + 1))[:size]


async def until(condition: Callable[[], object]) -> None:
    """Let the other tasks run until the condition holds; fails after ten seconds of real time."""
    last = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < last, "the condition has not come true"
        await trio.lowlevel.checkpoint()


async def let_run(rounds: int = 50) -> None:
    """Let the other tasks do what they can do now, the kernel's part included."""
    for _ in range(rounds):
        await trio.lowlevel.checkpoint()


class Client:
    """The other end of a link."""

    def __init__(self, stream: trio.abc.Stream, connection: Connection) -> None:
        self.stream = stream
        self.connection = connection
        self.received = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    def send_now(self, data: bytes) -> None:
        """Send without giving the poller a turn; a socket takes a little at once."""
        assert isinstance(self.stream, trio.SocketStream)
        assert os.write(self.stream.socket.fileno(), data) == len(data)

    async def exactly(self, size: int) -> bytes:
        while len(self.received) < size:
            data = await self.stream.receive_some()
            assert data, f"ended after {self.received[-100:]!r}"
            self.received += data
        found, self.received = self.received[:size], self.received[size:]
        return found

    async def line(self) -> bytes:
        while b"\n" not in self.received:
            data = await self.stream.receive_some()
            assert data, f"ended after {self.received[-100:]!r}"
            self.received += data
        found, _, self.received = self.received.partition(b"\n")
        return found

    async def rest(self) -> bytes:
        """Everything up to the end; fails on a reset."""
        while data := await self.stream.receive_some():
            self.received += data
        found, self.received = self.received, b""
        return found

    async def end(self) -> None:
        assert isinstance(self.stream, trio.abc.HalfCloseableStream)
        await self.stream.send_eof()

    async def vanish(self) -> None:
        """Be gone without a word; a reset, where there is such a thing."""
        if isinstance(self.stream, trio.SocketStream):
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(self.stream)


class Rig:
    """A network with the engine above, and a way to connect to it."""

    def __init__(self, kind: str, core: Core, network: Network, nursery: trio.Nursery) -> None:
        self.kind = kind
        self.core = core
        self.network = network
        self.nursery = nursery
        self.clients: list[Client] = []

    @property
    def poller(self) -> Poller:
        assert self.network.poller is not None
        return self.network.poller

    async def connect(self, layers: Sequence[LayerFactory] = (), *, narrow: bool = False) -> Client:
        """A client; `narrow`: its stream takes nothing before it is read."""
        before = len(self.core.accepted)
        stream: trio.abc.Stream
        other: trio.abc.Stream
        if self.kind == "socket":
            with socket.create_server(("127.0.0.1", 0)) as server:
                stream = await trio.open_tcp_stream(*server.getsockname())
                sock, _ = server.accept()
            sock.setblocking(False)
            if narrow:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * 1024)
            self.poller.adopt(sock, PEER, build(layers))
        else:
            if narrow:
                stream, other = trio.testing.lockstep_stream_pair()
            else:
                stream, other = trio.testing.memory_stream_pair()
            self.nursery.start_soon(self.network.serve_stream, other, PEER, layers)
            await until(lambda: len(self.core.accepted) > before)
        client = Client(stream, self.core.accepted[-1])
        self.clients.append(client)
        return client


@asynccontextmanager
async def rig(kind: str, core: Core | None = None) -> AsyncIterator[Rig]:
    core = core or Core()
    with trio.fail_after(30):
        async with open_network(core) as network, trio.open_nursery() as nursery:
            made = Rig(kind, core, network, nursery)
            try:
                yield made
            finally:
                with trio.CancelScope(shield=True):
                    for client in made.clients:
                        await trio.aclose_forcefully(client.stream)
                nursery.cancel_scope.cancel()


def local(path: str = "mqtt://127.0.0.1:0") -> Any:
    return parse_listener(path)


FRAMED = TlsFacts(version="framed", cipher="none")


class Framing:
    """Each message has a length of two bytes in front; an empty one is the end; 0xFFFF is a fault.

    The server says HELLO first of all when the client's first frame, its greeting, has come.
    """

    handshake_work = 600
    weight = 1000
    bound = 1 << 17

    def __init__(self) -> None:
        self.eof = False
        self.handshake_done = False
        self.buffer = b""
        self.said = b""
        self.pending = b""
        self.fault = False
        self.closed = False

    def receive(self, data: bytes) -> bytes:
        self.buffer += data
        if self.fault:
            raise ProtocolError(0x81, "bad frame")
        while len(self.buffer) >= 2 and not self.eof:
            size = int.from_bytes(self.buffer[:2], "big")
            if size == 0xFFFF:
                self.fault = True
                raise ProtocolError(0x81, "bad frame")
            if len(self.buffer) < 2 + size:
                break
            frame, self.buffer = self.buffer[2 : 2 + size], self.buffer[2 + size :]
            if not size:
                self.eof = True
            elif not self.handshake_done:
                self.handshake_done = True
                self.said += self.frame(b"HELLO" + frame)
                self.said += self.frame(self.pending) if self.pending else b""
            elif frame.startswith(b"ping"):
                self.said += self.frame(b"pong" + frame[4:])
            else:
                return frame
        return b""

    @staticmethod
    def frame(data: bytes) -> bytes:
        pieces = [data[start : start + 60000] for start in range(0, len(data), 60000)]
        return b"".join(len(piece).to_bytes(2, "big") + piece for piece in pieces)

    def send(self, data: bytes) -> bytes:
        assert not self.closed
        if not self.handshake_done:
            self.pending += data
            return b""
        said, self.said = self.said, b""
        return said + self.frame(data)

    def close(self) -> bytes:
        self.closed = True
        said, self.said = self.said, b""
        return said + b"\0\0"

    def describe(self, peer: PeerFacts) -> PeerFacts:
        return attrs.evolve(peer, tls=FRAMED)


class Xor:
    """Turns each byte over; gives what it receives in pieces of at most 1000 bytes."""

    handshake_work = 0
    weight = 1000
    handshake_done = True
    eof = False
    bound = 1 << 19

    def __init__(self) -> None:
        self.waiting = b""

    def receive(self, data: bytes) -> bytes:
        self.waiting += self.turn(data)
        piece, self.waiting = self.waiting[:1000], self.waiting[1000:]
        return piece

    @staticmethod
    def turn(data: bytes) -> bytes:
        return data.translate(bytes(255 - value for value in range(256)))

    def send(self, data: bytes) -> bytes:
        return self.turn(data)

    def close(self) -> bytes:
        return b""

    def describe(self, peer: PeerFacts) -> PeerFacts:
        return peer
