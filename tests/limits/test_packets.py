"""What one packet or one handshake may cost."""

import tracemalloc

import pytest
import trio

from mqtrio import Allow
from mqtrio.hooks.answers import Challenge
from mqtrio.testing import HookRecorder, Peer, open_harness
from mqtrio.wire.bodies import MOST_TOPIC_FILTERS
from mqtrio.wire.encoder import encode
from mqtrio.wire.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Auth,
    ConnAck,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    PublishProperties,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    UnsubAck,
    Unsubscribe,
)
from mqtrio.wire.properties import MOST_REPEATED
from tests.limits.kit import MIB, EndlessExchange, seconds

#: The fixed header of a PUBLISH of 256 MiB, the largest that the standard knows.
LARGEST = b"\x30\xff\xff\xff\x7f"


async def test_a_packet_too_large_is_refused_from_its_header() -> None:
    async with open_harness(limits={"maximum_packet_size": 1000}) as harness:
        bystander = await harness.connect("bystander")
        before = harness.broker.statistics().memory
        whole = await harness.connect("whole")
        assert whole.connack is not None
        assert whole.connack.maximum_packet_size == 1000

        # 3 bytes of fixed header, 2 + 1 of topic, 1 of properties: 1,000 in all pass.
        largest = Publish("t", bytes(993), 0)
        assert len(encode(largest, MQTT_5)) == 1000
        await whole.send(largest)
        await whole.ping()

        # One more, and its five bytes of header suffice: its body is never sent.
        await whole.send(encode(Publish("t", bytes(994)), MQTT_5)[:3])
        await whole.expect_closed(0x95)
        await bystander.ping()
        assert harness.broker.statistics().memory == before


async def test_256_mib_announced_and_nothing_sent() -> None:
    """Nothing is set aside for what was announced, by clients that may send so much."""
    async with open_harness(limits={"maximum_packet_size": 268_435_460}) as harness:
        peers = [await harness.connect(f"c{number}") for number in range(50)]
        before = harness.broker.statistics().memory
        tracemalloc.start()
        try:
            for peer in peers:
                await peer.send(LARGEST)
                await peer.settle()
            held, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert max(held, most) < MIB
        assert harness.broker.statistics().memory == before + 50 * len(LARGEST)
        assert not any(peer.ended for peer in peers)
    async with open_harness() as harness:
        peer = await harness.connect("default")
        await peer.send(LARGEST)
        await peer.expect_closed(0x95)


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
async def test_before_connack_packets_must_be_small(version: int) -> None:
    async with open_harness(limits={"connect_packet_size": 200}) as harness:
        small = harness.peer("small", version=version)
        await small.connect(username="u", password=b"p" * 100)
        # Once let in it may send larger ones.
        await small.publish("t", bytes(5000), 1)

        large = harness.peer("large", version=version)
        packet = large.connect_packet(username="u", password=b"p" * 300)
        await large.send(encode(packet, version)[:4])
        # Its version is not known yet: no CONNACK would be right for all.
        await large.expect_closed()
        assert harness.broker.statistics().refused == {"packet_too_large": 1}


async def test_a_client_that_never_sends_connect() -> None:
    async with open_harness(limits={"connect_timeout": 3}) as harness:
        bystander = await harness.connect("bystander")
        silent = harness.peer("silent")
        assert await seconds(silent.expect_closed) == pytest.approx(3)
        await bystander.ping()
        assert not bystander.ended


async def dribble(peer: Peer) -> None:
    """Send CONNECT, ten bytes a second."""
    for byte in encode(peer.connect_packet(), MQTT_5):
        await peer.send(bytes((byte,)))
        await trio.sleep(0.1)


async def test_connect_a_byte_at_a_time() -> None:
    """Every byte is progress, and none prolongs the time for the whole."""
    async with open_harness(limits={"connect_timeout": 3}) as harness:
        slow = harness.peer("slow" * 50)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dribble, slow)
            assert await seconds(slow.expect_closed) == pytest.approx(3)
            nursery.cancel_scope.cancel()

        quick = harness.peer("quick")
        await dribble(quick)
        await quick.expect(ConnAck, reason_code=0)
        await trio.sleep(10)  # the time is not held against who was let in
        await quick.ping()


async def test_an_exchange_without_an_end() -> None:
    plugin = EndlessExchange()
    async with open_harness(plugins=[plugin], limits={"authentication_timeout": 7}) as harness:
        endless = harness.peer("endless")
        start = trio.current_time()
        await endless.send(endless.connect_packet(authentication_method="m"))
        while isinstance(packet := await endless.receive(), Auth):
            await trio.sleep(0.5)
            await endless.send(Auth(0x18, "m", b"answer"))
        assert isinstance(packet, ConnAck)
        assert packet.reason_code == 0x87
        await endless.expect_closed()
        assert trio.current_time() - start == pytest.approx(7)


async def test_a_re_authentication_without_an_end() -> None:
    """The connection that was let in long ago has no more time for it than a new one."""
    answers = {
        "authenticate": lambda event: Challenge(b"more") if event.reauthenticating else Allow()
    }
    async with open_harness(
        plugins=[HookRecorder(answers=answers)], limits={"authentication_timeout": 7}
    ) as harness:
        peer = await harness.connect("endless", authentication_method="m")
        await trio.sleep(100)
        start = trio.current_time()
        await peer.send(Auth(0x19, "m"))
        while isinstance(packet := await peer.receive(), Auth):
            await trio.sleep(0.5)
            await peer.send(Auth(0x18, "m", b"answer"))
        assert getattr(packet, "reason_code", None) == 0x87
        await peer.expect_closed()
        assert trio.current_time() - start == pytest.approx(7)


async def test_levels_of_topics_and_filters() -> None:
    async with open_harness(limits={"topic_levels": 4}) as harness:
        peer = await harness.connect("peer")
        await peer.publish("a/b/c/d", b"", 1)
        await peer.subscribe("a/b/c/#")
        await peer.subscribe("$share/name/a/b/c/d")
        await peer.send(Subscribe(9, (SubscriptionRequest("a/b/c/d/#"),)))
        await peer.expect(SubAck, packet_id=9, reason_codes=(0x8F,))
        await peer.send(Publish("a/b/c/d/e"))
        await peer.expect_closed(0x90)

        old = await harness.connect("old", version=MQTT_3_1_1)
        await old.send(Subscribe(9, (SubscriptionRequest("+/+/+/+/+"),)))
        await old.expect(SubAck, packet_id=9, reason_codes=(0x80,))
        await old.send(Publish("a/b/c/d/e", b"", 1, packet_id=5))
        await old.expect_closed()

        for retain in (False, True):
            will = await harness.connect(f"retaining{retain}")
            await will.send(Publish("/////", b"x", 0, retain))
            await will.expect_closed(0x90)
        assert not harness.broker.retained("#")


async def test_topic_aliases_of_a_client() -> None:
    async with open_harness(limits={"topic_alias_maximum": 2}) as harness:
        peer = await harness.connect("peer")
        assert peer.connack is not None
        assert peer.connack.topic_alias_maximum == 2
        await peer.subscribe("#")
        for alias, topic in ((1, "one"), (2, "two"), (1, "")):
            await peer.send(Publish(topic, b"x", properties=PublishProperties(topic_alias=alias)))
        assert [(await peer.message()).topic for _ in range(3)] == ["one", "two", "one"]
        await peer.send(Publish("three", b"x", properties=PublishProperties(topic_alias=3)))
        await peer.expect_closed(0x94)


async def test_topic_aliases_towards_a_client() -> None:
    async with open_harness(limits={"outgoing_topic_aliases": 2}) as harness:
        many = await harness.connect("many", topic_alias_maximum=10)
        one = await harness.connect("one", topic_alias_maximum=1)
        none = await harness.connect("none")
        for peer in (many, one, none):
            await peer.subscribe("#")
        publisher = await harness.connect("publisher")
        for _ in range(2):
            await publisher.send(*(Publish(topic, b"x") for topic in ("a", "b", "c")))

        async def seen(count: int, peer: Peer) -> list[tuple[str, int | None]]:
            found = []
            for _ in range(6):
                message = await peer.message()
                alias = None if message.properties is None else message.properties.topic_alias
                found.append((message.topic, alias))
            assert len({alias for _, alias in found if alias}) == count
            return found

        assert await seen(2, many) == [
            ("a", 1),
            ("b", 2),
            ("c", None),
            ("", 1),
            ("", 2),
            ("c", None),
        ]
        assert await seen(1, one) == [
            ("a", 1),
            ("b", None),
            ("c", None),
            ("", 1),
            ("b", None),
            ("c", None),
        ]
        assert await seen(0, none) == [(topic, None) for topic in "abcabc"]


async def test_filters_of_one_packet() -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer")
        requests = tuple(SubscriptionRequest(f"f/{number}") for number in range(MOST_TOPIC_FILTERS))
        await peer.send(Subscribe(1, requests))
        granted = await peer.expect(SubAck, packet_id=1)
        assert len(granted.reason_codes) == MOST_TOPIC_FILTERS
        await peer.send(Unsubscribe(2, tuple(request.topic_filter for request in requests)))
        ended = await peer.expect(UnsubAck, packet_id=2)
        assert set(ended.reason_codes) == {0}

        await peer.send(Subscribe(3, (*requests, SubscriptionRequest("one/more"))))
        await peer.expect_closed(0x97)
        assert harness.broker.statistics().subscriptions == 0


async def test_repeated_properties_of_one_packet() -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer")
        pairs = tuple((f"name{number}", "value") for number in range(MOST_REPEATED))
        await peer.send(
            Publish("t", b"", 1, packet_id=1, properties=PublishProperties(user_properties=pairs))
        )
        await peer.expect(PubAck, packet_id=1)
        more = PublishProperties(user_properties=(*pairs, ("one", "more")))
        await peer.send(Publish("t", b"", 1, packet_id=2, properties=more))
        await peer.expect_closed(0x97)


async def test_a_packet_that_never_ends_is_held_once() -> None:
    """A large packet in small pieces is counted as it comes, and freed with its connection."""
    async with open_harness() as harness:
        peer = await harness.connect("peer")
        before = harness.broker.statistics().memory
        packet = encode(Publish("t", bytes(MIB)), MQTT_5)
        for start in range(0, MIB - 100_000, 100_000):
            await peer.send(packet[start : start + 100_000])
            await peer.settle()
            assert harness.broker.statistics().memory == before + start + 100_000
        other = await harness.connect("other")
        await other.send(PingReq())
        await other.expect(PingResp)
        await peer.drop()
        await other.drop()
        assert harness.broker.statistics().memory == 0
