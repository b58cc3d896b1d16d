"""What may lie between a socket and MQTT: TLS, WebSocket, the PROXY protocol.

A layer is sans-IO and has two sides, an outer one towards the network and an inner one towards
MQTT. It may be the server's or the client's end. Layers stack: the inner side of one is the outer
side of the next. A plugin brings layers by name, each with a `LayerProvider`.
"""

from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field

from mqtrio.hooks.answers import MaybeAwaitable
from mqtrio.hooks.peer import PeerFacts


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
        """What a handshake costs of a turn's budget, in which a plain packet costs 16.

        It is charged once, when the peer's first bytes have come.
        """
        ...

    @property
    def weight(self) -> int:
        """Bytes of memory that a connection's layer takes while nothing happens, about.

        They count in `limits.memory`.
        """
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
        """What is known of the peer, with what this layer's handshake found out.

        Called once, when the handshake is done. May raise ProtocolError for a peer that must not
        say what it has said.
        """
        ...


#: Makes a layer for a new connection.
LayerFactory = Callable[[], Layer]


@define(frozen=True, kw_only=True)
class LayerProvider:
    """One layer that a plugin brings: its options, and how its ends are made of them.

    `settings` is an attrs class with `mqtrio.setting` fields: the options that stand in a listener
    under the layer's name. `server` gets an instance of it, reads what the options name (it may be
    `async`), and returns what makes the layer of each new connection. It is called when the broker
    starts and again at each reload, for each listener; connections keep the layers they have. What
    it raises (`mqtrio.ConfigurationError` for what a person can mend) keeps the broker from
    starting, and a reload from changing anything.

    `client` makes the other end, for connections that this side opens: it gets an instance of
    `client_settings` and the name of the host that is connected to.
    """

    settings: type
    server: Callable[[Any], MaybeAwaitable[LayerFactory]] = field(repr=False)
    client_settings: type | None = None
    client: Callable[[Any, str], MaybeAwaitable[LayerFactory]] | None = field(
        default=None, repr=False
    )
