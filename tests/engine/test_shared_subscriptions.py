"""Shared subscriptions (4.8.2): one member gets a message; another one if that one goes away."""

from collections import Counter
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mqtrio import RefusedError
from mqtrio.testing import FaultyStore, Harness, HookRecorder, Peer, open_harness
from mqtrio.wire.packets import (
    PubAck,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
    Subscribe,
    SubscriptionRequest,
)

STORES = pytest.mark.parametrize("durable", [False, True])


def store(durable: bool) -> FaultyStore | None:
    return FaultyStore() if durable else None


async def members(harness: Harness, count: int, qos: int = 2, **fields: Any) -> list[Peer]:
    made = []
    for number in range(count):
        peer = await harness.connect(f"member{number}", **fields)
        await peer.subscribe("$share/g/a", qos)
        made.append(peer)
    return made


async def payloads(peer: Peer) -> list[bytes]:
    return [packet.payload for packet in await peer.arrived() if isinstance(packet, Publish)]


async def publish(harness: Harness, count: int, qos: int = 1, topic: str = "a") -> list[bytes]:
    sent = [b"%d" % number for number in range(count)]
    for payload in sent:
        await harness.broker.publish(topic, payload, qos=qos)
        await wait_all_tasks_blocked()  # it is on its way, nobody's outbox is busy
    return sent


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_each_message_goes_to_one_member(qos: int) -> None:
    async with open_harness() as harness:
        peers = await members(harness, 3)
        sent = await publish(harness, 30, qos)
        got = [await payloads(peer) for peer in peers]
        assert sorted(payload for own in got for payload in own) == sorted(sent)
        assert [len(own) for own in got] == [10, 10, 10]  # in turn


async def test_groups_and_plain_subscribers_don_t_share() -> None:
    async with open_harness() as harness:
        peers = [await harness.connect(name) for name in ("g1", "g2", "h", "plain", "filter")]
        filters = ("$share/g/a", "$share/g/a", "$share/h/a", "a", "$share/g/+")
        for peer, topic_filter in zip(peers, filters, strict=True):
            await peer.subscribe(topic_filter, 1)
        await publish(harness, 4)
        counts = [len(await payloads(peer)) for peer in peers]
        assert counts == [2, 2, 4, 4, 4]  # another filter is another shared subscription


async def test_one_client_with_a_shared_and_a_plain_subscription_gets_both() -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer")
        await peer.subscribe("$share/g/a", 1, identifier=1)
        await peer.subscribe("a", 0, identifier=2)
        await publish(harness, 1)
        got = [packet for packet in await peer.arrived() if isinstance(packet, Publish)]
        assert {(p.qos, p.properties.subscription_identifiers) for p in got if p.properties} == {
            (1, (1,)),
            (0, (2,)),
        }


async def test_each_member_has_its_own_qos_and_options() -> None:
    async with open_harness() as harness:
        peers = [await harness.connect(f"member{number}") for number in range(3)]
        for number, peer in enumerate(peers):
            await peer.subscribe("$share/g/a", number, identifier=number + 1)
        for _ in range(6):
            await harness.broker.publish("a", "x", qos=2)
            await wait_all_tasks_blocked()
        for number, peer in enumerate(peers):
            for _ in range(2):
                properties = PublishProperties(subscription_identifiers=(number + 1,))
                await peer.message(b"x", qos=number, properties=properties)
            await peer.nothing()


async def test_retained_messages_are_not_for_shared_subscriptions() -> None:
    async with open_harness() as harness:
        await harness.broker.publish("a", "x", retain=True)
        (peer,) = await members(harness, 1)
        await peer.nothing()


async def test_no_local_is_not_for_shared_subscriptions() -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer")
        request = SubscriptionRequest("$share/g/a", 1, no_local=True)
        await peer.send(Subscribe(1, (request,)))
        await peer.expect_closed(0x82)


# -- who has room


async def test_a_member_with_a_full_window_is_passed_over() -> None:
    async with open_harness() as harness:
        peers = await members(harness, 2, receive_maximum=2)
        await publish(harness, 4)
        for peer in peers:
            assert len(await payloads(peer)) == 2
        await publish(harness, 2)  # both are full: they wait
        await peers[1].send(PubAck(1))
        await publish(harness, 3)
        assert await payloads(peers[0]) == []
        got = await payloads(peers[1])
        assert len(got) == 1


async def test_who_is_away_gets_nothing_while_others_are_there() -> None:
    async with open_harness() as harness:
        peers = await members(harness, 2, session_expiry_interval=1000)
        await peers[0].drop()
        sent = await publish(harness, 10)
        assert await payloads(peers[1]) == sent
        assert all(session.waiting == 0 for session in harness.broker.sessions())


@STORES
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_where_all_are_away_one_keeps_it(qos: int, durable: bool) -> None:
    async with open_harness(store=store(durable)) as harness:
        for peer in await members(harness, 2, session_expiry_interval=1000):
            await peer.drop()
        sent = await publish(harness, 10, qos)
        waiting = sum(session.waiting for session in harness.broker.sessions())
        assert waiting == (10 if qos else 0)
        got: list[bytes] = []
        for number in range(2):
            peer = harness.peer(f"member{number}")
            await peer.connect(clean_start=False, session_expiry_interval=1000)
            while packets := [p for p in await peer.arrived() if isinstance(p, Publish)]:
                for packet in packets:
                    got.append(packet.payload)
                    if packet.qos == 1:
                        await peer.send(PubAck(packet.packet_id))
        assert sorted(got) == (sorted(sent) if qos else [])


@pytest.mark.parametrize("overflow", ["reject", "drop_newest", "drop_oldest"])
async def test_where_all_queues_are_full(overflow: str) -> None:
    """The same bound as for a plain subscription, and the same choice of what gives way."""
    recorder = HookRecorder("dropped")
    limits = {"queue_messages": 2, "overflow": overflow}
    async with open_harness(plugins=[recorder], limits=limits) as harness:
        for peer in await members(harness, 2, session_expiry_interval=1000):
            await peer.drop()
        await publish(harness, 4)
        other = await harness.connect("other")
        await other.send(Publish("a", b"too much", 1, packet_id=1))
        (answer,) = await other.arrived()
        if overflow == "reject":
            assert answer == PubAck(1, 0x97, "the broker has no room for this message")
            with pytest.raises(RefusedError):
                await harness.broker.publish("a", b"too much", qos=2)
            assert recorder.calls == []
        else:
            assert answer == PubAck(1)
            assert [event.reason for event in recorder.of("dropped")] == ["queue_full"]
            assert harness.broker.statistics().dropped == {"queue_full": 1}
        assert sum(session.waiting for session in harness.broker.sessions()) == 4


# -- when a member goes away


@STORES
@pytest.mark.parametrize("stays", [True, False], ids=["session stays", "session ends"])
@pytest.mark.parametrize("how", ["lost", "DISCONNECT", "taken over"])
async def test_qos_1_that_was_not_acknowledged_goes_to_another(
    how: str, stays: bool, durable: bool
) -> None:
    async with open_harness(store=store(durable)) as harness:
        interval = 1000 if stays else 0
        first, second = await members(harness, 2, session_expiry_interval=interval)
        sent = await publish(harness, 10)
        own = {packet.payload: packet.packet_id for packet in await first.arrived()}  # type: ignore[attr-defined]
        others = await payloads(second)
        acknowledged = list(own)[:2]
        for payload in acknowledged:
            await first.send(PubAck(own[payload]))
        await first.settle()
        if how == "lost":
            await first.drop()
        elif how == "DISCONNECT":
            await first.disconnect()
        else:
            await harness.connect("member0", clean_start=True)
        moved = [packet for packet in await second.arrived() if isinstance(packet, Publish)]
        assert [packet.payload for packet in moved] == list(own)[2:]
        assert not any(packet.dup for packet in moved)  # to this one they are new
        assert sorted([*acknowledged, *others, *(p.payload for p in moved)]) == sorted(sent)
        if stays and how != "taken over":
            again = harness.peer("member0")
            await again.connect(clean_start=False, session_present=True)
            await again.nothing()


@STORES
@pytest.mark.parametrize("stays", [True, False])
async def test_qos_2_that_was_sent_stays_with_its_member(stays: bool, durable: bool) -> None:
    """[MQTT-4.8.2-4], [MQTT-4.8.2-5]: it is completed with this client, or with none."""
    async with open_harness(store=store(durable)) as harness:
        interval = 1000 if stays else 0
        first, second = await members(harness, 2, session_expiry_interval=interval)
        await publish(harness, 4, qos=2)
        own = [packet for packet in await first.arrived() if isinstance(packet, Publish)]
        assert len(own) == 2
        await payloads(second)
        await first.send(PubRec(own[0].packet_id))
        await first.expect(PubRel)
        await first.drop()
        await second.nothing()
        if stays:
            again = harness.peer("member0")
            await again.connect(clean_start=False, session_present=True)
            got = await again.arrived()
            assert PubRel(own[0].packet_id) in got
            (repeated,) = [packet for packet in got if isinstance(packet, Publish)]
            assert (repeated.payload, repeated.dup) == (own[1].payload, True)
        else:
            await trio.sleep(10)
            await second.nothing()


@STORES
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_only_waited_goes_to_another(qos: int, durable: bool) -> None:
    async with open_harness(store=store(durable)) as harness:
        (first,) = await members(harness, 1, receive_maximum=1, session_expiry_interval=1000)
        sent = await publish(harness, 5, qos)
        assert await payloads(first) == sent[:1]
        second = await harness.connect("second")
        await second.subscribe("$share/g/a", 2)
        await second.nothing()  # whoever comes doesn't take what somebody has
        await first.drop()
        assert await payloads(second) == (sent if qos == 1 else sent[1:])


async def test_a_message_moves_with_the_qos_of_its_new_member() -> None:
    async with open_harness() as harness:
        first = await harness.connect("first")
        await first.subscribe("$share/g/a", 1, identifier=1)
        await harness.broker.publish("a", "x", qos=2)
        await first.expect(Publish, payload=b"x", qos=1)
        second = await harness.connect("second")
        await second.subscribe("$share/g/a", 2, identifier=2)
        await first.drop()
        properties = PublishProperties(subscription_identifiers=(2,))
        await second.message(b"x", qos=2, dup=False, properties=properties)


async def test_nobody_else_keeps_a_message_for_a_member_without_qos() -> None:
    """A QoS 0 member that is there takes it at QoS 0."""
    async with open_harness() as harness:
        first = await harness.connect("first")
        await first.subscribe("$share/g/a", 1)
        await harness.broker.publish("a", "x", qos=1)
        await first.expect(Publish)
        second = await harness.connect("second")
        await second.subscribe("$share/g/a", 0)
        await first.drop()
        await second.message(b"x", qos=0)


@STORES
async def test_the_last_member_keeps_its_own(durable: bool) -> None:
    async with open_harness(store=store(durable)) as harness:
        (first,) = await members(harness, 1, session_expiry_interval=1000)
        sent = await publish(harness, 3)
        assert await payloads(first) == sent
        await first.drop()
        again = harness.peer("member0")
        await again.connect(clean_start=False, session_present=True)
        assert await payloads(again) == sent


async def test_the_end_of_a_session_hands_on_what_waited_for_it() -> None:
    async with open_harness() as harness:
        first, second = await members(harness, 2, session_expiry_interval=50)
        await first.drop()
        await second.drop()
        sent = await publish(harness, 4)
        second = harness.peer("member1")
        await second.connect(clean_start=False, session_expiry_interval=1000)
        got = await payloads(second)
        assert len(got) == 2
        await trio.sleep(100)  # the session of the first one expires
        got += await payloads(second)
        assert sorted(got) == sorted(sent)


async def test_unsubscribing_keeps_what_was_sent() -> None:
    async with open_harness() as harness:
        first, second = await members(harness, 2)
        await publish(harness, 2)
        (own,) = [packet for packet in await first.arrived() if isinstance(packet, Publish)]
        await payloads(second)
        await first.unsubscribe("$share/g/a")
        sent = await publish(harness, 2)
        assert await payloads(second) == sent
        await first.send(PubAck(own.packet_id))
        await first.ping()
        await first.nothing()


async def test_a_thousand_messages_and_members_that_come_and_go() -> None:
    """Each QoS 1 message is acknowledged by exactly one of them, or comes again."""
    async with open_harness() as harness:
        await members(harness, 1, session_expiry_interval=10_000)
        taken: Counter[bytes] = Counter()
        sent: list[bytes] = []
        for number in range(100):
            peer = harness.peer(f"member{number % 7}")
            await peer.connect(clean_start=False, session_expiry_interval=10_000)
            await peer.subscribe("$share/g/a", 1)
            for _ in range(10):
                sent.append(b"%d" % len(sent))
                await harness.broker.publish("a", sent[-1], qos=1)
            packets = [p for p in await peer.arrived() if isinstance(p, Publish)]
            for packet in packets[: 1 + number % 13]:
                taken[packet.payload] += 1
                await peer.send(PubAck(packet.packet_id))
            await peer.settle()
            if number % 3:
                await peer.drop()
        peers = []
        for number in range(7):
            peers.append(harness.peer(f"member{number}"))
            await peers[-1].connect(clean_start=False, session_expiry_interval=10_000)
        progress = True
        while progress:
            progress = False
            for peer in peers:
                for got in await peer.arrived():
                    assert isinstance(got, Publish)
                    progress = True
                    taken[got.payload] += 1
                    await peer.send(PubAck(got.packet_id))
        assert set(taken) == set(sent)
        assert set(taken.values()) == {1}
        assert sum(session.waiting + session.inflight for session in harness.broker.sessions()) == 0
