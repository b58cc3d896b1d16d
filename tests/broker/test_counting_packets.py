"""`packets_sent` is what clients have received: packets of all types, over both kinds of links."""

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from mqtrio import Broker, ClientDisconnectedEvent, hookimpl, open_broker
from mqtrio.testing import FaultyStore, Peer, open_harness
from mqtrio.wire.packets import (
    Disconnect,
    Packet,
    PingReq,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
)


class Counting(Peer):
    """A peer that counts what the broker has sent it."""

    count = 0

    def _keep(self, packets: list[Packet]) -> None:
        self.count += len(packets)
        super()._keep(packets)


class Clients:
    """A broker and its clients, whatever is between them."""

    def __init__(self, broker: Broker, stream: Callable[[], Awaitable[trio.abc.Stream]]) -> None:
        self.broker = broker
        self.stream = stream
        self.peers: list[Counting] = []

    async def connect(self, client_id: str, version: int = 5, **fields: Any) -> Counting:
        peer = Counting(await self.stream(), version=version, client_id=client_id)
        self.peers.append(peer)
        await peer.connect(**fields)
        return peer

    @property
    def received(self) -> int:
        return sum(peer.count for peer in self.peers)

    async def agree(self) -> None:
        """Each client asks for a last packet, so it has got all before; then both counts agree."""
        for peer in self.peers:
            if not peer.ended:
                await peer.ping()
        assert self.broker.statistics().packets_sent == self.received


@asynccontextmanager
async def clients(
    link: str, store: FaultyStore | None = None, plugins: Sequence[object] = ()
) -> AsyncIterator[Clients]:
    """Clients of a broker over sockets (served by the poller) or streams in memory."""
    if link == "socket":
        async with open_broker(["mqtt://127.0.0.1:0"], store=store, plugins=plugins) as broker:
            (bound,) = broker.listeners

            async def connected() -> trio.abc.Stream:
                return await trio.open_tcp_stream("127.0.0.1", bound.port)

            async with closing(Clients(broker, connected)) as made:
                yield made
        return
    async with open_harness(store=store, plugins=plugins) as harness:

        async def in_memory() -> trio.abc.Stream:
            ours, theirs = memory_stream_pair()
            harness.serve(theirs)
            return ours

        async with closing(Clients(harness.broker, in_memory)) as made:
            yield made


@asynccontextmanager
async def closing(made: Clients) -> AsyncIterator[Clients]:
    try:
        yield made
    finally:
        for peer in made.peers:
            await trio.aclose_forcefully(peer.stream)


class Gone:
    """Sees a client go."""

    api = 1

    def __init__(self) -> None:
        self.event = trio.Event()

    @hookimpl
    def client_disconnected(self, event: ClientDisconnectedEvent) -> None:
        self.event.set()


both = pytest.mark.parametrize("link", ["socket", "stream"])


@both
@pytest.mark.parametrize("version", [3, 4, 5])
async def test_packets_of_all_types(link: str, version: int) -> None:
    async with clients(link) as made:
        more: dict[str, Any] = {"topic_alias_maximum": 2} if version == 5 else {}
        ann = await made.connect("ann", version, **more)
        bob = await made.connect("bob", version)
        await made.broker.publish("kept/a", b"x", qos=1, retain=True)
        for qos in (0, 1, 2):
            await ann.subscribe(f"to/{qos}", qos)
            await bob.subscribe(f"to/{qos}", qos)
        async with made.broker.subscribe("to/+", qos=2) as local:  # it gets no packets
            await made.agree()
            for qos in (0, 1, 2):
                for retain in (False, True):
                    await bob.publish(f"to/{qos}", b"x" * 10, qos, retain=retain)
                    for peer in (ann, bob):
                        await peer.message(qos=qos)
                    assert (await local.receive()).topic == f"to/{qos}"
                    await made.agree()
        await ann.subscribe("kept/#", 1)
        await ann.message(retain=True)
        await ann.unsubscribe("kept/#")
        await made.broker.publish("to/1", b"", qos=1)
        for peer in (ann, bob):
            await peer.message(b"")
        # What is answered though it was never asked: PUBCOMP and PUBREL.
        await ann.send(PubRel(4000), PubRec(4001))
        await ann.expect(PubComp)
        await ann.expect(PubRel)
        await made.agree()
        assert made.broker.disconnect("bob")
        if version == 5:
            await bob.expect(Disconnect)
        await bob.expect_closed()
        await made.agree()


@both
async def test_many_in_one_write(link: str) -> None:
    """Runs of QoS 0 messages, windows of QoS 1 and 2, and their acknowledgements."""
    async with clients(link) as made:
        ann = await made.connect("ann", 4)
        bob = await made.connect("bob", 5, receive_maximum=20)
        eve = await made.connect("eve", 4)
        for peer in (ann, bob):
            await peer.subscribe("a", 2)
        for qos in (0, 1, 2):
            packets = [
                Publish("a", b"x" * (number % 3), qos, False, False, number * (qos > 0), None)
                for number in range(1, 101)
            ]
            await eve.send(*packets)
            for _ in packets:
                for peer in (ann, bob):
                    await peer.message(qos=qos)
            if qos == 2:
                for packet in packets:
                    await eve.answer(PubRec, packet_id=packet.packet_id)
                await eve.send(*(PubRel(packet.packet_id) for packet in packets))
                for packet in packets:
                    await eve.answer(PubComp, packet_id=packet.packet_id)
            elif qos == 1:
                for packet in packets:
                    await eve.expect(PubAck, packet_id=packet.packet_id)
            await made.agree()


@both
async def test_acknowledgements_that_waited_for_one_commit(link: str) -> None:
    async with clients(link, FaultyStore()) as made:
        ann = await made.connect("ann", session_expiry_interval=1000)
        await ann.subscribe("a", 1)
        eve = await made.connect("eve")
        await eve.send(*(Publish("a", b"x", 1, False, False, n, None) for n in range(1, 101)))
        for number in range(1, 101):
            await eve.expect(PubAck, packet_id=number)
        for _ in range(100):
            await ann.message()
        await made.agree()


async def test_what_a_client_that_reads_nothing_was_not_sent() -> None:
    """It waits in its outbox, and is thrown away with it."""
    gone = Gone()
    async with clients("socket", plugins=[gone]) as made:
        ann = await made.connect("ann", 4)
        await ann.subscribe("a", 1)
        await ann.subscribe("b", 0)
        bob = await made.connect("bob", 4)
        statistics = made.broker.statistics
        before = statistics().packets_sent
        for _ in range(60):
            await made.broker.publish("a", b"x" * 200_000, qos=1)
        for _ in range(100):
            await made.broker.publish("b", b"x")
        assert 0 < statistics().packets_sent - before < 60
        assert isinstance(ann.stream, trio.SocketStream)
        linger = struct.pack("ii", 1, 0)  # closing resets
        ann.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
        await ann.stream.aclose()
        await gone.event.wait()
        await bob.ping()
        sent = statistics().packets_sent - before
        assert 0 < sent < 60
        await bob.ping()
        assert statistics().packets_sent - before == sent + 1


@both
async def test_connections_that_never_say_connect(link: str) -> None:
    async with clients(link) as made:
        await made.connect("ann")
        silent = Counting(await made.stream())
        made.peers.append(silent)
        await silent.send(PingReq())
        await silent.expect_closed()
        now = made.broker.statistics()
        assert (now.sockets_accepted, now.connections_opened) == (2, 1)
        assert now.packets_sent == made.received == 1
