"""Several subscriptions of one client that match one message (3.3.4)."""

import itertools

import pytest

from mqtrio.testing import FaultyStore, HookRecorder, Peer, open_harness
from mqtrio.wire.packets import Publish, PublishProperties, Will

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
QOS = pytest.mark.parametrize("qos", [0, 1, 2])


def identifiers(packet: Publish) -> tuple[int, ...]:
    return packet.properties.subscription_identifiers if packet.properties else ()


async def copies(peer: Peer) -> list[Publish]:
    return [packet for packet in await peer.arrived() if isinstance(packet, Publish)]


@VERSIONS
@pytest.mark.parametrize("granted", list(itertools.product((0, 1, 2), repeat=2)))
@QOS
async def test_one_copy_at_the_highest_qos(
    version: int, granted: tuple[int, int], qos: int
) -> None:
    """[MQTT-3.3.4-2]; of the message's own QoS it is never more [MQTT-3.8.4-8]."""
    async with open_harness() as harness:
        peer = await harness.connect("peer", version=version)
        await peer.subscribe("a/+", granted[0])
        await peer.subscribe("a/#", granted[1])
        await harness.broker.publish("a/b", "x", qos=qos)
        (copy,) = await copies(peer)
        assert copy.qos == min(qos, max(granted))


@QOS
async def test_all_identifiers_come_with_the_copy(qos: int) -> None:
    """[MQTT-3.3.4-3] to [MQTT-3.3.4-5]."""
    async with open_harness() as harness:
        peer = await harness.connect("peer")
        for topic_filter, identifier in (
            ("a/b", 1),
            ("a/+", 268_435_455),
            ("a/#", 0),
            ("#", 3),
            ("b", 4),
            ("+/b", 3),
        ):
            await peer.subscribe(topic_filter, 2, identifier=identifier)
        await harness.broker.publish("a/b", "x", qos=qos)
        (copy,) = await copies(peer)
        assert sorted(identifiers(copy)) in ([1, 3, 268_435_455], [1, 3, 3, 268_435_455])
        await peer.unsubscribe("#")
        await peer.unsubscribe("+/b")
        await harness.broker.publish("a/b", "x", qos=qos)
        (copy,) = await copies(peer)
        assert sorted(identifiers(copy)) == [1, 268_435_455]


async def test_a_new_subscription_replaces_qos_options_and_identifier() -> None:
    recorder = HookRecorder("subscribed")
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer")
        await peer.subscribe("a", 2, identifier=1, no_local=True)
        await peer.publish("a", b"own", 2)
        await peer.nothing()
        await peer.subscribe("a", 1, identifier=2)
        await peer.publish("a", b"own", 2)
        got = await peer.message(b"own", qos=1)
        assert identifiers(got) == (2,)
        await peer.subscribe("a", 0)
        await peer.publish("a", b"own", 2)
        got = await peer.message(b"own", qos=0)
        assert identifiers(got) == ()
        assert harness.broker.statistics().subscriptions == 1
    assert [event.replaced for event in recorder.of("subscribed")] == [False, True, True]


@QOS
async def test_no_local_is_a_matter_of_each_subscription(qos: int) -> None:
    """[MQTT-3.8.3-3]: the own message comes by the others, with their QoS and identifiers."""
    async with open_harness() as harness:
        peer = await harness.connect("peer")
        other = await harness.connect("other")
        await peer.subscribe("a/b", 2, identifier=1, no_local=True)
        await peer.publish("a/b", b"own", qos)
        await peer.nothing()
        await peer.subscribe("a/+", 1, identifier=2)
        await peer.publish("a/b", b"own", qos)
        (copy,) = await copies(peer)
        assert (copy.qos, identifiers(copy)) == (min(qos, 1), (2,))
        await other.publish("a/b", b"other", qos)
        (copy,) = await copies(peer)
        assert (copy.qos, sorted(identifiers(copy))) == (qos, [1, 2])


async def test_no_local_goes_by_the_client_identifier() -> None:
    """Also for its will, and for what waited for it from an earlier connection."""
    async with open_harness() as harness:
        peer = await harness.connect(
            "peer", session_expiry_interval=100, will=Will("a", b"will", 1)
        )
        await peer.subscribe("a", 1, no_local=True)
        await peer.publish("a", b"own", 1)
        await peer.drop()
        again = harness.peer("peer")
        await again.connect(clean_start=False, session_present=True)
        await again.nothing()
        await again.publish("a", b"own", 1)
        await again.nothing()
        await harness.broker.publish("a", b"other", qos=1)
        await again.message(b"other")


@pytest.mark.parametrize("as_published", list(itertools.product((False, True), repeat=2)))
@pytest.mark.parametrize("retain", [False, True])
async def test_retain_as_published_of_any_is_enough(
    as_published: tuple[bool, bool], retain: bool
) -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer")
        await peer.subscribe("a/b", retain_as_published=as_published[0])
        await peer.subscribe("a/+", retain_as_published=as_published[1])
        await harness.broker.publish("a/b", "x", retain=retain)
        (copy,) = await copies(peer)
        assert copy.retain is (retain and any(as_published))


@QOS
async def test_a_filter_of_one_subscription_leaves_the_others(qos: int) -> None:
    """What one delivery filter takes away may still come by another subscription."""

    def compile_delivery(event: object) -> object:
        closed = getattr(event, "identifier", 0) == 1
        return (lambda message: None) if closed else None

    recorder = HookRecorder("dropped", answers={"compile_delivery": compile_delivery})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer")
        await peer.subscribe("a/b", 2, identifier=1)
        await peer.subscribe("a/+", 1, identifier=2)
        await harness.broker.publish("a/b", "x", qos=qos)
        (copy,) = await copies(peer)
        assert (copy.qos, identifiers(copy)) == (min(qos, 1), (2,))
        assert recorder.of("dropped") == []
        await peer.unsubscribe("a/+")
        await harness.broker.publish("a/b", "x", qos=qos)
        await peer.nothing()
    assert [event.reason for event in recorder.of("dropped")] == ["delivery_filter"]


@pytest.mark.parametrize("durable", [False, True])
async def test_one_copy_waits_in_a_session(durable: bool) -> None:
    store = FaultyStore() if durable else None
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", session_expiry_interval=100)
        await peer.subscribe("a/b", 1, identifier=1)
        await peer.subscribe("a/+", 2, identifier=2)
        await peer.drop()
        await harness.broker.publish("a/b", "x", qos=2)
        assert [session.waiting for session in harness.broker.sessions()] == [1]
        again = harness.peer("peer")
        await again.connect(clean_start=False, session_present=True)
        got = await again.message(b"x", qos=2)
        assert sorted(identifiers(got)) == [1, 2]
        await again.nothing()


async def test_each_filter_replays_the_retained_messages_for_itself() -> None:
    """3.3.1.3 speaks of each subscription; each copy has the identifier of its own."""
    async with open_harness() as harness:
        await harness.broker.publish("a/b", "x", qos=1, retain=True)
        peer = await harness.connect("peer")
        for identifier, topic_filter in ((1, "a/b"), (2, "a/+")):
            await peer.subscribe(topic_filter, 1, identifier=identifier)
            got = await peer.message(b"x", retain=True)
            assert identifiers(got) == (identifier,)
        await peer.nothing()


async def test_the_identifier_of_a_publisher_means_nothing() -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer")
        await peer.send(
            Publish("a", b"x", properties=PublishProperties(subscription_identifiers=(7,)))
        )
        await peer.expect_closed(0x82)  # [MQTT-3.3.4-6]
