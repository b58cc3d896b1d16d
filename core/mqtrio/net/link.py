"""What every link does, whatever carries its bytes: the way through the layers."""

from time import perf_counter
from typing import Final, Never

from mqtrio.engine.link import LinkConnection, LinkCore, PeerFacts
from mqtrio.errors import ProtocolError
from mqtrio.net.layers import Layer
from mqtrio.reasons import ReasonCode

# The life of a link.
OPEN: Final = 0
#: The engine has closed: what is in the outbox is still to be sent.
CLOSING: Final = 1
#: The layers' farewell is on its way, then the end of the sending side.
PARTING: Final = 2
#: We have ended; waiting for the peer to end.
LINGERING: Final = 3
GONE: Final = 4

#: Seconds that the outbox of a closed connection may take, and then again the peer's end.
LINGER: Final = 2.0

#: What a send weighs in a turn's work, besides its bytes.
SEND_WORK: Final = 8

#: Bytes that weigh one unit of a turn's work, as a power of two: with it 256 KiB weigh as much
#: as 32 packets, which is what copying them costs.
BYTES_PER_WORK: Final = 9

#: Units of work in a second, for what is charged by the clock.
WORK_PER_SECOND: Final = 10_000_000

#: Most bytes of answers by layers (to pings, say) that may wait behind an unsent tail.
UNSENT_ANSWERS: Final = 64 * 1024


def reraise(error: Exception) -> Never:
    """Raise: lets `LinkCore.guard` judge an error that was caught here."""
    raise error


class BaseLink:
    """A connection, its layers and where it is in its life."""

    __slots__ = ("agreed", "conn", "core", "handshake_work", "layer", "peer", "said", "state")

    #: Set as soon as the engine has accepted the link.
    conn: LinkConnection

    def __init__(self, core: LinkCore, peer: PeerFacts, layer: Layer | None) -> None:
        self.core = core
        self.peer = peer
        self.layer = layer
        self.state = OPEN
        #: Whether the handshakes of all layers are done.
        self.agreed = layer is None
        #: What they cost, until it is charged.
        self.handshake_work = 0 if layer is None else layer.handshake_work
        #: What layers said that has not been handed out yet.
        self.said = b""

    @property
    def weight(self) -> int:
        """Bytes of memory that its layers take."""
        return 0 if self.layer is None else self.layer.weight

    def transmit(self, data: bytes) -> None:
        """Send bytes of the outermost side, after all that was given before."""
        raise NotImplementedError

    def begin(self) -> None:
        """Let the layers speak first where they do (a client's handshake)."""
        if self.layer is not None:
            said = self.layer.send(b"")
            if said:
                self.transmit(said)

    def feed(self, data: bytes) -> bool:
        """Give the connection what arrived, through the layers; True if their stream has ended."""
        conn = self.conn
        layer = self.layer
        if layer is None:
            conn.receive(data)
            return False
        if not self.agreed and self.handshake_work:
            # Now, not in the end: a server works when the first bytes come, whoever sends them.
            self.core.work += self.handshake_work
            self.handshake_work = 0
        while True:
            begin = perf_counter()
            inside = layer.receive(data)
            # By the clock: bytes don't tell how many frames, or how much when unpacked, they are.
            # That of a handshake was charged. Charged last, so that no clock cuts short what the
            # connection does with them.
            took = int((perf_counter() - begin) * WORK_PER_SECOND) if self.agreed else 0
            said = layer.send(b"")
            if said:
                self.transmit(said)
                if len(self.said) > UNSENT_ANSWERS:
                    raise ProtocolError(ReasonCode.QUOTA_EXCEEDED, "the peer takes no answers")
            if not self.agreed and layer.handshake_done:
                self.agreed = True
                self.peer = layer.describe(self.peer)
                conn.introduce(self.peer)
            if not inside:
                self.core.work += took
                return layer.eof
            conn.receive(inside)
            self.core.work += took
            if conn.closed:
                return False
            data = b""

    def unsent(self, size: int) -> None:
        """Note that so many bytes were handed out which the peer has not taken."""
        conn = self.conn
        if not conn.closed:
            self.core.memory += size - conn.queued
            conn.queued = size

    def encode(self) -> bytes:
        """Take all out of the outbox, which is not empty, as bytes for the outermost side."""
        conn = self.conn
        out = conn.out
        self.core.statistics.packets_sent += len(out) - conn.extra_parts
        conn.extra_parts = 0
        data = b"".join(out) if len(out) > 1 else out[0]
        out.clear()
        return data if self.layer is None else self.layer.send(data)

    def discard(self) -> None:
        """Empty the outbox of what will never be sent."""
        self.conn.out.clear()
        self.conn.extra_parts = 0

    def __repr__(self) -> str:
        states = ("open", "closing", "parting", "lingering", "gone")
        return f"<{type(self).__name__} {self.peer} {states[self.state]}>"
