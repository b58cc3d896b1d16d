"""What may lie between a socket and MQTT: TLS, WebSocket, the PROXY protocol.

A layer is sans-IO and has two sides, an outer one towards the network and an inner one towards
MQTT. It may be the server's or the client's end. Layers stack: the inner side of one is the outer
side of the next.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Protocol

from mqtrio.engine.link import PeerFacts


class Layer(Protocol):
    """One layer of one connection.

    It raises ProtocolError and nothing else, and never before all that preceded the fault in the
    input has been returned: it remembers the error, and raises it at the next `receive`.
    """

    @property
    def eof(self) -> bool:
        """Whether the peer has ended this layer's stream, and all before the end was returned."""
        ...

    @property
    def handshake_done(self) -> bool:
        """Whether both sides have agreed; before that nothing comes out at the inner side."""
        ...

    @property
    def handshake_work(self) -> int:
        """What a handshake costs of a turn's budget, in which a plain packet costs 16."""
        ...

    @property
    def bound(self) -> int:
        """The most bytes this layer ever holds, both directions together.

        A peer that would make it hold more gets a ProtocolError.
        """
        ...

    def receive(self, data: bytes) -> bytes:
        """Bytes from the outer side; returns bytes for the inner one.

        May return a part only: it is called again with b"" until it returns b"".
        """
        ...

    def send(self, data: bytes) -> bytes:
        """Bytes from the inner side; returns bytes for the outer one.

        With b"" it returns what the layer has to say by itself (a handshake, an answer to a ping).
        What is sent before the handshake is done is held, and follows it.
        """
        ...

    def close(self) -> bytes:
        """The layer's farewell, for the outer side.

        Nothing is sent afterwards: `send(b"")` and another `close` return b"".
        """
        ...

    def describe(self, peer: PeerFacts) -> PeerFacts:
        """What is known of the peer, with what this layer's handshake found out."""
        ...


#: Makes a layer for a new connection.
LayerFactory = Callable[[], Layer]


class Over:
    """Two layers, one over the other, which are again a layer."""

    __slots__ = ("inner", "outer")

    def __init__(self, outer: Layer, inner: Layer) -> None:
        self.outer = outer
        self.inner = inner

    @property
    def eof(self) -> bool:
        """Whether either stream has ended."""
        return self.inner.eof or self.outer.eof

    @property
    def handshake_done(self) -> bool:
        """Whether both have agreed with the peer."""
        return self.inner.handshake_done and self.outer.handshake_done

    @property
    def handshake_work(self) -> int:
        """The sum."""
        return self.inner.handshake_work + self.outer.handshake_work

    @property
    def bound(self) -> int:
        """The sum."""
        return self.inner.bound + self.outer.bound

    def receive(self, data: bytes) -> bytes:
        """Pass bytes inwards, piece by piece, so that neither layer has to keep much."""
        between = self.outer.receive(data) if data else b""
        while True:
            inside = self.inner.receive(between)
            if inside:
                return inside
            between = self.outer.receive(b"")
            if not between:
                return b""

    def send(self, data: bytes) -> bytes:
        """Pass bytes outwards, and what either layer has to say."""
        return self.outer.send(self.inner.send(data))

    def close(self) -> bytes:
        """Both farewells, the inner one inside of the outer layer."""
        return self.outer.send(self.inner.close()) + self.outer.close()

    def describe(self, peer: PeerFacts) -> PeerFacts:
        """What both know."""
        return self.inner.describe(self.outer.describe(peer))


def build(factories: Sequence[LayerFactory]) -> Layer | None:
    """The layers of a new connection, the outermost first; None where there is none."""
    layers = [make() for make in factories]
    return reduce(Over, layers) if layers else None
