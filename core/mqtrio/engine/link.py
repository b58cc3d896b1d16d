"""What the engine and a network link know of each other, and nothing else of either.

A link (mqtrio.net) brings a connection bytes and takes its bytes away; the connection never sees a
socket. Everything here is synchronous and runs in Trio's thread.

Rules of the interface, for both sides:

- The link calls `receive`, `end_of_input`, `proceed` and `drained` through `LinkCore.guard`, or
  hands it what they raise; an error of one connection never reaches another one.
- While `hold` is not 0 the link reads nothing. Who clears the last bit calls `Link.resume`.
- Who puts the first frame into an empty `out` appends the connection to `LinkCore.dirty`.
  Whoever acts outside of a link's turn (a timer, a hook's task) calls `LinkCore.flush` afterwards.
- `work` counts up to `settings.limits.turn_budget`; a connection that finds it there stops, calls
  `Link.again` and goes on in `proceed`. The poller lets the count begin at different heights: that
  is how connections get equal shares of a turn.
- After `Link.close` nothing is written any more. What is in `out` at that moment is still sent.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from mqtrio.hooks.peer import PeerFacts as PeerFacts

#: The bit of `hold` that says: a hook thinks.
HOOK_HOLD: Final = 1


class Link(Protocol):
    """The network's end of a connection, as the connection sees it."""

    @property
    def peer(self) -> PeerFacts:
        """Who is at the other end. Layers add to it when their handshake is done."""
        ...

    @property
    def agreed(self) -> bool:
        """Whether the handshakes of all layers are done."""
        ...

    @property
    def weight(self) -> int:
        """Bytes of memory that its layers take while nothing happens."""
        ...

    def flush(self) -> None:
        """Send what stands in `out`. Called by `LinkCore.flush`, once a turn."""
        ...

    def again(self) -> None:
        """Call `proceed` in this connection's next turn. Any number of calls make one."""
        ...

    def resume(self) -> None:
        """Read again: the last bit of `hold` is gone."""
        ...

    def close(self) -> None:
        """Send what is in `out`, say goodbye, and see that it arrives; returns at once.

        The end of the sending side follows the last byte; then input is discarded until the peer
        ends too, or 2 seconds have passed, so that no reset overtakes the last packet.
        """
        ...

    def abort(self) -> None:
        """Let go now; what has not been sent is lost."""
        ...


class NoLink:
    """Stands in for a link that is gone, so that a connection and its link don't keep each other.

    Connections come and go by the thousand; whoever waits for the garbage collector to find them
    makes its rounds longer for all others.
    """

    __slots__ = ()

    @property
    def peer(self) -> PeerFacts:
        """Nobody."""
        return PeerFacts(address="", listener="")

    @property
    def agreed(self) -> bool:
        """There is nothing to wait for."""
        return True

    @property
    def weight(self) -> int:
        """Nothing is left."""
        return 0

    def flush(self) -> None:
        """Nothing is sent."""

    def again(self) -> None:
        """There is no next turn."""

    def resume(self) -> None:
        """Nothing is read."""

    def close(self) -> None:
        """It is closed."""

    def abort(self) -> None:
        """It is closed."""


NO_LINK: Final = NoLink()


class LinkConnection(Protocol):
    """A connection, as its link sees it."""

    #: The link; when that is gone, and the connection closed, the link puts NO_LINK here.
    link: Link
    #: Frames that have not been handed to the link.
    out: list[bytes]
    #: How many more parts than packets `out` has; the link sets it to 0 when it empties `out`.
    extra_parts: int
    #: Why it may not go on with its input, as bits; 0: it may.
    hold: int
    #: Set by the link: the peer does not take what has been sent; `drained` follows.
    blocked: bool
    #: Whether the client has been let in.
    announced: bool
    #: Unsent bytes while `blocked`: the connection adds what it puts into `out`, the link takes
    #: off what it sends and begins with the rest of what it could not send. Whoever changes it
    #: changes `LinkCore.memory` by as much. The link leaves both alone once `closed`.
    queued: int
    #: Bytes sent; only grows. Counted by the link.
    progress: int
    #: The connection is over for the engine; it takes no input and writes no output.
    closed: bool

    def receive(self, data: bytes) -> None:
        """Bytes of the peer, in order; kept if `hold` is set. Raises ProtocolError."""
        ...

    def introduce(self, peer: PeerFacts) -> None:
        """The handshakes of all layers are done, before any input: who the peer is."""
        ...

    def end_of_input(self) -> None:
        """The peer sends no more, or can't be heard; what it sent before comes first."""
        ...

    def proceed(self) -> None:
        """The turn asked for by `Link.again` has come."""
        ...

    def drained(self) -> None:
        """Everything has been sent; `blocked` is False and `queued` 0 again."""
        ...

    def lost(self) -> None:
        """The link is gone (its task was cancelled): end now, cancel what a hook still thinks."""
        ...


class LinkStatistics(Protocol):
    """The counters that links keep; received bytes are counted by the connection."""

    bytes_sent: int
    #: MQTT packets taken out of `out` to be sent.
    packets_sent: int


class LinkSettings(Protocol):
    """The settings that the network reads (settings.Settings)."""

    @property
    def limits(self) -> "LinkLimits":
        """Bounds."""
        ...


class LinkLimits(Protocol):
    """The limits that the network reads (settings.Limits)."""

    @property
    def turn_budget(self) -> int:
        """Work done before other tasks get their turn."""
        ...

    @property
    def accept_rate(self) -> int:
        """Connections accepted a second on one listener."""
        ...

    @property
    def connect_timeout(self) -> float:
        """Seconds until a peer must have said who it is."""
        ...

    @property
    def connections(self) -> int:
        """Connections open at one time."""
        ...


class Dirty(Protocol):
    """Connections whose `out` is to be flushed."""

    # Any, here and in LinkCore: the real core takes its own Connection, not every LinkConnection.
    def append(self, connection: Any, /) -> None:
        """Have this connection's link flushed by the next `LinkCore.flush`."""
        ...


class LinkCore(Protocol):
    """The engine's hub, as links, the poller and listeners see it."""

    #: Work done in this turn.
    work: int
    #: Bytes held for all clients together; contains the `queued` of every open connection.
    memory: int
    #: Set by the network: has `flush` called soon, in a turn of its own.
    kick: Callable[[], None]

    @property
    def dirty(self) -> Dirty:
        """Connections whose `out` is to be flushed."""
        ...

    @property
    def settings(self) -> LinkSettings:
        """The broker's settings."""
        ...

    @property
    def statistics(self) -> LinkStatistics:
        """Counters."""
        ...

    def tick(self) -> None:
        """A turn begins: look at the clock, count work from 0."""
        ...

    def turn_took(self, seconds: float) -> None:
        """A turn is over, in which everybody else has waited."""
        ...

    def flush(self) -> None:
        """Call `Link.flush` for every dirty connection, also for those that get dirty meanwhile."""
        ...

    def guard(self, connection: Any, function: Callable[..., object], *args: object) -> None:
        """Call the function; what it raises ends this connection and goes no further."""
        ...

    def accept(self, link: Link) -> Any:
        """Ask whether this peer may connect: its LinkConnection, or None to refuse it."""
        ...
