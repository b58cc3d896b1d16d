"""Clients do anything, commits fail at any time: memory and store agree in the end."""

import random
from typing import Any

import pytest
import trio

from mqtrio.testing import FaultyStore, Harness, Peer, open_harness
from mqtrio.wire.packets import (
    Disconnect,
    Packet,
    PubAck,
    PubComp,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from tests.engine.agreement import agree

NAMES = ("ann", "bob", "cem")
TOPICS = ("a", "b", "$share/g/a", "+", "c")


class Anybody:
    """A client that does things at random, and keeps the protocol."""

    def __init__(self, harness: Harness, rng: random.Random, client_id: str) -> None:
        self.harness = harness
        self.rng = rng
        self.client_id = client_id
        self.peer: Peer | None = None
        self.free = list(range(1, 60))
        self.sent = 0
        #: Payloads that were acknowledged, QoS 1 and 2.
        self.promised: set[bytes] = set()
        self.under_way: dict[int, bytes] = {}
        self.received: list[bytes] = []
        self.completed: list[bytes] = []
        self.releasing: dict[int, bytes] = {}

    async def step(self) -> None:
        """Do one thing."""
        if self.peer is None:
            await self.connect()
            return
        action = self.rng.choices(
            [self.publish, self.subscribe, self.unsubscribe, self.drop, self.leave, self.listen],
            [8, 3, 1, 1, 1, 6],
        )[0]
        await action()

    async def connect(self) -> None:
        self.peer = self.harness.peer(self.client_id)
        will = None
        if self.rng.random() < 0.5:
            delay = self.rng.choice((0, 0, 3))
            will = Will("a", b"will of " + self.client_id.encode(), 1, False, delay)
        clean = self.rng.random() < 0.15
        await self.peer.send(
            self.peer.connect_packet(
                clean_start=clean,
                session_expiry_interval=self.rng.choice((0, 1000, 1000, 1000)),
                receive_maximum=self.rng.choice((None, 1, 3)),
                will=will,
            )
        )
        self.under_way.clear()

    async def publish(self) -> None:
        assert self.peer is not None
        if self.peer.connack is None or not self.free:
            return
        self.sent += 1
        payload = f"{self.client_id}-{self.sent}".encode()
        qos = self.rng.randrange(3)
        packet_id = self.free.pop(0) if qos else 0
        if qos:
            self.under_way[packet_id] = payload
        retain = self.rng.random() < 0.2
        properties = None
        if self.rng.random() < 0.2:
            properties = PublishProperties(message_expiry_interval=self.rng.choice((2, 5000)))
        topic = self.rng.choice("abc")
        await self.send(Publish(topic, payload, qos, retain, False, packet_id, properties))

    async def subscribe(self) -> None:
        request = SubscriptionRequest(self.rng.choice(TOPICS), self.rng.randrange(3))
        await self.send(Subscribe(1000, (request,), self.rng.choice((0, 7))))

    async def unsubscribe(self) -> None:
        await self.send(Unsubscribe(1001, (self.rng.choice(TOPICS),)))

    async def drop(self) -> None:
        assert self.peer is not None
        peer, self.peer = self.peer, None
        await peer.drop()

    async def leave(self) -> None:
        await self.send(Disconnect(self.rng.choice((0, 4))))

    async def send(self, packet: Packet) -> None:
        if self.peer is None:
            return
        try:
            await self.peer.send(packet)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.peer = None

    async def listen(self) -> None:
        """Take what has come, and answer most of it."""
        peer = self.peer
        assert peer is not None
        for packet in await peer.arrived():
            await self.handle(peer, packet)
        if peer.ended:
            self.peer = None

    async def handle(self, peer: Peer, packet: Any) -> None:
        match packet:
            case Publish():
                if packet.qos < 2 or packet.packet_id not in self.releasing:
                    self.received.append(packet.payload)
                if packet.qos and self.rng.random() < 0.8:
                    if packet.qos == 2:
                        self.releasing[packet.packet_id] = packet.payload
                    kind = PubAck if packet.qos == 1 else PubRec
                    await self.send(kind(packet.packet_id))
            case PubRel():
                self.releasing.pop(packet.packet_id, None)
                await self.send(PubComp(packet.packet_id))
            case PubAck():
                payload = self.under_way.pop(packet.packet_id, b"")
                self.free.append(packet.packet_id)
                if packet.reason_code < 0x80:
                    self.promised.add(payload)
            case PubRec():
                payload = self.under_way.pop(packet.packet_id, b"")
                if packet.reason_code < 0x80:
                    self.promised.add(payload)
                    await self.send(PubRel(packet.packet_id))
                else:
                    self.free.append(packet.packet_id)
            case PubComp():
                self.free.append(packet.packet_id)
            case _:
                if type(packet).__name__ == "ConnAck" and packet.reason_code == 0:
                    peer.connack = packet


#: So little in memory that queues are read in many pages.
PAGING: dict[str, Any] = {"window_messages": 2, "page_messages": 2, "maximum_inflight": 2}


@pytest.mark.parametrize("limits", [{}, PAGING], ids=["", "paging"])
@pytest.mark.parametrize("seed", range(40))
async def test_memory_and_store_agree(
    seed: int, limits: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(seed)
    store = FaultyStore(delay=rng.choice((0.0, 0.01, 0.5)))
    async with open_harness(store=store, limits=limits) as harness:
        clients = [Anybody(harness, rng, name) for name in NAMES]
        for _ in range(rng.choice((20, 60, 150))):
            chance = rng.random()
            if chance < 0.06:
                store.fail_next()
            elif chance < 0.08:
                store.fail_next_load()
            elif chance < 0.1:
                store.fail_next_read()
            elif chance < 0.12:
                store.hang()
            elif chance < 0.2:
                store.go_on()
            if rng.random() < 0.3:
                await trio.sleep(rng.choice((0.01, 0.2, 3)))
            await rng.choice(clients).step()
        store.heal()
        await trio.sleep(30)
        await agree(harness, store)
        state = store.state.copy()
    failures = [record.getMessage() for record in caplog.records if record.name == "mqtrio.store"]
    assert not [text for text in failures if "commit of" in text and "disk is full" not in text]
    store = FaultyStore(state)
    async with open_harness(store=store) as harness:
        await agree(harness, store)
