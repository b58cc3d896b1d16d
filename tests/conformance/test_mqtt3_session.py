"""MQTT 3.1 and 3.1.1: what a session keeps, how long, and who gets it."""

import pytest
import trio

from mqtrio.wire.packets import (
    ConnAck,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    Will,
)
from tests.conformance.peer import Peers, topic
from tests.conformance.rules import rule
from tests.conformance.scripts3 import away, back, both
from tests.conformance.timed import timed

# -- clean session ------


@rule("MQTT-3.1.2-4", "MQTT-3.1.2-5")
@both
async def test_session_is_carried_on(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name, qos=2)
    async with peer() as q:
        await q.connect()
        await q.publish(name, b"one", 1)
        await q.publish(name, b"two", 2)
        async with peer(client_id=client_id) as p:
            await back(p)
            await p.message(payload=b"one", qos=1, dup=False)
            await p.message(payload=b"two", qos=2, dup=False)
            await q.publish(name, b"live", 1)
            await p.message(payload=b"live", qos=1)
            await p.nothing(after=q)


@rule("MQTT-3.1.2-4", "MQTT-3.2.2-3", "MQTT-3.2.2-2")
async def test_session_present_where_none_was_and_where_one_is(peer: Peers) -> None:
    async with peer() as p:
        await p.connect(clean_start=False, session_present=False)
        assert p.last_frame == b"\x20\x02\x00\x00"
        await p.disconnect()
    for _ in range(2):  # it was made, though there is nothing in it
        async with peer(client_id=p.client_id) as p:
            await p.connect(clean_start=False, session_present=True)
            assert p.last_frame == b"\x20\x02\x01\x00"
            await p.disconnect()


@rule("MQTT-3.1.2-6", "MQTT-3.2.2-1")
@both
async def test_clean_session_drops_what_was_stored(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name)
    async with peer() as q:
        await q.connect()
        await q.publish(name, b"queued", 1)
        async with peer(client_id=client_id) as p:
            await p.connect(clean_start=True, session_present=False)
            await p.nothing()
            await q.publish(name, b"live", 1)
            await p.nothing(after=q)


@rule("MQTT-3.1.2-6")
@pytest.mark.parametrize("dropped", [True, False])
@both
async def test_clean_session_ends_with_the_connection(peer: Peers, dropped: bool) -> None:
    name, gone = topic(), topic()
    async with peer() as watcher, peer() as p:
        await watcher.connect()
        await watcher.subscribe(gone)
        await p.connect(clean_start=True, will=Will(gone, b"gone"))
        await p.subscribe(name, 1)
        if dropped:
            await p.drop()
            await watcher.message(payload=b"gone")  # the broker has seen the end
        else:
            await p.disconnect()
        await watcher.publish(name, b"missed", 1)
        async with peer(client_id=p.client_id) as p:
            await p.connect(clean_start=False, session_present=False)
            await p.nothing(after=watcher)
            await watcher.publish(name, b"live", 1)
            await p.nothing(after=watcher)


@rule("X-3-CLEAN-1", "MQTT-3.1.2-6")
@both
async def test_nothing_comes_back_after_a_clean_session(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name)
    async with peer(client_id=client_id) as p:
        await p.connect(clean_start=True)
        await p.disconnect()
    async with peer(client_id=client_id) as p, peer() as q:
        await p.connect(clean_start=False, session_present=False)
        await q.connect()
        await q.publish(name, b"x", 1)
        await p.nothing(after=q)


@rule("MQTT-3.1.2-6")
@both
async def test_clean_session_forgets_unfinished_exchanges(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await p.connect(clean_start=False)
        await p.subscribe(name, 2)
        await q.publish(name, b"one", 1)
        await q.publish(name, b"two", 2)
        await p.message(payload=b"one", acknowledge=False)
        two = await p.message(payload=b"two", acknowledge=False)
        await p.send(PubRec(two.packet_id))
        await p.expect(PubRel, packet_id=two.packet_id)
        await p.send(Publish(name, b"mine", 2, packet_id=9))
        await p.answer(PubRec, packet_id=9)
        await p.drop()
        async with peer(client_id=p.client_id) as p:
            await p.connect(clean_start=True, session_present=False)
            await p.nothing()
            await q.subscribe(name, 2)
            await p.send(Publish(name, b"new", 2, packet_id=9))  # a message, not a repetition
            await p.expect(PubRec, packet_id=9)
            await p.send(PubRel(9))
            await p.expect(PubComp, packet_id=9)
            await q.message(payload=b"new")


@rule("MQTT-3.1.4-3")
async def test_session_present_fits_clean_session(peer: Peers) -> None:
    client_id = await away(peer, topic())
    for clean, present in ((False, True), (True, False), (False, False), (False, True)):
        async with peer(client_id=client_id) as p:
            await p.connect(clean_start=clean, session_present=present)
            await p.disconnect()


@rule("MQTT-3.1.3-2")
@both
async def test_client_identifier_is_the_key_of_the_session(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name)
    others = (client_id[:-1], client_id.upper(), client_id + "x")
    for other in others:
        async with peer(client_id=other) as p, peer() as q:
            await p.connect(clean_start=False, session_present=False)
            await q.connect()
            await q.publish(name, b"x", 1)
            await p.nothing(after=q)
    async with peer(client_id=client_id) as p:
        await back(p)
        for _ in others:
            await p.message(payload=b"x")


@rule("MQTT-3.1.3-2")
async def test_versions_share_the_session_of_a_client(peer: Peers) -> None:
    name = topic()
    async with peer(v=3) as p:
        await p.connect(clean_start=False)
        await p.subscribe(name, 1)
        await p.disconnect()
    async with peer() as q:
        await q.connect()
        await q.publish(name, b"x", 1)
    async with peer(v=4, client_id=p.client_id) as p:
        await back(p)
        await p.message(payload=b"x")


# -- taking over ------


@rule("MQTT-3.1.4-2", "MQTT-3.1.4-3")
@pytest.mark.parametrize("clean", [True, False])
@both
async def test_take_over(peer: Peers, clean: bool) -> None:
    name = topic()
    async with peer() as old, peer(client_id=old.client_id) as new, peer() as q:
        await q.connect()
        await old.connect(clean_start=False)
        await old.subscribe(name, 1)
        present = not clean and new.version == 4
        await new.connect(clean_start=clean, session_present=present)
        await old.closed_silently()
        await q.publish(name, b"x", 1)
        if not clean:
            await new.message(payload=b"x")
        await new.nothing(after=q)


@rule("MQTT-3.1.4-2")
@both
async def test_take_over_in_a_row(peer: Peers) -> None:
    async with peer() as one, peer(client_id=one.client_id) as two:
        async with peer(client_id=one.client_id) as three:
            await one.connect()
            await two.connect()
            await one.closed_silently()
            await three.connect()
            await two.closed_silently()
            await three.nothing()


@rule("X-3-TAKEOVER-1")
@pytest.mark.parametrize("clean", [True, False])
@both
async def test_will_of_a_connection_taken_over(peer: Peers, clean: bool) -> None:
    name = topic()
    async with peer() as watcher, peer() as old, peer(client_id=old.client_id) as new:
        await watcher.connect()
        await watcher.subscribe(name)
        await old.connect(clean_start=clean, will=Will(name, b"gone"))
        await new.connect(clean_start=clean)
        await old.closed_silently()
        await watcher.message(payload=b"gone")
        await watcher.nothing(after=new)


@rule("MQTT-3.1.4-2", "X-3-TAKEOVER-1")
@both
async def test_take_over_with_messages_under_way(peer: Peers) -> None:
    name = topic()
    async with peer() as old, peer(client_id=old.client_id) as new, peer() as q:
        await q.connect()
        await old.connect(clean_start=False)
        await old.subscribe(name, 1)
        await q.publish(name, b"x", 1)
        got = await old.message(acknowledge=False)
        await new.send(new.connect_packet(clean_start=False))
        await new.expect(ConnAck, reason_code=0)
        await new.message(payload=b"x", qos=1, dup=True, packet_id=got.packet_id)
        await old.try_send(PubAck(got.packet_id))
        await old.closed_silently()


@rule("MQTT-3.1.4-2", "X-3-TAKEOVER-1")
async def test_take_over_by_another_version(peer: Peers) -> None:
    async with peer(v=5) as five, peer(v=4, client_id=five.client_id) as four:
        await five.connect(session_expiry_interval=60)
        await four.connect(clean_start=False, session_present=True)
        await five.expect_closed(0x8E)
        async with peer(v=5, client_id=five.client_id) as again:
            await again.connect(clean_start=False, session_present=True)
            await four.closed_silently()
            await again.nothing()


# -- how long ------


@rule("MQTT-4.1.0-1")
@both
async def test_subscriptions_and_queue_survive_several_connections(peer: Peers) -> None:
    one, two = topic(), topic()
    client_id = await away(peer, one)
    async with peer() as q:
        await q.connect()
        for number in range(3):
            await q.publish(one, bytes([number]), 1)
            async with peer(client_id=client_id) as p:
                await back(p)
                for waiting in range(number + 1):
                    again = waiting < number
                    await p.message(payload=bytes([waiting]), acknowledge=False, dup=again)
                # Not dropped: a server that has not noticed yet would send the next message to it.
                await p.disconnect()
        async with peer(client_id=client_id) as p:
            await back(p)
            for number in range(3):
                await p.message(payload=bytes([number]))
            await p.send(Subscribe(1, (SubscriptionRequest(two, 1),)))
            await p.expect(SubAck, reason_codes=(1,))
            await p.unsubscribe(one)
            await p.disconnect()
        await q.publish(one, b"1", 1)
        await q.publish(two, b"2", 1)
        async with peer(client_id=client_id) as p:
            await back(p)
            await p.message(topic=two)
            await p.nothing()


@rule("MQTT-4.1.0-1")
@both
async def test_session_outlives_a_lost_connection(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await p.connect(clean_start=False)
        await p.subscribe(name, 1)
        await p.drop()  # not even a DISCONNECT
    async with peer() as q:
        await q.connect()
        await q.publish(name, b"x", 1)
    async with peer(client_id=p.client_id) as p:
        await back(p)
        await p.message(payload=b"x")


@rule("MQTT-4.1.0-2")
@timed
async def test_session_stays_while_the_connection_is_open(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await p.connect(clean_start=True, keep_alive=0)
        await p.subscribe(name, 2)
        await q.publish(name, b"before", 2)
        before = await p.message(payload=b"before", acknowledge=False)
        await trio.sleep(4)
        await p.acknowledge(before)
        await q.publish(name, b"after", 1)
        await p.message(payload=b"after")


@rule("X-3-EXPIRY-1")
@timed
async def test_stored_session_has_no_timer(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name)
    await trio.sleep(4)
    async with peer(client_id=client_id) as p, peer() as q:
        await back(p)
        await q.connect()
        await q.publish(name, b"x", 1)
        await p.message(payload=b"x")


# -- who gets what ------


@rule("MQTT-4.5.0-1")
@both
async def test_every_subscriber_gets_the_message(peer: Peers) -> None:
    name = topic("a")
    offline = await away(peer, name)
    async with peer() as one, peer() as two, peer(v=5) as three, peer() as q:
        for subscriber, topic_filter, qos in (
            (one, name, 0),
            (two, name.removesuffix("a") + "+", 1),
            (three, name.removesuffix("a") + "#", 2),
        ):
            await subscriber.connect()
            await subscriber.subscribe(topic_filter, qos)
        await q.connect()
        await q.publish(name, b"x", 2)
        for subscriber, qos in ((one, 0), (two, 1), (three, 2)):
            await subscriber.message(payload=b"x", qos=qos)
    async with peer(client_id=offline) as p:
        await back(p)
        await p.message(payload=b"x", qos=1)


@rule("X-3-QUEUE-1", "MQTT-3.1.2-5")
@both
async def test_queue_of_an_absent_client(peer: Peers) -> None:
    """QoS 1 and 2 in order; QoS 0 may be there too."""
    name = topic()
    client_id = await away(peer, name, qos=2)
    async with peer() as q:
        await q.connect()
        for number in range(30):
            await q.publish(name, bytes([number]), number % 3)
    async with peer(client_id=client_id) as p:
        await back(p)
        seen: list[int] = []
        while not seen or seen[-1] < 29:
            got = await p.message(dup=False, retain=False)
            if got.qos or peer.strict:
                assert got.qos == got.payload[0] % 3
                seen.append(got.payload[0])
        assert seen == [number for number in range(30) if number % 3]
        await p.ping()
        await p.disconnect()
    async with peer(client_id=client_id) as p:
        await back(p)
        await p.nothing()


@rule("X-3-QUEUE-1")
@both
async def test_no_queue_where_the_subscription_is_at_qos_0(peer: Peers) -> None:
    name, marker = topic(), topic()
    async with peer() as p:
        await p.connect(clean_start=False)
        await p.subscribe(name, 0)
        await p.subscribe(marker, 1)
        await p.disconnect()
    async with peer() as q:
        await q.connect()
        await q.publish(name, b"x", 2)
        await q.publish(marker, b"marker", 1)
    async with peer(client_id=p.client_id) as p:
        await back(p)
        got = await p.message()
        if not peer.strict and got.topic == name:  # allowed, but at QoS 0
            assert got.qos == 0
            got = await p.message()
        assert got.topic == marker
