"""MQTT 5: what a session keeps, how long, and who gets it."""

import pytest
import trio

from mqtrio.wire.packets import (
    ConnAck,
    Disconnect,
    PubAck,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    Will,
)
from tests.conformance.peer import Peers, topic
from tests.conformance.rules import needs, rule
from tests.conformance.scripts import MALFORMED, away, back
from tests.conformance.timed import timed

NEVER = 0xFFFFFFFF


@rule("MQTT-3.1.2-4", "MQTT-3.2.2-2")
async def test_clean_start_drops_the_session(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name)
    async with peer() as q:
        await q.connect()
        await q.publish(name, b"queued", 1)
    async with peer(client_id=client_id) as p, peer() as q:
        await q.connect()
        await p.connect(clean_start=True, session_expiry_interval=60, session_present=False)
        await p.nothing()
        await q.publish(name, b"live", 1)
        await p.nothing(after=q)
        await p.disconnect()
    async with peer(client_id=client_id) as p:  # the one it began is empty
        await back(p)
        await p.nothing()


@rule("MQTT-3.2.2-2")
async def test_clean_start_without_a_session(peer: Peers) -> None:
    async with peer() as p:
        await p.connect(clean_start=True, session_present=False)


@rule("MQTT-3.1.2-5", "MQTT-3.2.2-3")
async def test_session_is_carried_on(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name, qos=2)
    async with peer() as q:
        await q.connect()
        await q.publish(name, b"one", 1)
        await q.publish(name, b"two", 2)
        async with peer(client_id=client_id) as p:
            await back(p)
            await p.message(payload=b"one", qos=1)
            await p.message(payload=b"two", qos=2)
            await q.publish(name, b"live", 1)
            await p.message(payload=b"live", qos=1)


@rule("MQTT-3.1.2-6", "MQTT-3.2.2-3")
async def test_no_session_to_carry_on(peer: Peers) -> None:
    async with peer() as p:
        connack = await p.connect(clean_start=False, session_expiry_interval=60)
        assert (connack.session_present, connack.reason_code) == (False, 0)
        await p.disconnect()
    async with peer(client_id=p.client_id) as p:  # it was made
        await p.connect(clean_start=False, session_present=True)


@rule("MQTT-3.1.2-23", "MQTT-4.5.0-1")
async def test_session_outlives_the_connection(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await p.connect(session_expiry_interval=60)
        await p.subscribe(name, 1)
        await p.drop()  # not even a DISCONNECT
    async with peer() as q:
        await q.connect()
        await q.publish(name, b"x", 1)
    async with peer(client_id=p.client_id) as p:
        await back(p)
        await p.message(payload=b"x")


@rule("MQTT-3.1.3-2")
async def test_client_identifier_is_the_key_of_the_session(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name)
    others = (client_id + "x", client_id[:-1], client_id.upper())
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


@rule("MQTT-3.1.4-3", "X-5-TAKEOVER-1")
@pytest.mark.parametrize("clean_start", [True, False])
async def test_take_over(peer: Peers, clean_start: bool) -> None:
    name = topic()
    async with peer() as old, peer(client_id=old.client_id) as new, peer() as q:
        await q.connect()
        await old.connect(session_expiry_interval=60)
        await old.subscribe(name)
        await new.connect(clean_start=clean_start, session_present=not clean_start)
        await old.expect_closed(0x8E)
        await q.publish(name, b"x", 1)
        if not clean_start:
            await new.message(payload=b"x")
        await new.nothing(after=q)


@rule("MQTT-3.1.4-3")
async def test_take_over_in_a_row(peer: Peers) -> None:
    async with peer() as one, peer(client_id=one.client_id) as two:
        async with peer(client_id=one.client_id) as three:
            await one.connect()
            await two.connect()
            await one.expect_closed(0x8E)
            await three.connect()
            await two.expect_closed(0x8E)
            await three.nothing()


@rule("MQTT-3.1.4-4")
async def test_session_present_fits_clean_start(peer: Peers) -> None:
    client_id = await away(peer, topic())
    for clean_start, present in ((False, True), (True, False), (False, True), (False, True)):
        async with peer(client_id=client_id) as p:
            await p.connect(
                clean_start=clean_start, session_expiry_interval=60, session_present=present
            )
            await p.disconnect()


@rule("MQTT-3.14.2-2")
async def test_no_session_expiry_interval_from_the_server(peer: Peers) -> None:
    async with peer() as old, peer(client_id=old.client_id) as new:
        await old.connect(session_expiry_interval=60)
        await new.connect(session_expiry_interval=30, clean_start=False)
        goodbye = await old.expect_closed(0x8E)
        if goodbye is not None:
            assert goodbye.session_expiry_interval is None
        await new.send(MALFORMED)
        goodbye = await new.expect_closed(0x81)
        if goodbye is not None:
            assert goodbye.session_expiry_interval is None


@rule("MQTT-4.1.0-1")
@timed
async def test_session_stays_while_the_connection_is_open(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await p.connect(session_expiry_interval=1)
        await p.subscribe(name, 2)
        await q.publish(name, b"before", 2)
        before = await p.message(payload=b"before", acknowledge=False)
        await trio.sleep(2.5)
        await p.acknowledge(before)
        await q.publish(name, b"after", 1)
        await p.message(payload=b"after")


@rule("MQTT-4.1.0-2", "X-5-SESSION-2")
@timed
async def test_session_ends_when_its_interval_is_over(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await p.connect(session_expiry_interval=2)
        await p.subscribe(name, 1)
        await p.disconnect()
    async with peer() as q:
        await q.connect()
        await q.publish(name, b"x", 1)
    async with peer(client_id=p.client_id) as p:
        await p.connect(clean_start=False, session_expiry_interval=2, session_present=True)
        await p.message(payload=b"x")
        await p.disconnect()
    async with peer() as q:
        await q.connect()
        await q.publish(name, b"y", 1)
    await trio.sleep(4)
    async with peer(client_id=p.client_id) as p, peer() as q:
        await p.connect(clean_start=False, session_present=False)
        await q.connect()
        await q.publish(name, b"z", 1)
        await p.nothing(after=q)


@rule("X-5-SESSION-3")
@timed
async def test_session_that_never_expires(peer: Peers) -> None:
    async with peer() as p:
        await p.connect(session_expiry_interval=NEVER)
        await p.disconnect()
    await trio.sleep(2.5)
    async with peer(client_id=p.client_id) as p:
        await p.connect(clean_start=False, session_present=True)


@rule("MQTT-4.5.0-1")
async def test_every_subscriber_gets_the_message(peer: Peers) -> None:
    name = topic("a")
    offline = await away(peer, name)
    async with peer() as one, peer() as two, peer() as q:
        await one.connect()
        await one.subscribe(name, 0)
        await two.connect()
        await two.subscribe(name.removesuffix("a") + "+", 1)
        await q.connect()
        await q.publish(name, b"x", 1)
        await one.message(payload=b"x")
        await two.message(payload=b"x")
    async with peer(client_id=offline) as p:
        await back(p)
        await p.message(payload=b"x")


@rule("X-5-SESSION-1")
@pytest.mark.parametrize("interval", [None, 0])
@pytest.mark.parametrize("dropped", [True, False])
async def test_session_ends_with_the_connection(
    peer: Peers, interval: int | None, dropped: bool
) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await watcher.connect()
        await watcher.subscribe(name)
        await p.connect(session_expiry_interval=interval, will=Will(name, b"gone"))
        if dropped:
            await p.drop()
        else:
            await p.disconnect(0x04)
        await watcher.message(payload=b"gone")  # the broker has seen the end
    async with peer(client_id=p.client_id) as p:
        await p.connect(clean_start=False, session_present=False)


@rule("X-5-SESSION-4")
async def test_disconnect_changes_the_interval(peer: Peers) -> None:
    async with peer() as p:
        await p.connect(session_expiry_interval=60)
        await p.disconnect(session_expiry_interval=0)
    async with peer(client_id=p.client_id) as p:
        await p.connect(clean_start=False, session_expiry_interval=1, session_present=False)
        await p.disconnect(session_expiry_interval=60)
    async with peer(client_id=p.client_id) as p:
        await p.connect(clean_start=False, session_present=True)


@rule("X-5-SESSION-4")
@timed
async def test_disconnect_with_a_longer_interval(peer: Peers) -> None:
    async with peer() as short, peer() as long:
        await short.connect(session_expiry_interval=60)
        await short.disconnect(session_expiry_interval=1)
        await long.connect(session_expiry_interval=1)
        await long.disconnect(session_expiry_interval=60)
    await trio.sleep(3)
    async with peer(client_id=short.client_id) as p, peer(client_id=long.client_id) as q:
        await p.connect(clean_start=False, session_present=False)
        await q.connect(clean_start=False, session_present=True)


@rule("X-5-SESSION-5")
@pytest.mark.parametrize("asked", [None, 0])
async def test_disconnect_raises_an_interval_of_0(peer: Peers, asked: int | None) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await watcher.connect()
        await watcher.subscribe(name)
        await p.connect(session_expiry_interval=asked, will=Will(name, b"gone"))
        await p.send(Disconnect(session_expiry_interval=60))
        await p.expect_closed(0x82)
        await watcher.message(payload=b"gone")
    async with peer(client_id=p.client_id) as p:
        await p.connect(clean_start=False, session_present=False)


@rule("X-5-SESSION-6")
@needs("limited")
async def test_server_chooses_the_interval(peer: Peers) -> None:
    for asked, told in ((60, 2), (NEVER, 2), (1, None), (2, None), (None, None)):
        async with peer() as p:
            connack = await p.connect(session_expiry_interval=asked)
            assert connack.session_expiry_interval == told


@rule("X-5-SESSION-6")
async def test_server_keeps_the_interval_asked_for(peer: Peers) -> None:
    async with peer() as p:
        connack = await p.connect(session_expiry_interval=1000)
        assert connack.session_expiry_interval in (None, 1000)


@rule("X-5-SESSION-7")
async def test_each_connect_sets_the_interval_anew(peer: Peers) -> None:
    client_id = await away(peer, topic())
    async with peer(client_id=client_id) as p:
        await p.connect(clean_start=False, session_present=True)  # no interval: 0
        await p.disconnect()
    async with peer(client_id=client_id) as p:
        await p.connect(clean_start=False, session_present=False)


@rule("X-5-SESSION-8")
async def test_qos_0_for_an_absent_client(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name)
    async with peer() as q:
        await q.connect()
        await q.publish(name, b"zero", 0)
        await q.publish(name, b"kept", 1, retain=True)
        async with peer(client_id=client_id) as p:
            await back(p)
            first = await p.message()
            if first.qos == 0:  # it may have been queued
                assert first.payload == b"zero"
                first = await p.message()
            assert first.payload == b"kept"
    async with peer(client_id=client_id) as p:
        await p.connect(clean_start=True)  # ends the session, not the retained message
        await p.subscribe(name)
        await p.message(payload=b"kept", retain=True)


@rule("MQTT-4.5.0-1")
async def test_subscriptions_of_a_resumed_session_can_be_changed(peer: Peers) -> None:
    one, two = topic(), topic()
    client_id = await away(peer, one)
    async with peer(client_id=client_id) as p, peer() as q:
        await back(p)
        await p.send(Subscribe(1, (SubscriptionRequest(two, 1),)))
        await p.expect(SubAck, reason_codes=(1,))
        await p.unsubscribe(one)
        await p.disconnect()
        await q.connect()
        await q.publish(one, b"1", 1)
        await q.publish(two, b"2", 1)
    async with peer(client_id=client_id) as p:
        await back(p)
        await p.message(topic=two)
        await p.nothing()


@rule("X-5-TAKEOVER-1")
async def test_take_over_with_messages_under_way(peer: Peers) -> None:
    name = topic()
    async with peer() as old, peer(client_id=old.client_id) as new, peer() as q:
        await q.connect()
        await old.connect(session_expiry_interval=60)
        await old.subscribe(name, 1)
        await q.publish(name, b"x", 1)
        got = await old.message(acknowledge=False)
        await new.send(new.connect_packet(clean_start=False))
        await new.expect(ConnAck, reason_code=0, session_present=True)
        again = await new.message(payload=b"x", dup=True, packet_id=got.packet_id)
        assert again.qos == 1
        await old.try_send(PubAck(got.packet_id))
        await old.expect_closed(0x8E)
