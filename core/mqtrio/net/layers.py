"""Layers that are stacked upon each other are again a layer."""

from collections.abc import Sequence
from functools import reduce

from mqtrio.hooks.layers import Layer as Layer
from mqtrio.hooks.layers import LayerFactory as LayerFactory
from mqtrio.hooks.peer import PeerFacts


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
    def weight(self) -> int:
        """The sum."""
        return self.inner.weight + self.outer.weight

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
