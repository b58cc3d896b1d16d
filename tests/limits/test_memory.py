"""The total budget: what it refuses, what it leaves alone, and that its account is right."""

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, wait_all_tasks_blocked

from mqtrio import RefusedError, StoreError
from mqtrio.engine.weights import PLACE, RECEIPT
from mqtrio.testing import Closed, FaultyStore, Harness, Peer, open_harness
from mqtrio.wire.encoder import encode
from mqtrio.wire.packets import (
    MQTT_3_1_1,
    MQTT_5,
    NEVER_EXPIRES,
    Packet,
    PingReq,
    PubAck,
    PubComp,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from tests.limits.audit import check, held
from tests.limits.kit import narrow, numbered, numbers, puback_codes

# -- retained messages


async def test_retained_messages() -> None:
    async with open_harness(limits={"retained_messages": 2}) as harness:
        subscriber = await harness.connect("subscriber")
        await subscriber.subscribe("#")
        peer = await harness.connect("peer")
        await peer.publish("a", b"1", 1, retain=True)
        await peer.publish("b", b"1", 1, retain=True)
        await subscriber.arrived()
        await peer.send(Publish("c", b"1", 1, True, packet_id=9))
        await peer.expect(PubAck, packet_id=9, reason_code=0x97)
        old = await harness.connect("old", version=MQTT_3_1_1)
        await old.send(Publish("c", b"1", 1, True, packet_id=9))
        await old.nothing()
        await peer.send(Publish("c", b"1", 0, True))
        await subscriber.nothing()  # what is refused reaches nobody
        assert harness.broker.statistics().dropped == {"refused": 3}
        with pytest.raises(RefusedError) as refused:
            await harness.broker.publish("c", b"1", retain=True)
        assert refused.value.reason_code == 0x97

        await peer.publish("a", b"2", 1, retain=True)  # a known topic may change
        await peer.publish("b", b"", 1, retain=True)  # and make room
        await peer.publish("c", b"2", 1, retain=True)
        found = {message.topic: message.payload for message in harness.broker.retained("#")}
        assert found == {"a": b"2", "c": b"2"}


# -- the total budget

BUDGET = 200_000


async def fill(harness: Harness) -> Peer:
    """Let an absent client's queue take up the whole budget; returns a publisher."""
    absent = await harness.connect("absent", session_expiry_interval=NEVER_EXPIRES)
    await absent.subscribe("queue", 1)
    await absent.disconnect()
    publisher = await harness.connect("publisher")
    packet_id = 0
    code = 0
    while not code:
        packet_id += 1
        await publisher.send(Publish("queue", bytes(5000), 1, packet_id=packet_id))
        code = (await publisher.expect(PubAck, packet_id=packet_id)).reason_code
    assert code == 0x97
    assert BUDGET < harness.broker.statistics().memory < BUDGET + 6000
    return publisher


async def test_what_must_wait_is_refused_when_the_budget_is_spent() -> None:
    async with open_harness(limits={"memory": BUDGET}) as harness:
        broker = harness.broker
        healthy = await harness.connect("healthy")
        await healthy.subscribe("live", 1)
        behind = await harness.connect("behind", receive_maximum=1)
        await behind.subscribe("behind", 1)
        publisher = await fill(harness)

        # Whoever takes messages at once notices nothing.
        for qos in (0, 1, 2):
            await publisher.publish("live", b"x", qos)
            await healthy.message(b"x")
        await healthy.ping()

        # A message that would wait is refused, and with it those that would not.
        await publisher.publish("behind", b"1", 1)
        await publisher.send(Publish("behind", b"2", 1, packet_id=1000))
        await publisher.expect(PubAck, reason_code=0x97)
        with pytest.raises(RefusedError) as refused:
            await broker.publish("behind", b"2", qos=2)
        assert refused.value.reason_code == 0x97
        old = harness.peer("old", version=MQTT_3_1_1)
        await old.send(old.connect_packet())
        await old.expect_closed(3)

        # So is what would be kept: sessions, subscriptions, retained messages.
        new = harness.peer("new")
        await new.send(new.connect_packet())
        await new.expect_closed(0x97)
        await healthy.send(Subscribe(7, (SubscriptionRequest("live"), SubscriptionRequest("new"))))
        await healthy.expect(SubAck, packet_id=7, reason_codes=(0, 0x97))
        await publisher.send(Publish("kept", b"x", 1, True, packet_id=1000))
        await publisher.expect(PubAck, reason_code=0x97)

        # A large packet can't be held while it arrives.
        await publisher.send(encode(Publish("live", bytes(300_000)), MQTT_5)[:200_000])
        await publisher.expect_closed(0x97)
        await healthy.ping()

        # Who owns what fills the budget gets in, and empties it.
        absent = await harness.connect("absent", session_present=True, clean_start=False)
        while broker.statistics().memory > BUDGET // 2:
            await absent.message()
        new = await harness.connect("new")
        await new.subscribe("new")
        await new.publish("kept", b"x", 1, retain=True)


async def test_outboxes_get_no_more_when_the_budget_is_spent() -> None:
    async with open_harness(limits={"memory": BUDGET, "backpressure": "off"}) as harness:
        own = await narrow(harness, "own", topic_alias_maximum=1)  # gets frames of its own
        shared = await narrow(harness, "shared")
        for stuck in (own, shared):
            await stuck.subscribe("live")
        healthy = await harness.connect("healthy")
        await healthy.subscribe("live")
        publisher = await fill(harness)
        before = harness.broker.statistics().memory
        await publisher.send(*numbered("live", 3, payload=bytes(1000)))
        await publisher.settle()
        await publisher.send(*numbered("live", 20, first=4, payload=bytes(1000)))
        assert numbers(await healthy.arrived()) == list(range(1, 24))
        assert harness.broker.statistics().memory < before + 8000
        dropped = harness.broker.statistics().dropped
        assert dropped["memory"] + dropped["outbox_full"] == 40


async def test_a_shared_subscription_without_room_refuses() -> None:
    for limits, code in (
        ({"queue_messages": 1}, 0x97),
        ({"queue_messages": 1, "overflow": "drop_oldest"}, 0),
    ):
        async with open_harness(limits={"maximum_inflight": 1, **limits}) as harness:
            members = []
            for name in ("one", "two"):
                member = await harness.connect(name, session_expiry_interval=NEVER_EXPIRES)
                await member.subscribe("$share/group/t", 1)
                members.append(member)
            await members[1].disconnect()
            publisher = await harness.connect("publisher")
            # One is under way, one waits with each of them.
            await publisher.send(*numbered("t", 5, 1))
            assert await puback_codes(publisher, 5) == [0, 0, 0, code, code]
            dropped = harness.broker.statistics().dropped
            assert dropped == ({"refused": 2} if code else {"queue_full": 2})


async def test_input_that_waits_is_counted_until_it_is_handled() -> None:
    limits = {"outbox_soft": 5000, "stall_time": 5}
    async with open_harness(limits=limits) as harness:
        stuck = await narrow(harness, "stuck")
        await stuck.subscribe("t")
        publisher = await harness.connect("publisher")
        for _ in range(2):
            await publisher.send(*numbered("t", 10, payload=bytes(1000)))
            await publisher.settle()
        before = held(harness.broker)["undecoded"]
        assert before  # it is stalled, with some of its messages in hand
        await publisher.settle()
        check(harness.broker)
        await trio.sleep(10)
        await publisher.ping()
        assert held(harness.broker)["undecoded"] == 0
        check(harness.broker)


async def test_one_small_message_for_many_is_not_small() -> None:
    """It is kept once, and has a place in each of the queues."""
    async with open_harness() as harness:
        for number in range(20):
            absent = await harness.connect(f"absent{number}", session_expiry_interval=100)
            await absent.subscribe("t", 1)
            await absent.disconnect()
        publisher = await harness.connect("publisher")
        before = harness.broker.statistics().memory
        await publisher.send(*numbered("t", 50, 1))
        assert await puback_codes(publisher, 50) == [0] * 50
        grown = harness.broker.statistics().memory - before
        assert grown == 50 * 205 + 20 * 50 * PLACE


async def test_identifiers_that_are_not_released_are_counted() -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer", version=MQTT_3_1_1)
        before = harness.broker.statistics().memory
        await peer.send(*numbered("t", 1000, 2))
        await peer.arrived()
        assert harness.broker.statistics().memory == before + 1000 * RECEIPT
        await peer.send(*(PubRel(number) for number in range(1, 1001)))
        await peer.arrived()
        assert harness.broker.statistics().memory == before


# -- the account

TOPICS = ("a", "b", "a/b", "a/c", "queue/long/" + "x" * 300)
FILTERS = ("a", "b", "#", "+/b", "a/#", "$share/g/a", "$share/g/#", "$share/h/a/+")
PAYLOADS = (b"", b"x", bytes(300), bytes(5000))

#: Small enough that everything overflows now and then.
TIGHT: dict[str, Any] = {
    "memory": 120_000,
    "maximum_packet_size": 20_000,
    "maximum_inflight": 3,
    "queue_messages": 6,
    "queue_bytes": 12_000,
    "stall_messages": 4,
    "stall_time": 0.3,
    "outbox_soft": 4000,
    "outbox_hard": 9000,
    "write_timeout": 5,
    "retained_messages": 4,
    "subscriptions_per_session": 4,
    "turn_budget": 100,
    "uncommitted_bytes": 10_000,
}


class Crowd:
    """Clients that do anything at all, decided by a random number generator."""

    def __init__(self, harness: Harness, choose: random.Random) -> None:
        self.harness = harness
        self.choose = choose
        self.peers: list[Peer] = []

    async def step(self) -> None:
        """Let somebody do something."""
        actions: list[Callable[[], Awaitable[None]]] = [
            self.connect,
            self.subscribe,
            self.unsubscribe,
            self.publish,
            self.publish,
            self.publish,
            self.read,
            self.read,
            self.half_a_packet,
            self.leave,
            self.program,
            self.wait,
        ]
        action = self.choose.choice(actions) if self.peers else self.connect
        with (
            trio.move_on_after(0.1),
            suppress(trio.BrokenResourceError, Closed, RefusedError, StoreError),
        ):
            await action()
        await wait_all_tasks_blocked()

    def peer(self) -> Peer:
        return self.choose.choice(self.peers)

    async def send(self, peer: Peer, *packets: Packet | bytes) -> None:
        """Send; who is not read in time breaks off in the middle of it."""
        try:
            await peer.send(*packets)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(peer.stream)
            if peer in self.peers:
                self.peers.remove(peer)
            raise

    async def connect(self) -> None:
        choose = self.choose
        version = choose.choice((MQTT_3_1_1, MQTT_5, MQTT_5))
        name = f"client{choose.randrange(5)}"
        if choose.random() < 0.5:
            peer = self.harness.adopt(*lockstep_stream_pair(), name, version=version)
        else:
            peer = self.harness.peer(name, version=version)
        fields: dict[str, Any] = {"clean_start": choose.random() < 0.3}
        if choose.random() < 0.4:
            topic = choose.choice(TOPICS)
            delay = choose.choice((0, 2)) if version == MQTT_5 else 0
            fields["will"] = Will(topic, choose.choice(PAYLOADS), 1, delay_interval=delay)
        if version == MQTT_5:
            fields["session_expiry_interval"] = choose.choice((0, 3, 1000))
            fields["topic_alias_maximum"] = choose.choice((0, 2))
            fields["receive_maximum"] = choose.choice((None, 1))
            fields["maximum_packet_size"] = choose.choice((None, None, 1000))
        self.peers.append(peer)
        await self.send(peer, peer.connect_packet(**fields))
        await peer.receive()

    async def subscribe(self) -> None:
        peer = self.peer()
        requests = tuple(
            SubscriptionRequest(self.choose.choice(FILTERS), self.choose.randrange(3))
            for _ in range(self.choose.randrange(1, 4))
        )
        await self.send(peer, Subscribe(peer.next_id(), requests))

    async def unsubscribe(self) -> None:
        peer = self.peer()
        await self.send(peer, Unsubscribe(peer.next_id(), (self.choose.choice(FILTERS),)))

    async def publish(self) -> None:
        choose = self.choose
        peer = self.peer()
        packets: list[Packet] = []
        for _ in range(choose.choice((1, 1, 5))):
            qos = choose.randrange(3)
            packet = Publish(choose.choice(TOPICS), choose.choice(PAYLOADS), qos)
            packet.retain = choose.random() < 0.2
            packet.packet_id = peer.next_id() % 65536 if qos else 0
            if peer.version == MQTT_5 and choose.random() < 0.3:
                packet.properties = PublishProperties(
                    topic_alias=choose.randrange(1, 4),
                    message_expiry_interval=choose.choice((None, 1, 5)),
                )
            packets.append(packet)
        await self.send(peer, *packets)

    async def read(self) -> None:
        """Take some of what came and acknowledge it, or acknowledge what never came."""
        peer = self.peer()
        for _ in range(self.choose.choice((1, 10, 50))):
            packet = await peer.receive()
            if isinstance(packet, Publish) and packet.qos == 1:
                await self.send(peer, PubAck(packet.packet_id))
            elif isinstance(packet, Publish) and packet.qos == 2:
                code = self.choose.choice((0, 0, 0x80)) if peer.version == MQTT_5 else 0
                await self.send(peer, PubRec(packet.packet_id, code))
            elif isinstance(packet, PubRel):
                await self.send(peer, PubComp(packet.packet_id))
            elif isinstance(packet, PubRec):
                await self.send(peer, PubRel(packet.packet_id))

    async def half_a_packet(self) -> None:
        peer = self.peer()
        data = encode(Publish("a", bytes(9000)), peer.version)
        await self.send(peer, data[: self.choose.randrange(len(data))])

    async def leave(self) -> None:
        peer = self.peer()
        self.peers.remove(peer)
        if self.choose.random() < 0.5:
            await self.send(peer, PingReq())
            await peer.disconnect()
        else:
            await trio.aclose_forcefully(peer.stream)

    async def program(self) -> None:
        """The embedding program joins in."""
        broker = self.harness.broker
        choose = self.choose
        topic = choose.choice(TOPICS)
        match choose.randrange(4):
            case 0:
                await self._publish(topic)
            case 1:
                async with broker.subscribe(choose.choice(FILTERS), qos=1, size=3) as messages:
                    await self._publish(topic)
                    if choose.random() < 0.5:
                        await messages.receive()
            case 2:
                async with broker.subscribe("#", session="durable", size=3) as messages:
                    await self._publish(topic)
                    await (await messages.receive()).ack()
            case 3:
                known = broker.sessions()
                if known:
                    broker.end_session(choose.choice(known).client_id)

    async def _publish(self, topic: str) -> None:
        choose = self.choose
        await self.harness.broker.publish(
            topic,
            choose.choice(PAYLOADS),
            qos=choose.randrange(3),
            retain=choose.random() < 0.3,
            message_expiry_interval=choose.choice((None, 2)),
        )

    async def wait(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(self.choose.choice((0.1, 0.5, 3)))

    async def end(self) -> None:
        """Nobody and nothing is left."""
        broker = self.harness.broker
        for peer in self.harness.peers:
            await trio.aclose_forcefully(peer.stream)
        await trio.sleep(10)
        for session in broker.sessions():
            broker.end_session(session.client_id)
        for message in broker.retained("#"):
            await broker.publish(message.topic, b"", retain=True)
        await trio.sleep(10)


@pytest.mark.parametrize("seed", range(16))
def test_the_account_is_right_whatever_happens(seed: int) -> None:
    async def main() -> None:
        async with open_harness(limits=TIGHT) as harness:
            crowd = Crowd(harness, random.Random(seed))
            for _ in range(150):
                await crowd.step()
                check(harness.broker)
            await crowd.end()
            assert held(harness.broker) == dict.fromkeys(held(harness.broker), 0)
            assert harness.broker.statistics().memory == 0

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("seed", range(8))
def test_the_account_is_right_though_the_store_fails(seed: int) -> None:
    async def main() -> None:
        choose = random.Random(seed)
        store = FaultyStore()
        async with open_harness(limits=TIGHT, store=store) as harness:
            crowd = Crowd(harness, choose)
            for _ in range(150):
                if choose.random() < 0.1:
                    store.delay = choose.choice((0, 0.05, 1))
                    store.fail_next(choose.choice((0, 0, 1, 2)))
                await crowd.step()
                check(harness.broker)
            store.heal()
            store.delay = 0
            await trio.sleep(1000)
            await crowd.end()
            assert harness.broker.statistics().memory == 0

    trio.run(main, clock=MockClock(autojump_threshold=0))
