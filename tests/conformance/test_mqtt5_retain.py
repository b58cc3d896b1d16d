"""MQTT 5: retained messages."""

import pytest

from mqtrio.wire.packets import Publish, PublishProperties, SubAck, Subscribe, SubscriptionRequest
from tests.conformance import raw
from tests.conformance.peer import Peers, topic, unique
from tests.conformance.rules import needs, rule
from tests.conformance.scripts import refused


@rule("MQTT-3.3.1-5")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_the_newest_retained_message_is_kept(peer: Peers, qos: int) -> None:
    name = topic()
    async with peer() as late, peer() as q:
        await q.connect()
        await q.publish(name, b"old", qos, retain=True)
        await q.publish(name, b"new", qos, retain=True)
        await q.ping()
        await late.connect()
        await late.subscribe(name, 2)
        await late.message(topic=name, payload=b"new", retain=True, qos=qos, dup=False)
        await late.nothing()


@rule("MQTT-3.3.1-6", "MQTT-3.3.1-7")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_empty_payload_erases_the_retained_message(peer: Peers, qos: int) -> None:
    name = topic()
    async with peer() as p, peer() as late, peer() as q:
        await q.connect()
        await q.publish(name, b"old", 1, retain=True)
        await p.connect()
        await p.subscribe(name, 2)
        await p.message(payload=b"old", retain=True)
        await q.publish(name, b"", qos, retain=True)
        await p.message(payload=b"", retain=False, qos=qos)
        await late.connect()
        await late.subscribe(name)
        await late.nothing()


@rule("MQTT-3.3.1-7")
async def test_empty_payload_is_not_kept(peer: Peers) -> None:
    name = topic()
    async with peer() as late, peer() as q:
        await q.connect()
        properties = PublishProperties(user_properties=(("a", "b"),))
        await q.publish(name, b"", 1, retain=True, properties=properties)
        await late.connect()
        await late.subscribe(name)
        await late.nothing()


@rule("MQTT-3.3.1-8")
async def test_message_without_retain_leaves_the_retained_one(peer: Peers) -> None:
    name = topic()
    async with peer() as late, peer() as q:
        await q.connect()
        await q.publish(name, b"kept", 1, retain=True)
        await q.publish(name, b"live", 1)
        await q.publish(name, b"", 1)
        await late.connect()
        await late.subscribe(name)
        await late.message(payload=b"kept", retain=True)
        await late.nothing()


@rule("MQTT-3.3.1-9", "X-5-RETAIN-1")
async def test_retain_handling_0(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await q.publish(name + "/a", b"a", 1, retain=True)
        await q.publish(name + "/b", b"b", 1, retain=True)
        await p.connect()
        for _ in range(3):
            await p.subscribe(name + "/+", 1, retain_handling=0)
            seen = {(await p.message(retain=True)).payload for _ in range(2)}
            assert seen == {b"a", b"b"}
            await p.nothing()


@rule("MQTT-3.3.1-10", "X-5-RETAIN-1")
async def test_retain_handling_1(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await q.publish(name, b"kept", 1, retain=True)
        await p.connect(session_expiry_interval=60)
        await p.subscribe(name, 1, retain_handling=1)
        await p.message(payload=b"kept", retain=True)
        await p.subscribe(name, 0, retain_handling=1)
        await p.nothing()
        await p.unsubscribe(name)
        await p.subscribe(name, 1, retain_handling=1)  # a new one again
        await p.message(payload=b"kept", retain=True)
        await p.disconnect()
    async with peer(client_id=p.client_id) as p:
        await p.connect(clean_start=False, session_present=True, session_expiry_interval=60)
        await p.subscribe(name, 1, retain_handling=1)  # it survived with the session
        await p.nothing()
        await p.disconnect()
    async with peer(client_id=p.client_id) as p:
        await p.connect(clean_start=True)
        await p.subscribe(name, 1, retain_handling=1)  # and ended with it
        await p.message(payload=b"kept", retain=True)


@rule("MQTT-3.3.1-11", "X-5-RETAIN-1")
async def test_retain_handling_2(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await q.publish(name, b"kept", 1, retain=True)
        await p.connect()
        for _ in range(2):
            await p.subscribe(name, 1, retain_handling=2)
            await p.nothing()
        await q.publish(name, b"live", 1, retain=True)
        await p.message(payload=b"live", retain=False)


@rule("MQTT-3.3.1-12")
async def test_live_messages_lose_the_retain_flag(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await p.subscribe(name, 2)
        for qos in (0, 1, 2):
            await q.publish(name, b"kept", qos, retain=True)
            await p.message(retain=False, qos=qos)
            await q.publish(name, b"live", qos, retain=False)
            await p.message(retain=False, qos=qos)


@rule("MQTT-3.3.1-13", "X-5-RETAIN-2")
async def test_retain_as_published(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await p.subscribe(name, 2, retain_as_published=True)
        for qos in (0, 1, 2):
            await q.publish(name, b"kept", qos, retain=True)
            await p.message(payload=b"kept", retain=True, qos=qos)
            await q.publish(name, b"live", qos, retain=False)
            await p.message(payload=b"live", retain=False, qos=qos)


@rule("X-5-RETAIN-2")
@pytest.mark.parametrize("retain_as_published", [True, False])
async def test_messages_sent_on_subscribing_have_the_retain_flag(
    peer: Peers, retain_as_published: bool
) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await q.publish(name, b"kept", 1, retain=True)
        await p.connect()
        await p.subscribe(name, 1, retain_as_published=retain_as_published)
        await p.message(payload=b"kept", retain=True)


@rule("MQTT-3.8.4-4")
async def test_replacing_a_subscription_loses_nothing(peer: Peers) -> None:
    name = topic()
    count = 60
    async with peer() as p, peer() as q:
        await q.connect()
        await q.publish(name + "/kept", b"kept", 1, retain=True)
        await p.connect()
        await p.subscribe(name + "/#", 1)
        await p.message(payload=b"kept")
        for start in range(0, count, 10):  # while messages arrive, the subscription is replaced
            for number in range(start, start + 10):
                await q.send(Publish(name, bytes([number])))
            await p.send(Subscribe(7, (SubscriptionRequest(name + "/#", 0),)))
        await q.ping()
        for _ in range(count // 10):
            await p.answer(SubAck, packet_id=7)
        live: list[int] = []
        kept = 0
        while len(live) < count or kept < count // 10:
            got = await p.message()
            if got.payload == b"kept":
                kept += 1
            else:
                live.append(got.payload[0])
        assert live == list(range(count))
        await p.nothing(after=q)


@rule("X-5-RETAIN-3")
async def test_shared_subscriptions_get_no_retained_messages(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await q.publish(name, b"kept", 1, retain=True)
        await p.connect()
        shared = f"$share/{unique('g')}/{name}"
        for handling in (0, 1):
            await p.subscribe(shared, 1, retain_handling=handling)
            await p.nothing()
        await q.publish(name, b"live", 1, retain=True)
        await p.message(payload=b"live")


@rule("X-5-RETAIN-4")
async def test_qos_of_retained_messages(peer: Peers) -> None:
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        for stored in (0, 1, 2):
            name = topic()
            properties = PublishProperties(
                content_type="text/plain", user_properties=(("a", "1"), ("a", "2"))
            )
            await q.publish(name, b"kept", stored, retain=True, properties=properties)
            await q.ping()
            for granted in (0, 1, 2):
                await p.subscribe(name, granted)
                await p.message(
                    payload=b"kept",
                    qos=min(stored, granted),
                    retain=True,
                    properties=properties,
                )


@rule("X-5-RETAIN-4")
async def test_subscription_identifier_of_retained_messages(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await q.publish(name, b"kept", 1, retain=True)
        await p.subscribe(name, identifier=9)
        await p.message(properties=PublishProperties(subscription_identifiers=(9,)))


@rule("MQTT-3.2.2-14")
@needs("limited")
async def test_retain_where_nothing_is_retained(peer: Peers) -> None:
    async with peer() as p:
        connack = await p.connect()
        assert connack.retain_available is False
    await refused(peer, Publish(topic(), b"x", 0, retain=True), codes=(0x9A,))
    await refused(peer, raw.publish(b"a", b"x", 1, 1, first_byte=0x33), codes=(0x9A,))
