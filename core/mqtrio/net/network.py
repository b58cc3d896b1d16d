"""All of a broker's network: the poller, the listeners and the streams, with a graceful end."""

import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import trio

from mqtrio.engine.link import LinkCore, PeerFacts
from mqtrio.net.addresses import BoundAddress, ListenerAddress
from mqtrio.net.introduction import introduced
from mqtrio.net.layers import LayerFactory, build
from mqtrio.net.listeners import Listener
from mqtrio.net.opening import NO_SOCKETS, GivenSockets, open_listeners
from mqtrio.net.poller import Poller
from mqtrio.net.readiness import AVAILABLE
from mqtrio.net.streams import StreamLink

logger = logging.getLogger("mqtrio.net")


class Network:
    """Made by `open_network`."""

    _nursery: trio.Nursery

    def __init__(self, core: LinkCore, given: GivenSockets = NO_SOCKETS) -> None:
        self._core = core
        self._given = given
        #: None where the system has nothing that it could wait on; see readiness.AVAILABLE.
        self.poller = Poller(core, self._released) if AVAILABLE else None
        #: Listener URL -> connections open at one time, where that is bounded.
        self.maximum: Mapping[str, int] = {}
        self._open: Counter[str] = Counter()
        self._listeners: list[Listener] = []
        self._streams: set[StreamLink] = set()
        # Of connections of which a proxy has still to say whose they are.
        self._introductions: set[trio.CancelScope] = set()
        self._empty: trio.Event | None = None
        self._kicked = trio.Event()

    def start(self, nursery: trio.Nursery) -> None:
        """Start the tasks that serve connections."""
        self._nursery = nursery
        if self.poller is not None:
            self._core.kick = self.poller.kick
            nursery.start_soon(self.poller.run)
            nursery.start_soon(self.poller.sweep)
        else:
            self._core.kick = self._kick
            nursery.start_soon(self._flush)

    def _kick(self) -> None:
        self._kicked.set()

    async def _flush(self) -> None:
        """Stand in for the poller's turns."""
        while True:
            await self._kicked.wait()
            self._kicked = trio.Event()
            self._core.tick()
            self._core.flush()

    @property
    def listeners(self) -> tuple[BoundAddress, ...]:
        """The addresses that are bound."""
        return tuple(listener.bound for listener in self._listeners)

    @property
    def connections(self) -> int:
        """Connections that are open, those that linger included."""
        served = len(self.poller.links) if self.poller is not None else 0
        return len(self._streams) + served + len(self._introductions)

    async def bind(self, address: ListenerAddress) -> None:
        """Open a listener's sockets. Clients can connect, but are not served before `accept`."""
        self._listeners += await self.open(address)

    async def open(self, address: ListenerAddress) -> list[Listener]:
        """Open sockets that are for `exchange`, or for their owner to close."""
        return await open_listeners(address, self._given)

    def accept(self) -> None:
        """Begin to serve who connects."""
        self._start(self._listeners)

    def exchange(
        self, addresses: Mapping[str, ListenerAddress], opened: Iterable[Listener]
    ) -> None:
        """Listen at these URLs only: serve what was opened, close all others.

        Connections stay, with the layers that they have; new ones get those of the new addresses.
        """
        stay: list[Listener] = []
        for listener in self._listeners:
            address = addresses.get(listener.address.url)
            if address is None:
                listener.close()
            else:
                listener.address = address
                stay.append(listener)
        came = list(opened)
        self._listeners = stay + came
        self._start(came)

    def adjust(self, address: ListenerAddress) -> ListenerAddress | None:
        """Have an open listener's sockets be as its options say now; returns what they were.

        None where it isn't open. Raises OSError, or ConfigurationError for what can't change.
        """
        before = None
        for listener in self._listeners:
            if listener.address.url == address.url:
                before = listener.adjust(address)
        return before

    def reconfigure(self, maximum: Mapping[str, int]) -> None:
        """Go by the core's new settings, and by `maximum` (see there)."""
        self.maximum = maximum
        if self.poller is not None:
            self.poller.budget = self._core.settings.limits.turn_budget

    def _start(self, listeners: Iterable[Listener]) -> None:
        for listener in listeners:
            self._nursery.start_soon(listener.run, self._core, self._adopt, self._full)

    def _full(self, address: ListenerAddress) -> str:
        """The limit that keeps a listener from accepting one more, "" for none."""
        if self.connections >= self._core.settings.limits.connections:
            return "limits.connections"
        maximum = self.maximum.get(address.url)
        if maximum is not None and self._open[address.url] >= maximum:
            return "the listener's max_connections"
        return ""

    def _adopt(self, sock: socket.socket, peer: PeerFacts, address: ListenerAddress) -> None:
        if address.proxies is None:
            self._serve(sock, peer, address)
            return
        scope = trio.CancelScope()
        self._introductions.add(scope)
        self._open[peer.listener] += 1
        self._nursery.start_soon(self._serve_introduced, sock, peer, address, scope)

    async def _serve_introduced(
        self,
        sock: socket.socket,
        proxy: PeerFacts,
        address: ListenerAddress,
        scope: trio.CancelScope,
    ) -> None:
        """Serve a connection as soon as the proxy has said whose it is.

        The engine learns of it only then, because plugins judge connections by their addresses.
        """
        core = self._core
        client: PeerFacts | None = None
        try:
            with scope:
                client = await introduced(sock, proxy, core.settings.limits.connect_timeout)
        finally:
            if client is None:
                sock.close()
            self._introductions.discard(scope)
            self._released(proxy)
        if client is None:
            return
        core.tick()
        try:
            self._serve(sock, client, address)
        except Exception:
            logger.exception("a connection of %s could not be served", client)
        core.flush()

    def _serve(self, sock: socket.socket, peer: PeerFacts, address: ListenerAddress) -> None:
        if self.poller is not None:
            if self.poller.adopt(sock, peer, build(address.layers)) is not None:
                self._open[peer.listener] += 1  # `_released` may have been before
        else:
            self._nursery.start_soon(self._serve_socket, sock, peer, address)

    async def _serve_socket(
        self, sock: socket.socket, peer: PeerFacts, address: ListenerAddress
    ) -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        try:
            await self.serve_stream(stream, peer, address.layers)
        except Exception:
            logger.exception("a connection of %s could not be served", peer)

    async def serve_stream(
        self, stream: trio.abc.Stream, peer: PeerFacts, layers: Iterable[LayerFactory] = ()
    ) -> None:
        """Serve one client over a stream until it is gone; the stream is closed then.

        Cancelling ends the connection at once.
        """
        core = self._core
        core.tick()
        try:
            link = StreamLink(core, peer, build(tuple(layers)), stream)
            connection = core.accept(link)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        if connection is None:
            await trio.aclose_forcefully(stream)
            return
        link.conn = connection
        self._streams.add(link)
        self._open[peer.listener] += 1
        try:
            await link.run()
        finally:
            self._streams.discard(link)
            self._released(peer)

    # -- the end

    def stop_accepting(self) -> None:
        """Close the listening sockets; connections go on."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for scope in self._introductions:
            scope.cancel()

    async def stop(self, goodbye: Callable[[], object], grace: float) -> None:
        """End in good order: no new connections, `goodbye`, outboxes sent, peers' ends awaited.

        `goodbye` is the engine's: it closes every connection. What is left after `grace` seconds
        is dropped.
        """
        self.stop_accepting()
        goodbye()
        self._core.flush()
        with trio.move_on_after(grace):
            while self.connections:
                self._empty = trio.Event()
                await self._empty.wait()
        self.drop()

    def _released(self, peer: PeerFacts) -> None:
        self._open[peer.listener] -= 1
        if not self._open[peer.listener]:
            del self._open[peer.listener]  # a program may have a name for each of its streams
        if self._empty is not None and not self.connections:
            self._empty.set()

    def drop(self) -> None:
        """Drop everything at once; connections that the engine has not closed are lost."""
        self.stop_accepting()
        if self.poller is not None:
            self.poller.drop()
        for link in self._streams:
            link.abort()

    def close(self) -> None:
        """Give the poller's descriptors back; its tasks must have ended."""
        if self.poller is not None:
            self.poller.close()


@asynccontextmanager
async def open_network(
    core: LinkCore,
    addresses: Iterable[ListenerAddress] = (),
    given: GivenSockets = NO_SOCKETS,
) -> AsyncIterator[Network]:
    """A network with its sockets bound, for the length of the block; raises OSError.

    Call `accept` when the engine is ready for clients, and `stop` to end gracefully. Leaving the
    block, in whatever way, drops what is still open.
    """
    network = Network(core, given)
    try:
        async with trio.open_nursery() as nursery:
            network.start(nursery)
            try:
                for address in addresses:
                    await network.bind(address)
                yield network
            finally:
                network.drop()
                nursery.cancel_scope.cancel()
    finally:
        network.close()
