"""A link over a plain, non-blocking socket that the poller watches."""

import socket
import struct
from typing import TYPE_CHECKING, Final

from mqtrio.engine.link import NO_LINK, LinkCore, PeerFacts
from mqtrio.net.layers import Layer
from mqtrio.net.link import (
    BYTES_PER_WORK,
    CLOSING,
    GONE,
    LINGERING,
    OPEN,
    PARTING,
    SEND_WORK,
    BaseLink,
)
from mqtrio.net.readiness import BROKEN, READ, WRITE

if TYPE_CHECKING:
    from mqtrio.net.poller import Poller

#: Most bytes taken from a socket in one go. From 128 KiB on the C library maps fresh memory for
#: every single buffer, which makes each receive cost 16 us rather than 2.
CHUNK: Final = 64 * 1024

_RESET: Final = struct.pack("ii", 1, 0)


class SocketLink(BaseLink):
    """One socket. Owns no task; the poller calls it when its socket is ready.

    Reading is asked for while the connection has no `hold`, writing while a tail is unsent. An
    error of a send is not the end: what the peer sent before it may still be read, and reading
    finds the end in its place. Until then output goes nowhere (`deaf`).
    """

    __slots__ = ("deaf", "ended", "fd", "poller", "queued", "sock", "tail", "watched")

    def __init__(
        self,
        core: LinkCore,
        peer: PeerFacts,
        layer: Layer | None,
        poller: "Poller",
        sock: socket.socket,
    ) -> None:
        super().__init__(core, peer, layer)
        self.poller = poller
        self.sock = sock
        self.fd = sock.fileno()
        #: What the socket is watched for.
        self.watched = 0
        #: The rest of a partial send.
        self.tail: memoryview | None = None
        #: It stands in the poller's list of those that go on.
        self.queued = False
        #: There is no more input for the connection.
        self.ended = False
        #: Sending failed.
        self.deaf = False

    # -- what the engine asks for

    def flush(self) -> None:
        """Send the outbox with one system call."""
        if self.tail is None:
            conn = self.conn
            out = conn.out
            if out:
                if self.layer is None:  # `encode`, without its call
                    self.core.statistics.packets_sent += len(out) - conn.extra_parts
                    conn.extra_parts = 0
                    data = b"".join(out) if len(out) > 1 else out[0]
                    out.clear()
                else:
                    data = self.encode()
                self.transmit(data)
            if self.state == CLOSING and self.tail is None:
                self._part()

    def again(self) -> None:
        """Go on in the next turn."""
        if not self.queued:
            self.queued = True
            self.poller.enqueue(self)

    def resume(self) -> None:
        """Read again."""
        if self.state == OPEN and not self.ended:
            self.watch(self.watched | READ)

    def close(self) -> None:
        """End in good order; see engine.link.Link."""
        if self.state == OPEN:
            self.state = CLOSING
            self.poller.linger(self)
            self.core.dirty.append(self.conn)

    def abort(self) -> None:
        """Let go now: a reset, which frees what the system holds for a peer that does not read."""
        if self.state != GONE:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except OSError:
                pass  # the peer was faster
            self.dispose()

    # -- what the poller tells

    def readable(self) -> None:
        """Bytes have arrived, or the end."""
        conn = self.conn
        if (conn.hold or self.state) and not self._may_read():
            return
        try:
            data = self.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or self.state or self.layer is not None:
            self._take_in(data)
            return
        size = len(data)
        if size >> BYTES_PER_WORK:
            self.core.work += size >> BYTES_PER_WORK
        conn.receive(data)

    def _may_read(self) -> bool:
        if self.state != OPEN:
            return bool(self.watched & READ)  # to discard it, so that closing doesn't reset
        # Paused. It is only taken out of the set when something really arrives meanwhile; one that
        # goes on in the next turn stays, because the poller does not wait before.
        if not self.queued:
            self.watch(self.watched & ~READ)
        return False

    def _take_in(self, data: bytes) -> None:
        """Anything else than plain input of an open link."""
        if not data:
            self._end()
            return
        self.core.work += len(data) >> BYTES_PER_WORK
        if self.state == OPEN and self.feed(data):
            self._end()

    def signalled(self, events: int) -> None:
        """Anything else than plain readability."""
        if self.tail is not None and events & (WRITE | BROKEN):
            self._writable()
        if events & (READ | BROKEN):
            self.readable()

    def proceed(self) -> None:
        """The turn has come that the connection asked for."""
        self.queued = False
        if not self.conn.closed:
            self.conn.proceed()

    def watch(self, events: int) -> None:
        """Change what the socket is watched for."""
        if events != self.watched:
            self.poller.readiness.watch(self.fd, self.watched, events)
            self.watched = events

    def dispose(self) -> None:
        """Close the socket."""
        if self.state != GONE:
            self.state = GONE
            self.watch(0)
            self.poller.forget(self)
            self.sock.close()
            self.tail = None
            self.said = b""
            self.discard()
            if self.conn.closed:
                self.conn.link = NO_LINK

    # -- output

    def transmit(self, data: bytes) -> None:
        """Send bytes of the outermost side; what the socket doesn't take becomes the tail."""
        if self.tail is not None:
            self.said += data  # goes out behind it
            return
        if self.deaf:
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._turn_deaf()
            return
        conn = self.conn
        conn.progress += sent
        core = self.core
        core.statistics.bytes_sent += sent
        core.work += SEND_WORK + (sent >> BYTES_PER_WORK)
        if sent < len(data):
            # A view: many subscribers may share what it shows.
            self.tail = memoryview(data)[sent:]
            conn.blocked = True
            self.unsent(len(data) - sent)
            self.watch(self.watched | WRITE)

    def _writable(self) -> None:
        tail = self.tail
        assert tail is not None
        try:
            sent = self.sock.send(tail)
        except BlockingIOError:
            return
        except OSError:
            self._turn_deaf()
            return
        conn = self.conn
        conn.progress += sent
        core = self.core
        core.statistics.bytes_sent += sent
        core.work += SEND_WORK + (sent >> BYTES_PER_WORK)
        if sent < len(tail):
            self.tail = tail[sent:]
            # `out` may hold more, which stays counted.
            self.unsent(conn.queued - sent)
            return
        self.tail = None
        if self.said:
            said, self.said = self.said, b""
            self.transmit(said)
        if not self._unsent() and conn.out:
            self.transmit(self.encode())
        if not self._unsent() and not self.deaf:
            self._drained()
            if self.state == PARTING or (self.state == CLOSING and not conn.out):
                self._part()

    def _unsent(self) -> bool:
        return self.tail is not None

    def _drained(self) -> None:
        conn = self.conn
        conn.blocked = False
        self.unsent(0)
        self.watch(self.watched & ~WRITE)
        conn.drained()

    def _turn_deaf(self) -> None:
        """Nothing can be sent any more: let nobody wait for it."""
        self.deaf = True
        self.tail = None
        self.said = b""
        self.discard()
        self._drained()
        if self.state != OPEN:
            self.dispose()

    # -- the end

    def _end(self) -> None:
        """The peer has ended, or was lost."""
        self.ended = True
        if self.state == LINGERING or (self.state != OPEN and self.deaf):
            self.dispose()
            return
        self.watch(self.watched & ~READ)
        if self.state == OPEN:
            self.conn.end_of_input()

    def _part(self) -> None:
        """The outbox is empty: the layers' farewell, then our end."""
        if self.state == CLOSING:
            self.state = PARTING
            if self.layer is not None:
                self.transmit(self.layer.close())
        if self.state != PARTING or self.tail is not None:
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.dispose()
            return
        if self.ended and self.layer is None:
            self.dispose()
            return
        # Where a layer ended, the end of the socket itself may still be on its way.
        self.state = LINGERING
        self.poller.linger(self)
        self.watch(self.watched | READ)
