"""A whole broker in memory, for the length of a test, and the peers that talk to it."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias, TypeVar

import trio
from trio.testing import memory_stream_pair

from mqtrio.broker import Broker
from mqtrio.opening import open_broker
from mqtrio.settings import Settings
from mqtrio.store.protocol import Store
from mqtrio.testing.client import Client
from mqtrio.testing.peer import Peer
from mqtrio.wire.packets import MQTT_5, ConnAck

E = TypeVar("E", bound=Exception)

#: What is put around a stream: a TornStream, for example.
Wrap: TypeAlias = Callable[[trio.abc.HalfCloseableStream], trio.abc.HalfCloseableStream]

#: What plugins and the log call a stream that a program brings.
STREAM: Final = "stream"


class Harness:
    """A broker without a socket; made by `open_harness`."""

    def __init__(self, broker: Broker, nursery: trio.Nursery) -> None:
        self.broker = broker
        #: The peers made so far.
        self.peers: list[Peer] = []
        #: Internal errors of the broker; they are raised when the block ends. See `crashed_with`.
        self.crashes: list[Exception] = []
        self._nursery = nursery

    def peer(
        self,
        client_id: str = "",
        *,
        version: int = MQTT_5,
        address: str = "192.0.2.7",
        listener: str = STREAM,
    ) -> Peer:
        """A new connection over a pair of streams in memory, without a CONNECT yet.

        `listener`: the URL of a listener in the settings, whose options hold for it then.
        """
        ours, theirs = memory_stream_pair()
        return self.adopt(
            ours, theirs, client_id, version=version, address=address, listener=listener
        )

    def adopt(
        self,
        ours: trio.abc.Stream,
        theirs: trio.abc.Stream,
        client_id: str = "",
        *,
        version: int = MQTT_5,
        address: str = "192.0.2.7",
        listener: str = STREAM,
    ) -> Peer:
        """A new connection over any pair of streams: a peer at one end, the broker at the other."""
        self.serve(theirs, address=address, listener=listener)
        peer = Peer(ours, version=version, client_id=client_id)
        self.peers.append(peer)
        return peer

    def serve(
        self, stream: trio.abc.Stream, *, address: str = "192.0.2.7", listener: str = STREAM
    ) -> None:
        """Let the broker serve a stream, in a task."""

        async def serve() -> None:
            await self.broker.serve_stream(stream, address=address, listener=listener)

        self._nursery.start_soon(serve)

    async def client(
        self,
        client_id: str = "",
        *,
        version: int = MQTT_5,
        address: str = "192.0.2.7",
        wrap: Wrap | None = None,
        **fields: Any,
    ) -> Client:
        """A new Client, let in; `fields` are those of CONNECT, `answer` that of a challenge."""
        client = self.new_client(client_id, version=version, address=address, wrap=wrap)
        await client.connect(**fields)
        return client

    async def refused(
        self, client_id: str = "", *, version: int = MQTT_5, **fields: Any
    ) -> ConnAck:
        """A client with these fields of CONNECT must be refused; returns its CONNACK.

        The broker must close the connection after it [MQTT-3.1.4-2].
        """
        client = self.new_client(client_id, version=version)
        connack = await client.try_connect(**fields)
        if not connack.reason_code:
            raise AssertionError(f"{client!r} was let in")
        await client.expect_closed()
        return connack

    def new_client(
        self,
        client_id: str = "",
        *,
        version: int = MQTT_5,
        address: str = "192.0.2.7",
        listener: str = STREAM,
        wrap: Wrap | None = None,
    ) -> Client:
        """A new Client without a CONNECT yet: `connect` or `try_connect` says it.

        `listener`: as for `peer`.
        `wrap` is put around its stream: `functools.partial(TornStream, split=1)`.
        """

        def again(old: Client) -> Client:
            return self.new_client(
                old.client_id, version=version, address=address, listener=listener, wrap=wrap
            )

        ours, theirs = memory_stream_pair()
        self.serve(theirs, address=address, listener=listener)
        stream = ours if wrap is None else wrap(ours)
        client = Client(stream, version=version, client_id=client_id, again=again)
        self.peers.append(client)
        self._nursery.start_soon(client.run)
        return client

    async def connect(
        self, client_id: str, *, version: int = MQTT_5, listener: str = STREAM, **fields: Any
    ) -> Peer:
        """A new connection, let in; `fields` are those of CONNECT."""
        peer = self.peer(client_id, version=version, listener=listener)
        await peer.connect(**fields)
        return peer

    def crashed_with(self, kind: type[E]) -> E:
        """The one internal error that there was, which must be of this type; it is forgiven."""
        found = list(self.crashes)
        if len(found) != 1 or not isinstance(found[0], kind):
            raise AssertionError(f"expected one {kind.__name__}, there are {found!r}")
        self.crashes.clear()
        return found[0]

    async def _close(self) -> None:
        for peer in self.peers:
            await trio.aclose_forcefully(peer.stream)


@asynccontextmanager
async def open_harness(
    *,
    plugins: Iterable[object] = (),
    store: Store | None = None,
    settings: Settings | None = None,
    **options: Any,
) -> AsyncIterator[Harness]:
    """A broker for a test: no listener, everything in memory; the arguments are `open_broker`'s.

    Leaving the block breaks the peers' connections and stops the broker gracefully. Errors that
    the broker took for its own are raised then, as an ExceptionGroup; an exception of the block
    itself comes out as it is, with those as notes.
    """
    harness: Harness | None = None
    try:
        async with (
            trio.open_nursery() as nursery,
            open_broker([], plugins=plugins, store=store, settings=settings, **options) as broker,
        ):
            harness = Harness(broker, nursery)
            broker._core.on_crash = harness.crashes.append
            try:
                yield harness
            finally:
                await harness._close()
    except BaseExceptionGroup as group:
        only = _only(group)
        if only is None:
            raise
        for crash in harness.crashes if harness is not None else ():
            only.add_note(f"and the broker has crashed: {crash!r}")
        raise only from only.__cause__
    if harness.crashes:
        raise ExceptionGroup("the broker has crashed", harness.crashes)


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """What nurseries have wrapped, if it is one exception."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        if len(error.exceptions) != 1:
            return None
        error = error.exceptions[0]
    return error
