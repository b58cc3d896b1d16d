"""Receive maximum, topic aliases and maximum packet sizes, both ways (3.1.2.11, 4.9)."""

import random
from typing import Any

import pytest

from mqtrio.testing import FaultyStore, Peer, open_harness
from mqtrio.wire.encoder import encode
from mqtrio.wire.packets import (
    MQTT_5,
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
)

STORES = pytest.mark.parametrize("durable", [False, True])


def store(durable: bool) -> FaultyStore | None:
    return FaultyStore() if durable else None


async def publishes(peer: Peer) -> list[Publish]:
    return [packet for packet in await peer.arrived() if isinstance(packet, Publish)]


# -- receive maximum: the broker's window towards a client


@STORES
@pytest.mark.parametrize("maximum", [1, 2, 7])
async def test_no_more_are_under_way_than_the_client_allows(maximum: int, durable: bool) -> None:
    """[MQTT-3.3.4-9]: and each acknowledgement makes room for one."""
    async with open_harness(store=store(durable)) as harness:
        peer = await harness.connect(
            "peer", receive_maximum=maximum, session_expiry_interval=100 if durable else 0
        )
        await peer.subscribe("a", 2)
        for number in range(20):
            await harness.broker.publish("a", b"%d" % number, qos=1 + number % 2)
        rng = random.Random(maximum)
        under_way: dict[int, Publish] = {}
        released: set[int] = set()
        got: list[bytes] = []
        while True:
            for packet in await peer.arrived():
                if isinstance(packet, Publish):
                    assert packet.packet_id not in under_way
                    under_way[packet.packet_id] = packet
                    got.append(packet.payload)
                else:
                    assert isinstance(packet, PubRel)
                    released.add(packet.packet_id)
                assert len(under_way) <= maximum
            if not under_way:
                break
            packet_id = rng.choice(list(under_way))
            if under_way[packet_id].qos == 1:
                del under_way[packet_id]
                await peer.send(PubAck(packet_id))
            elif packet_id in released:
                released.discard(packet_id)
                del under_way[packet_id]
                await peer.send(PubComp(packet_id))
            else:
                await peer.send(PubRec(packet_id))
        for qos in (1, 2):
            own = [b"%d" % number for number in range(20) if 1 + number % 2 == qos]
            assert [payload for payload in got if payload in own] == own


async def test_qos_0_passes_a_full_window() -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer", receive_maximum=1)
        await peer.subscribe("a", 1)
        await harness.broker.publish("a", b"1", qos=1)
        await harness.broker.publish("a", b"2", qos=1)
        await harness.broker.publish("a", b"0", qos=0)
        assert [packet.payload for packet in await publishes(peer)] == [b"1", b"0"]


@pytest.mark.parametrize(
    "refusal", [PubAck(1, 0x80), PubRec(1, 0x97)], ids=["PUBACK 0x80", "PUBREC 0x97"]
)
async def test_a_refusal_makes_room_too(refusal: Packet) -> None:
    """[MQTT-4.9.0-2]; the message is not sent again [MQTT-4.4.0-2]."""
    async with open_harness() as harness:
        peer = await harness.connect("peer", receive_maximum=1, session_expiry_interval=100)
        await peer.subscribe("a", 2)
        qos = 1 if isinstance(refusal, PubAck) else 2
        for payload in (b"1", b"2"):
            await harness.broker.publish("a", payload, qos=qos)
        await peer.expect(Publish, payload=b"1", packet_id=1)
        await peer.send(refusal)
        await peer.message(b"2")
        await peer.drop()
        again = harness.peer("peer")
        await again.connect(clean_start=False, session_present=True)
        await again.nothing()


@pytest.mark.parametrize("answer", [PubAck(7), PubRec(7), PubComp(7), PubAck(1), PubComp(1)])
async def test_an_acknowledgement_of_nothing_makes_no_room(answer: Packet) -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer", receive_maximum=1)
        await peer.subscribe("a", 2)
        for payload in (b"1", b"2"):
            await harness.broker.publish("a", payload, qos=2)
        await peer.expect(Publish, payload=b"1", packet_id=1)
        await peer.send(answer)
        if isinstance(answer, PubRec):
            await peer.expect(PubRel, packet_id=7, reason_code=0x92)
        await peer.nothing()
        await peer.send(PubRec(1))
        await peer.expect(PubRel, packet_id=1, reason_code=0)
        await peer.send(PubComp(1))
        await peer.message(b"2")


@STORES
async def test_a_smaller_window_after_a_reconnect(durable: bool) -> None:
    """What was under way waits for it, too; PUBREL does not."""
    async with open_harness(store=store(durable)) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("a", 2)
        for number in range(5):
            await harness.broker.publish("a", b"%d" % number, qos=1)
        assert len(await publishes(peer)) == 5
        await peer.drop()
        again = harness.peer("peer")
        await again.connect(clean_start=False, session_expiry_interval=1000, receive_maximum=2)
        got = await publishes(again)
        assert [(packet.payload, packet.dup) for packet in got] == [(b"0", True), (b"1", True)]
        for number in range(2, 5):
            await again.send(PubAck(got.pop(0).packet_id))
            (packet,) = await publishes(again)
            assert (packet.payload, packet.dup) == (b"%d" % number, True)
            got.append(packet)


async def test_packet_identifiers_are_free_ones() -> None:
    """They go round, and step over those in use [MQTT-2.2.1-4]."""
    async with open_harness() as harness:
        peer = await harness.connect("peer")
        await peer.subscribe("a", 1)
        await harness.broker.publish("a", b"kept", qos=1)
        kept = await peer.expect(Publish, payload=b"kept", packet_id=1)
        harness.broker._core.sessions.by_id["peer"]._packet_id = 65533
        for packet_id in (65534, 65535, 2, 3):
            await harness.broker.publish("a", b"x", qos=1)
            await peer.message(b"x", packet_id=packet_id)
        await peer.send(PubAck(kept.packet_id))
        await peer.ping()


# -- receive maximum: a client's window towards the broker


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_client_may_fill_its_window_again_and_again(qos: int) -> None:
    async with open_harness(limits={"receive_maximum": 3}) as harness:
        peer = await harness.connect("peer")
        assert peer.connack is not None
        assert peer.connack.receive_maximum == 3
        for _ in range(5):
            await peer.send(*(Publish("a", b"x", qos, packet_id=n) for n in (1, 2, 3)))
            got = await peer.arrived()
            assert len(got) == 3
            if qos == 2:
                await peer.send(PubRel(1), PubRel(2), PubRel(3))
                assert len(await peer.arrived()) == 3


async def test_one_message_more_than_announced() -> None:
    async with open_harness(limits={"receive_maximum": 2}) as harness:
        peer = await harness.connect("peer")
        await peer.send(*(Publish("a", b"x", 2, packet_id=n) for n in (1, 2)))
        await peer.expect(PubRec)
        await peer.expect(PubRec)
        await peer.send(Publish("a", b"x", 0), Publish("a", b"x", 2, False, True, 1))
        await peer.expect(PubRec, packet_id=1)  # QoS 0 and a repetition don't count
        await peer.send(Publish("a", b"x", 1, packet_id=3))
        await peer.expect_closed(0x93)


async def test_mqtt_3_knows_no_window_of_the_broker() -> None:
    async with open_harness(limits={"receive_maximum": 2}) as harness:
        peer = await harness.connect("peer", version=4)
        await peer.send(*(Publish("a", b"x", 2, packet_id=n) for n in range(1, 50)))
        for number in range(1, 50):
            await peer.expect(PubRec, packet_id=number)


# -- topic aliases towards the broker


def aliased(alias: int) -> PublishProperties:
    return PublishProperties(topic_alias=alias)


async def test_a_client_uses_aliases() -> None:
    async with open_harness(limits={"topic_alias_maximum": 2}) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("#")
        peer = await harness.connect("peer")
        assert peer.connack is not None
        assert peer.connack.topic_alias_maximum == 2
        for topic, alias, meant in (
            ("a", 1, "a"),
            ("", 1, "a"),
            ("b", 2, "b"),
            ("", 1, "a"),
            ("c", 1, "c"),  # given to another topic
            ("", 1, "c"),
            ("", 2, "b"),
        ):
            await peer.send(Publish(topic, meant.encode(), properties=aliased(alias)))
            await watcher.message(meant.encode(), topic=meant, properties=None)


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (b"\x30\x08\x00\x01a\x03\x23\x00\x00x", 0x94),
        (Publish("a", b"x", properties=aliased(3)), 0x94),
        (Publish("", b"x", properties=aliased(3)), 0x94),
        (Publish("", b"x", properties=aliased(2)), 0x82),
        (Publish("", b"x"), 0x82),
    ],
    ids=["0", "above the maximum", "unknown and above", "unknown", "none"],
)
async def test_aliases_that_can_not_be(packet: Publish | bytes, code: int) -> None:
    async with open_harness(limits={"topic_alias_maximum": 2}) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("#")
        peer = await harness.connect("peer")
        await peer.publish("a", b"1", 1, properties=aliased(1))
        await watcher.message(b"1")
        await peer.send(packet)
        await peer.expect_closed(code)
        await watcher.nothing()


async def test_aliases_end_with_the_connection() -> None:
    """[MQTT-3.3.2-7], whatever becomes of the session."""
    async with open_harness() as harness:
        peer = await harness.connect("peer", session_expiry_interval=100)
        await peer.publish("a", b"x", 1, properties=aliased(1))
        await peer.drop()
        again = harness.peer("peer")
        await again.connect(clean_start=False, session_present=True)
        await again.send(Publish("", b"x", properties=aliased(1)))
        await again.expect_closed(0x82)


async def test_aliases_of_two_clients_are_their_own() -> None:
    async with open_harness() as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("#")
        peers = [await harness.connect(name) for name in ("ann", "bob")]
        for peer in peers:
            await peer.publish(peer.client_id, b"x", 1, properties=aliased(1))
            await watcher.message(b"x", topic=peer.client_id)
        for peer in peers:
            await peer.publish("", b"y", 1, properties=aliased(1))
            await watcher.message(b"y", topic=peer.client_id)


# -- topic aliases towards a client


class Resolving:
    """A client's own table of what the broker's aliases stand for."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.topics: dict[int, str] = {}
        self.used = 0

    def resolve(self, packet: Publish) -> str:
        alias = packet.properties.topic_alias if packet.properties is not None else None
        if alias is None:
            assert packet.topic
            return packet.topic
        assert 1 <= alias <= self.maximum
        self.used += 1
        if packet.topic:
            self.topics[alias] = packet.topic
        return self.topics[alias]


@pytest.mark.parametrize("maximum", [0, 1, 3, 1000])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_the_broker_uses_aliases(maximum: int, qos: int) -> None:
    """[MQTT-3.1.2-26], [MQTT-3.1.2-27]: as many as the client allows, and what they say is true."""
    async with open_harness(limits={"outgoing_topic_aliases": 10}) as harness:
        peer = await harness.connect("peer", topic_alias_maximum=maximum)
        await peer.subscribe("#", 2, identifier=5)
        table = Resolving(min(maximum, 10))
        rng = random.Random(maximum)
        for _ in range(60):
            topic = f"topic/{rng.randrange(6)}"
            await harness.broker.publish(topic, topic, qos=qos, user_properties=(("a", "b"),))
            got = await peer.message(qos=qos)
            assert table.resolve(got) == topic == got.payload.decode()
            assert got.properties is not None
            assert got.properties.user_properties == (("a", "b"),)
            assert got.properties.subscription_identifiers == (5,)
        assert (table.used > 0) is (maximum > 0)


async def test_the_broker_s_aliases_end_with_the_connection() -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer", topic_alias_maximum=5, session_expiry_interval=100)
        await peer.subscribe("a", 1)
        for _ in range(2):
            await harness.broker.publish("a", "x", qos=1)
            await peer.expect(Publish)
        await peer.drop()
        again = harness.peer("peer")
        await again.connect(clean_start=False, session_present=True, topic_alias_maximum=5)
        table = Resolving(5)
        for _ in range(2):
            got = await again.expect(Publish, dup=True)
            assert table.resolve(got) == "a"


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_an_alias_that_came_with_a_packet_that_was_too_large_is_unknown(qos: int) -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer", topic_alias_maximum=2, maximum_packet_size=60)
        await peer.subscribe("#", 2)
        table = Resolving(2)
        topics = ("a", "b", "c")
        for size in (100, 10, 100, 10):
            for topic in topics:
                await harness.broker.publish(topic, b"x" * size, qos=qos)
                if size == 10:
                    assert table.resolve(await peer.message(qos=qos)) == topic
        await peer.nothing()
        assert harness.broker.statistics().dropped == {"packet_too_large": 6}


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("maximum", [0, 5])
async def test_an_alias_never_makes_a_packet_too_large(qos: int, maximum: int) -> None:
    """A message that fits without one is sent without one."""
    plain = Publish("topic", b"x" * 40, qos, packet_id=1 if qos else 0)
    size = len(encode(plain, MQTT_5))
    async with open_harness() as harness:
        peer = await harness.connect("peer", topic_alias_maximum=maximum, maximum_packet_size=size)
        await peer.subscribe("#", 2)
        await harness.broker.publish("topic", b"x" * 40, qos=qos)
        await peer.message(b"x" * 40, topic="topic", qos=qos, properties=None)
        await harness.broker.publish("topic", b"x" * 41, qos=qos)
        await harness.broker.publish("topic", b"small", qos=qos)
        table = Resolving(maximum)
        got = await peer.message(b"small", qos=qos)
        assert table.resolve(got) == "topic"
        await peer.nothing()


# -- the largest packet that a client takes


@STORES
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("waiting", [False, True])
async def test_what_is_too_large_is_skipped(qos: int, waiting: bool, durable: bool) -> None:
    """[MQTT-3.1.2-24], [MQTT-3.1.2-25]: as if it were delivered; the next ones follow."""
    size = len(encode(Publish("a", b"x" * 50, qos, packet_id=1 if qos else 0), MQTT_5))
    async with open_harness(store=store(durable)) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("a", 2)
        await peer.drop()
        again = harness.peer("peer")
        fields: dict[str, Any] = {
            "clean_start": False,
            "session_expiry_interval": 1000,
            "maximum_packet_size": size,
            "receive_maximum": 1,
        }
        if not waiting:
            await again.connect(**fields)
        for length in (51, 50, 200, 49, 10_000):
            await harness.broker.publish("a", b"x" * length, qos=qos)
        if waiting:
            await again.connect(**fields)
        if qos or not waiting:
            for length in (50, 49):
                await again.message(b"x" * length, qos=qos)
        await again.nothing()
        lost = 3 if qos or not waiting else 0
        assert harness.broker.statistics().dropped.get("packet_too_large", 0) == lost
        (session,) = harness.broker.sessions()
        assert (session.waiting, session.inflight) == (0, 0)


async def test_others_get_what_is_too_large_for_one() -> None:
    async with open_harness() as harness:
        small = await harness.connect("small", maximum_packet_size=50)
        large = await harness.connect("large")
        for peer in (small, large):
            await peer.subscribe("a", 1)
        await harness.broker.publish("a", b"x" * 100, qos=1)
        await large.message(b"x" * 100)
        await small.nothing()


async def test_properties_count() -> None:
    """What fits may not fit with a subscription identifier."""
    size = len(encode(Publish("a", b"x" * 50, 1, packet_id=1), MQTT_5))
    async with open_harness() as harness:
        peer = await harness.connect("peer", maximum_packet_size=size)
        await peer.subscribe("a", 1, identifier=300)
        await harness.broker.publish("a", b"x" * 50, qos=1)
        await peer.nothing()
        await harness.broker.publish("a", b"x" * 47, qos=1)
        await peer.message(b"x" * 47)


async def test_an_acknowledgement_that_does_not_fit() -> None:
    """3.1.2.11.4: nothing that can be left out helps a SUBACK, so the connection can't go on."""
    async with open_harness() as harness:
        peer = await harness.connect("peer", maximum_packet_size=30)
        requests = tuple(SubscriptionRequest(f"t/{number}") for number in range(30))
        await peer.send(Subscribe(1, requests))
        await peer.expect_closed(0x95)


# -- the largest packet that the broker takes


@pytest.mark.parametrize("version", [3, 4, 5])
async def test_what_is_too_large_for_the_broker(version: int) -> None:
    """It is refused when its length has been read: the body is not waited for."""
    async with open_harness(limits={"maximum_packet_size": 1000}) as harness:
        peer = await harness.connect("peer", version=version)
        if version == MQTT_5:
            assert peer.connack is not None
            assert peer.connack.maximum_packet_size == 1000
        fits = Publish("a", b"x" * (1000 - len(encode(Publish("a"), version)) - 1))
        assert len(encode(fits, version)) == 1000
        await peer.send(fits, PingReq())
        await peer.settle()
        await peer.arrived()
        await peer.send(b"\x30\xe6\x07")  # 998 bytes to follow, 1001 in all
        await peer.expect_closed(0x95 if version == MQTT_5 else None)
        assert harness.broker.statistics().messages_received == 1


async def test_a_small_packet_is_all_that_is_taken_before_connect() -> None:
    async with open_harness(limits={"connect_packet_size": 100}) as harness:
        peer = harness.peer("x" * 200)
        await peer.send(encode(peer.connect_packet(), MQTT_5)[:4])
        await peer.settle()
        assert peer.ended
        peer = await harness.connect("peer")
        await peer.publish("a", b"x" * 1000, 1)


async def test_suback_is_not_lost_among_deliveries() -> None:
    async with open_harness() as harness:
        for number in range(3):
            await harness.broker.publish(f"a/{number}", "x", qos=1, retain=True)
        peer = await harness.connect("peer", receive_maximum=1)
        await peer.send(Subscribe(1, (SubscriptionRequest("a/+", 1),)))
        await peer.answer(SubAck, packet_id=1)
        for _ in range(3):
            await peer.message(b"x", retain=True)
        await peer.nothing()
